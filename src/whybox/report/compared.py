"""How to make a comparison again: the command, the same in Python, the configuration, the versions, what to cite."""

from datetime import UTC, datetime

from whybox.core.configs import config_text
from whybox.evaluation.comparison import Comparison
from whybox.report.reproduce import Reproduce, as_yaml, load_by_name, method_line, options_of, sources, words_of

_BOOTSTRAP = (
    "The intervals: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.",
    "An edge detector as a control: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, arXiv 1810.03292.",
)
_OPTIONS = {"model": ("--model", "-m"), "weights": ("--weights",), "data": ("--data", "-d"), "split": ("--split",)}


def reproduce_comparison(comparison: Comparison, command: str) -> Reproduce:
    """What the last section of the page shows."""
    methods = [one.method for one in comparison.explained if not one.control]
    metrics = [one.metric for one in comparison.criteria]
    configuration = {
        "model": comparison.model,
        "samples": list(comparison.samples),
        "methods": methods,
        "controls": [one.method for one in comparison.explained if one.control],
        "metrics": metrics,
        "seed": comparison.seed,
    }
    return Reproduce(
        command=command,
        python=python_lines(comparison, command),
        configuration=as_yaml(configuration),
        versions=tuple(comparison.versions.items()),
        seed=comparison.seed,
        citations=(*sources([*methods, *metrics]), *_BOOTSTRAP),
        written=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def python_lines(comparison: Comparison, command: str) -> str:
    """A script that makes the same comparison, as far as the data are known by name."""
    words = words_of(command)
    names = {kind: (options_of(words, *flags) or [""])[-1] for kind, flags in _OPTIONS.items()}
    split = f", split={names['split']!r}" if names["split"] else ""
    weights = f", weights={names['weights']!r}" if names["weights"] else ""
    model = (
        f"model = whybox.models.load({names['model']!r}{weights})" if names["model"] else load_by_name(comparison.model)
    )
    own = "" if names["data"] in ("", "digits") else ", preprocess=model.preprocess"
    data = (
        f"whybox.datasets.load({names['data']!r}{split}{own})" if names["data"] else "...  # the same (inputs, target)"
    )
    methods = [one.method for one in comparison.explained if not one.control]
    return "\n".join(
        [
            "import whybox",
            "",
            model,
            f"data = {data}",
            "methods = [",
            *map(method_line, methods),
            "]",
            "metrics = [",
            *(f"    {config_text(one.metric)!r}," for one in comparison.criteria),
            "]",
            f"options = dict(n={comparison.n}, controls={bool(comparison.controls)}, seed={comparison.seed})",
            "comparison = whybox.compare(model, data, methods, metrics, infills=(), **options)",
            'comparison.save("comparison.html")',
        ]
    )
