"""LIME: a linear model of the score, fitted to random coalitions of regions near the input."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.attribution.perturbation.least_squares import Moments
from whybox.attribution.perturbation.partition import Partition
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Regions
from whybox.core.task import Task

# The penalty with which regions are chosen, where only some are to be explained.
SELECTION_PENALTY = 0.01
# Bytes for each pair of regions while the fit is solved, as measured: ten matrices of float64.
SOLVING = 80

UNEXPLAINED = (
    "Share of the score's weighted variance around the input that the linear model leaves unexplained, 1 − R². Where "
    "it is large, the weights do not describe the model."
)


@dataclass(frozen=True)
class LIME(Method):
    """Relevance R = β of min Σ_z π(z)·(f(x_z) − a − zβ)² + penalty·‖β‖²: each region's weight in a local linear model.

    x_z keeps the regions with z_i = 1 and takes the others from the infill; z is the input itself, then coin flips.
    π(z) = √exp(−d²/width²), d the distance of z from the input: cosine, 1 − √(share of regions kept), as is usual for
    pictures and text, or Euclidean, √(regions hidden). All samples of the batch are solved together, from running
    sums. Signed; every place has its region's weight, and size 1 on axes that regions do not divide. `details` have
    the coefficients, the intercept and the weighted R² of each sample.
    Cost: `samples` forward passes; memory does not grow with them.
    Limits: as linear as the fit (see R²); depends on regions, infill and kernel width; the penalty shrinks the weights,
    most where samples are few or far.
    Source: Ribeiro, Singh & Guestrin 2016, arXiv 1602.04938.

    Args:
        samples: number of coalitions, the input itself among them.
        regions: what is hidden together; None for superpixels, columns, tokens or patches of time.
        infill: what stands in for what is hidden.
        distance: between a coalition and the input.
        kernel_width: of the exponential kernel; None for 0.25 (cosine) or 0.75·√regions (Euclidean).
        penalty: of the ridge regression.
        features: explain by so many regions only, those of the largest weights in a first fit; None for all.
    """

    samples: int = 1000
    regions: Regions | None = None
    infill: Infill = field(default_factory=Zero)
    distance: Literal["cosine", "euclidean"] = "cosine"
    kernel_width: float | None = None
    penalty: float = 1.0
    features: int | None = None

    taxonomy = Taxonomy(shows="regions", needs="outputs", relation="proxy")

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 2:
            raise InputError(f"LIME needs whole samples ≥ 2, not {self.samples}")
        if self.distance not in ("cosine", "euclidean"):
            raise InputError(f"the distance is 'cosine' or 'euclidean', not {self.distance!r}")
        if not (self.kernel_width is None or self.kernel_width > 0) or not self.penalty >= 0:
            raise InputError(f"LIME needs kernel_width > 0 and penalty ≥ 0, not {self.kernel_width}, {self.penalty}")
        if self.features is not None and (not isinstance(self.features, int) or self.features < 1):
            raise InputError(f"features is a whole number from 1, or None for all regions, not {self.features!r}")

    def attribute(self, task: Task) -> Attribution:
        partition = Partition.of(task, self.regions)
        partition.check_budget(self.samples, partition.size + 1)
        partition.check_memory(task.size * SOLVING * partition.size**2)
        engine = Engine(task, self.infill, partition)

        def coalitions(sample: Tensor, number: Tensor) -> Tensor:
            kept = engine.uniform(sample, number, partition.size) < 0.5
            return (kept | (number == 0)[:, None]) & partition.present[sample]

        moments = Moments(task.size, partition.size)
        original = torch.zeros(task.size, dtype=torch.float64)
        for chunk in engine.scores(self.samples, coalitions):
            first = chunk.number == 0
            original[chunk.sample[first]] = chunk.score[first]
            weight = self.kernel(chunk.kept.sum(1).double(), partition.counts[chunk.sample])
            # The difference from the input's score, so that a constant model has weights of exactly 0.
            moments.add(chunk.sample, chunk.kept, weight, chunk.score - original[chunk.sample])
        used = partition.present
        if self.features is not None and self.features < partition.size:
            strength = moments.ridge(SELECTION_PENALTY, used)[0].abs().masked_fill(~used, -1)
            used = used & torch.zeros_like(used).scatter(1, strength.topk(self.features).indices, True)
        weights, intercept, r2 = moments.ridge(self.penalty, used)
        return Attribution(
            partition.spread(weights),
            {"weights": weights, "intercept": intercept + original, "r2": r2},
            (Check("unexplained by the local model", 1 - r2, 0.5, UNEXPLAINED),),
        )

    def kernel(self, kept: Tensor, regions: Tensor) -> Tensor:
        """The weight (k,) of coalitions that keep so many of so many regions."""
        if self.distance == "cosine":
            distance, width = 1 - (kept / regions).sqrt(), self.kernel_width or 0.25
            return (-((distance / width) ** 2) / 2).exp()
        width_squared = self.kernel_width**2 if self.kernel_width else 0.75**2 * regions
        return (-(regions - kept) / width_squared / 2).exp()
