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

# Those that need the truth are left out where none is given.
METRICS = (
    "region_perturbation", "deletion", "insertion", "infidelity", "max_sensitivity", "pointing_game", "relevance_mass",
    "relevance_rank", "mosaic", "sparseness", "mprt", "completeness",
)  # fmt: skip

# Samek et al. 2017 lay a grid of 25 × 25 regions over a picture and replace 100 of them.
_GRID, _REPLACED = 25, 100 / 25**2


def metrics_for(inputs: "Inputs", *, truth: bool) -> "list[Metric]":
    """The metrics of the suite, for inputs of this size.

    RegionPerturbation replaces the same share of a picture, in a grid as fine, as it does at the size that its default
    is made for, 224 × 224; finer than pixels there is none.
    """
    found = []
    for name in METRICS:
        metric = registry.metric(name)
        if metric.needs_truth and not truth:
            continue
        found.append(of_size(metric, inputs) if name == "region_perturbation" else metric)
    return found


def of_size(metric: "Metric", inputs: "Inputs") -> "Metric":
    """RegionPerturbation with the grid and the steps that suit inputs of this size."""
    from whybox.core.tree import as_tuple

    grid = as_tuple(inputs)[0].shape[2:] or (1,)
    size = math.ceil(min(grid) / _GRID)
    steps = max(1, round(_REPLACED * math.prod(math.ceil(edge / size) for edge in grid)))
    return replace(metric, size=size, steps=steps)  # type: ignore[type-var]


def with_infills(metric: "Metric", infills: "tuple[Infill, ...] | None") -> "list[Metric]":
    """The metric once for each infill: those given, else its own and a second one of another kind.

    The second is UniformNoise, or Zero where the metric's own is noise already, so that a suite asks for two only.
    """
    if not any(field.name == "infill" for field in fields(metric)):  # type: ignore[arg-type]
        return [metric]
    if infills is None:
        from whybox.core.reference import UniformNoise, Zero

        own: Infill = metric.infill  # type: ignore[attr-defined]
        infills = (own, Zero() if isinstance(own, UniformNoise) else UniformNoise())
    return [replace(metric, infill=infill) for infill in infills] or [metric]  # type: ignore[type-var]
