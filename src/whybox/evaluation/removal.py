"""Removal: what becomes of the model's answer while regions are taken away in the order of their relevance.

All metrics that follow such a curve share it: one that asks for the same regions, infill, order and levels asks the
model nothing. What a region is replaced by is drawn once per sample, so that a step of the curve changes only what it
takes away.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.attribution.perturbation.partition import Partition
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.block import Block
from whybox.core.errors import InputError
from whybox.core.reference import Infill
from whybox.core.regions import Regions
from whybox.core.tree import Inputs, as_tuple
from whybox.evaluation.case import Answers, Case, Samples
from whybox.evaluation.metric import Scores

Order = Literal["most", "least", "random"]
ORDERS = ("most", "least", "random")


@dataclass(frozen=True)
class Curve:
    """The answers along the way, of every sample.

    Attributes:
        removed: how many regions were gone at each level (n, levels + 1), from 0.
        share: the same as a share of all the sample's regions.
        answers: the model's answers there, each (n, levels + 1); the first are those for the inputs themselves.
    """

    removed: Tensor
    share: Tensor
    answers: Answers

    def area_over(self, quantity: str) -> Tensor:
        """The mean over the levels of how far the quantity has fallen: AOPC (n,)."""
        values = self.answers.of(quantity)
        return (values[:, :1] - values).mean(1)

    def area_under(self, quantity: str) -> Tensor:
        """The area under the quantity over the share removed, by trapezoids (n,)."""
        return torch.trapezoid(self.answers.of(quantity), self.share, dim=1)

    def details(self, quantity: str) -> dict[str, Tensor]:
        """The curve as details of a metric; `relative` is the quantity as a share of the original's."""
        values = self.answers.of(quantity)
        return {"removed": self.removed, **self.answers._asdict(), "relative": values / values[:, :1]}


@dataclass(frozen=True)
class Divided:
    """The samples, divided into regions."""

    regions: Regions | None

    def measure(self, samples: Samples) -> Partition:
        return Partition.of(samples.task, self.regions)


@dataclass(frozen=True)
class Ranks:
    """The place of every region in an order (n, regions), from 0; places behind a sample's last region mean nothing.

    "most" begins with the region of the highest relevance (the sum, or with `mean` the mean, over its values), "least"
    is its reverse, "random" has nothing to do with the relevance. Ties are broken at random.
    """

    regions: Regions | None
    order: Order = "most"
    mean: bool = False

    def measure(self, case: Case) -> Tensor:
        if self.order not in ORDERS:
            raise InputError(f"the order is one of {', '.join(map(repr, ORDERS))}, not {self.order!r}")
        partition = case.samples.once(Divided(self.regions))
        keys = torch.tensor(case.task.keys)
        at_random = uniform(keys, torch.zeros(len(keys), dtype=torch.long), partition.size, salt=1)
        values = relevance_of(partition, case.relevance, mean=self.mean)
        if self.order == "random":
            values = torch.zeros_like(values)
        values = torch.where(partition.present, values.nan_to_num(0.0), -torch.inf)
        shuffled = at_random.argsort(1)
        best_first = shuffled.gather(1, values.gather(1, shuffled).sort(dim=1, descending=True, stable=True).indices)
        ranks = best_first.argsort(1)
        return partition.counts[:, None] - 1 - ranks if self.order == "least" else ranks


@dataclass(frozen=True)
class Removal:
    """A curve: regions taken away in an order, up to a number of them or all, the model asked at some levels.

    Args:
        regions: what is taken away at once; None for what is usual for inputs of their kind.
        infill: what is put in its place.
        order: as in `Ranks`.
        levels: how often the model is asked, besides for the inputs themselves.
        share: which share of the regions is taken away in the end; at least one region is.
        most: how many are taken away at most.
        mean: as in `Ranks`.
    """

    regions: Regions | None
    infill: Infill
    order: Order = "most"
    levels: int = 20
    share: float = 1.0
    most: int | None = None
    mean: bool = False

    def measure(self, case: Case) -> Curve:
        partition = case.samples.once(Divided(self.regions))
        ranks = case.once(Ranks(self.regions, self.order, self.mean))
        counts = partition.counts
        last = (counts * self.share).round().long().clamp_min(1)
        if self.most is not None:
            last = last.clamp_max(self.most)
        levels = min(self.levels, int(last.max()))
        removed = (last[:, None] * torch.arange(levels + 1) / levels).round().long()
        first = case.samples.originals
        rest = self._answers(case, partition, ranks, removed[:, 1:])
        both = (torch.cat((one[:, None], more), 1) for one, more in zip(first, rest, strict=True))
        return Curve(removed, removed.double() / counts[:, None], Answers(*both))

    def _answers(self, case: Case, partition: Partition, ranks: Tensor, removed: Tensor) -> Answers:
        """The answers with the first removed[s, j] regions of sample s gone, each (n, levels)."""
        task = case.task
        engine = Engine(task, self.infill, partition, filled=case.samples.filled(self.infill))

        def make(sample: Tensor, level: Tensor) -> Inputs:
            kept = ranks[sample] >= removed[sample, level][:, None]
            return engine.hide(partition.masks(kept, sample), Block(task, sample, torch.zeros_like(sample)))

        return case.samples.ask(removed.shape[1], make)


def relevance_of(partition: Partition, relevance: Inputs, *, mean: bool = False) -> Tensor:
    """The sum (or mean) of the relevance over each region's values, float64 (n, regions) on the CPU."""
    rows = len(partition.counts)
    total = torch.zeros(rows, partition.size, dtype=torch.float64)
    count = torch.zeros_like(total)
    for labels, part in zip(partition.labels, as_tuple(relevance), strict=True):
        shape = torch.broadcast_shapes(labels.shape, part.shape)
        index = labels.expand(shape).reshape(rows, -1).cpu()
        values = part.detach().cpu().double().expand(shape).reshape(rows, -1)
        total.scatter_add_(1, index, values)
        count.scatter_add_(1, index, torch.ones_like(values))
    return total / count.clamp_min(1) if mean else total


def followed(case: Case, removal: Removal, quantity: str) -> Curve:
    """The curve; refused before the model is asked on the way where it has no such quantity."""
    case.samples.originals.of(quantity)
    return case.once(removal)


def fall(case: Case, removal: Removal, order: Order | Literal["both"], quantity: str) -> Scores:
    """AOPC: how far the quantity falls on the way, on average over the levels; with "both" that of most minus least."""
    if order != "both":
        curve = followed(case, replace(removal, order=order), quantity)
        return Scores(curve.area_over(quantity), curve.details(quantity))
    most, least = (followed(case, replace(removal, order=order), quantity) for order in ("most", "least"))
    between = most.area_over(quantity) - least.area_over(quantity)
    return Scores(between, {"most": most.details(quantity), "least": least.details(quantity)})
