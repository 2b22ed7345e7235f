"""whybox opens the black box: why a PyTorch model predicts what it predicts, and whether to believe the explanation.

Names are loaded when they are first used, so that `import whybox` itself costs next to nothing.
"""

from typing import Any

from whybox._version import __version__ as __version__
from whybox.core import names as _tables
from whybox.core.registry import method as method
from whybox.core.registry import methods as methods
from whybox.core.registry import metric as metric
from whybox.core.registry import metrics as metrics

_PLACES = {
    "whybox.core.model": ("Domain", "Model"),
    "whybox.core.method": ("Attribution", "Check", "Fitted", "Method", "Taxonomy"),
    "whybox.core.task": ("Task",),
    "whybox.core.target": (
        "Contrast",
        "Function",
        "Logit",
        "LogProbability",
        "Neuron",
        "Probability",
        "Target",
    ),
    "whybox.core.external": ("External",),
    "whybox.core.explanation": ("Explanation",),
    "whybox.core.errors": ("WhyboxError",),
    "whybox.explaining": ("explain",),
    "whybox.evaluation.comparing": ("ComparisonInterrupted", "compare"),
    "whybox.evaluation.comparison": ("Comparison",),
    "whybox.evaluation.metric": ("Limit", "Metric", "Scores"),
    "whybox.evaluation.studies.study": ("Findings", "Study"),
    "whybox.inspection": ("Inspection", "inspect"),
}
_MODULES = {
    name: f"whybox.{name}" for name in ("attribution", "datasets", "evaluation", "models", "plot", "report", "text")
}
_MODULES["latent"] = "whybox.contrast.latent"
_MODULES["rules"] = "whybox.attribution.backprop.rules"
_NAMES = {name: module for module, names in _PLACES.items() for name in names}
_TABLES = (_tables.METHODS, _tables.CONTROLS, _tables.METRICS, _tables.STUDIES, _tables.VALUES)
_NAMES |= {place.partition(":")[2]: place.partition(":")[0] for table in _TABLES for place in table.values()}

__all__ = [*_NAMES, *_MODULES, "method", "methods", "metric", "metrics"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    import importlib

    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'whybox' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
