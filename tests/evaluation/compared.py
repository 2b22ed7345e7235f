"""Comparisons made by hand, of which it is known what they say."""

import torch

from whybox.evaluation.comparison import Comparison
from whybox.evaluation.parts import Cell, Criterion, Explained

CONTROLS = ("random_map",)


def compared(scores, families=None, higher=True, limit=None, n=20):
    """A comparison from `{(method, metric): mean}`; each sample's score scatters around the mean by ±.05."""
    methods = list(dict.fromkeys(method for method, _ in scores))
    methods.sort(key=lambda name: name in CONTROLS)
    metrics = list(dict.fromkeys(metric for _, metric in scores))
    scatter = 0.05 * torch.linspace(-1, 1, n, dtype=torch.float64)
    cells = {
        (methods.index(method), metrics.index(metric)): Cell(tuple((mean + scatter).tolist()), {}, 0.1, n, 0)
        for (method, metric), mean in scores.items()
    }
    return Comparison(
        model="net",
        samples=tuple(range(n)),
        wrong=(),
        explained=tuple(Explained({"name": name}, name in CONTROLS, 0.1, n, n) for name in methods),
        criteria=tuple(_criterion(metric, families or {}, higher, limit) for metric in metrics),
        cells=cells,
        failures=(),
        seed=0,
        complete=True,
        seconds=1.0,
        forwards=100,
        backwards=10,
        versions={"whybox": "0"},
    )


def _criterion(metric, families, higher, limit):
    """ "deletion/Zero" is the metric with its infill."""
    name, _, infill = metric.partition("/")
    config = {"name": name, **({"infill": {"name": infill}} if infill else {})}
    family = families.get(metric, "faithfulness")
    given = limit if family == "randomisation" else None
    return Criterion(config, family, higher, *(given or (None, "")))
