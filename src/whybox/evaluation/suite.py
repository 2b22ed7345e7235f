"""Suite: what `compare` compares, by what, where nothing else is asked for. The tables are readable without torch."""

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from whybox.core import registry

if TYPE_CHECKING:
    from whybox.core.reference import Infill
    from whybox.core.tree import Inputs
    from whybox.evaluation.metric import Metric

METHODS = (
    "gradient", "input_x_gradient", "smooth_grad", "integrated_gradients", "grad_cam", "lrp", "guided_backprop",
)  # fmt: skip

# Those that need the truth are left out where none is given, and those that the inputs are not made for. Infidelity is
# scaled, since the suite compares gradients with maps in the units of the score.
METRICS = (
    "region_perturbation", "deletion", "insertion", "infidelity(scaled=True)", "max_sensitivity(draws=8)",
    "pointing_game", "relevance_mass", "relevance_rank", "mosaic", "sparseness", "mprt(steps=5)", "completeness",
)  # fmt: skip

# Samek et al. 2017 lay a grid of 25 × 25 regions over a picture and replace 100 of them.
_GRID, _REPLACED = 25, 100 / 25**2


def metrics_for(inputs: "Inputs", *, truth: bool) -> "list[Metric]":
    """The metrics of the suite, for inputs of this kind and size.

    RegionPerturbation replaces the same share of a picture, in a grid as fine, as it does at the size that its default
    is made for, 224 × 224; finer than pixels there is none.
    """
    found = []
    for name in METRICS:
        metric = registry.metric(name)
        if (truth or not metric.needs_truth) and _suits(type(metric).__name__, inputs):
            found.append(of_size(metric, inputs) if name == "region_perturbation" else metric)
    return found


def _suits(metric: str, inputs: "Inputs") -> bool:
    """Whether inputs of this kind have what the metric needs: positions, pictures, or values that can be disturbed."""
    from whybox.core.tree import as_tuple

    parts = as_tuple(inputs)
    if metric == "RegionPerturbation":
        return all(x.ndim > 2 for x in parts)
    if metric == "Mosaic":
        return len(parts) == 1 and parts[0].ndim == 4
    return metric != "MaxSensitivity" or all(x.is_floating_point() for x in parts)


def of_size(metric: "Metric", inputs: "Inputs") -> "Metric":
    """RegionPerturbation with the grid and the steps that suit inputs of this size."""
    from whybox.core.tree import as_tuple

    grid = as_tuple(inputs)[0].shape[2:] or (1,)
    size = math.ceil(min(grid) / _GRID)
    steps = max(1, round(_REPLACED * math.prod(math.ceil(edge / size) for edge in grid)))
    return replace(metric, size=size, steps=steps)  # type: ignore[type-var]


def with_infills(metric: "Metric", infills: "tuple[Infill, ...] | None", inputs: "Inputs") -> "list[Metric]":
    """The metric once for each infill: those given, else its own and a second one of another kind.

    The second is UniformNoise, for token numbers Shuffled, or Zero where the metric's own is that already, so that a
    suite asks for two only.
    """
    if not any(field.name == "infill" for field in fields(metric)):  # type: ignore[arg-type]
        return [metric]
    if infills is None:
        from whybox.core.reference import Shuffled, UniformNoise, Zero
        from whybox.core.tree import as_tuple

        own: Infill = metric.infill  # type: ignore[attr-defined]
        numbers = all(x.is_floating_point() for x in as_tuple(inputs))
        other: Infill = UniformNoise() if numbers else Shuffled()
        infills = (own, Zero() if own == other else other)
    return [replace(metric, infill=infill) for infill in infills] or [metric]  # type: ignore[type-var]
