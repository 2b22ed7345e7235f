"""KernelSHAP: Shapley values by regression on coalitions of regions."""

import itertools
import math
import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.attribution.perturbation.kriging import memory, predicted
from whybox.attribution.perturbation.partition import Partition
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Regions
from whybox.core.task import Task


@dataclass(frozen=True)
class KernelSHAP(Method):
    """Relevance R = φ, the Shapley values: φ_i = Σ_{S∌i} |S|!·(m − |S| − 1)!/m! · (f(x_{S∪i}) − f(x_S)).

    x_S keeps the regions in S and takes the others from the infill. Σφ = f(x) − f(x_∅). Where all 2^m coalitions are
    within the budget each is asked about once, and φ is exact. Otherwise it is estimated by generalised least squares
    from coalitions with their complements: all single regions, then as many of every size as of every other, none
    twice. What a linear model leaves over is not taken for noise but for interactions, which neighbouring coalitions
    share, so the error falls faster than 1/√samples while the score is smooth (the original, weighted least squares,
    treats it as noise). Signed; every place has its region's value, and size 1 on axes that regions do not divide.
    `details` have the values of the regions, their standard errors (0 where exact), the efficiency gap
    Σφ − (f(x) − f(x_∅)) and the evaluations.
    Cost: at most `samples` forward passes; beside the model, time grows with the cube of `samples` up to 4,000.
    Limits: what is hidden is filled in as if regions were independent; depends on regions and infill, a random one
    being drawn once for each sample (ShapleySampling takes the mean over draws).
    Source: Lundberg & Lee 2017, arXiv 1705.07874; pairs: Covert & Lee 2021, arXiv 2012.01536; sizes: Musco & Witter
    2024, arXiv 2410.01917.

    Args:
        regions: what is hidden together; None for superpixels, columns, tokens or patches of time.
        infill: what stands in for what is hidden.
        samples: the budget of coalitions, at least 2·regions + 2 where it is less than 2^regions.
    """

    regions: Regions | None = None
    infill: Infill = field(default_factory=Zero)
    samples: int = 512

    taxonomy = Taxonomy(shows="regions", needs="outputs", relation="dependence")

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 2:
            raise InputError(f"KernelSHAP needs whole samples ≥ 2, not {self.samples}")

    def attribute(self, task: Task) -> Attribution:
        partition = Partition.of(task, self.regions)
        m = partition.size
        partition.check_budget(self.samples, min(2**m, 2 * m + 2))
        if self.samples < 2**m:
            partition.check_memory(task.size * self.samples // 2 * m + memory(self.samples // 2, m))
        engine = Engine(task, self.infill, partition)
        games = list(zip(partition.counts.tolist(), task.keys, strict=True))
        halves = [_every_pair(c) if 2**c <= self.samples else _pairs(c, self.samples // 2, key) for c, key in games]
        pairs = torch.tensor([len(half) for half in halves])
        table = torch.zeros(task.size, int(pairs.max()), m, dtype=torch.bool)
        for row, half in zip(table, halves, strict=True):
            row[: len(half), : half.shape[1]] = half

        def coalition(sample: Tensor, number: Tensor) -> Tensor:
            complement = (number % 2 == 1)[:, None]
            return (table[sample, number // 2] ^ complement) & partition.present[sample]

        scores = torch.zeros(task.size, 2 * table.shape[1], dtype=torch.float64)
        for chunk in engine.scores(2 * pairs, coalition, draw=lambda _, number: torch.zeros_like(number)):
            scores[chunk.sample, chunk.number] = chunk.score
        odd = (scores[:, ::2] - scores[:, 1::2]) / 2
        values, errors = torch.zeros(2, task.size, m, dtype=torch.float64)
        # One by one, as a sample's table of covariances may be large.
        for i, half in enumerate(halves):
            c, b = half.shape[1], len(half)
            if 2 * b == 2**c:
                values[i, :c] = _exact(half, odd[i, :b])
            else:
                values[i, :c], errors[i, :c] = predicted(half, odd[i, :b])
        difference = scores[:, 0] - scores[:, 1]
        # The prediction has no gap but that of rounding; this takes away what it amplified.
        values += partition.present * ((difference - values.sum(1)) / partition.counts)[:, None]
        return Attribution(
            partition.spread(values),
            {
                "values": values,
                "standard_errors": errors,
                "efficiency_gap": values.sum(1) - difference,
                "evaluations": 2 * pairs,
            },
        )


def _every_pair(regions: int) -> Tensor:
    """One of each coalition and its complement, bool (2^(regions − 1), regions); the first is of all regions."""
    return (torch.arange(2 ** (regions - 1))[:, None] >> torch.arange(regions)) & 1 == 0


def _pairs(regions: int, count: int, key: int) -> Tensor:
    """Some of them, (count, regions): all, each region alone, and as many of every other size as there are or fit."""
    rng = random.Random(key)
    there = {size: math.comb(regions, size) // (2 if 2 * size == regions else 1) for size in range(1, regions // 2 + 1)}
    chosen: list[tuple[int, ...]] = [tuple(range(regions))]
    sizes = sorted(there, key=lambda size: (size > 1, there[size]))
    for place, size in enumerate(sizes):
        share = regions if size == 1 else min(there[size], (count - len(chosen)) // (len(sizes) - place))
        chosen += _subsets(regions, size, share, there[size], rng)
    kept = torch.zeros(count, regions, dtype=torch.bool)
    row = torch.arange(count).repeat_interleave(torch.tensor([len(subset) for subset in chosen]))
    kept[row, torch.tensor([region for subset in chosen for region in subset])] = True
    return kept


def _subsets(regions: int, size: int, count: int, there: int, rng: random.Random) -> list[tuple[int, ...]]:
    """Distinct subsets of a size at random; of half the regions only such as contain region 0."""
    if there <= 2 * count:
        # The first in this order are those that contain region 0.
        return rng.sample(list(itertools.islice(itertools.combinations(range(regions), size), there)), count)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        if 2 * size == regions:
            found[0, *sorted(rng.sample(range(1, regions), size - 1))] = None
        else:
            found[tuple(sorted(rng.sample(range(regions), size)))] = None
    return list(found)


def _exact(kept: Tensor, odd: Tensor) -> Tensor:
    """The Shapley values (m,) from one of every coalition and its complement, (2^(m − 1), m)."""
    m = kept.shape[1]
    weight = torch.tensor([1 / (m * math.comb(m - 1, size)) for size in range(m)], dtype=torch.float64)
    size = kept.sum(1, keepdim=True)
    signed = torch.where(kept, weight[size - 1], -weight[size.clamp_max(m - 1)])
    return 2 * odd @ signed
