"""Metrics that show the model the picture through the map: what the map keeps should be enough."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.core.block import Block
from whybox.core.errors import InputError
from whybox.core.reference import Infill, Zero
from whybox.core.tree import Inputs, as_tuple, each, like
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores, unless


class Through(NamedTuple):
    """What the model says of the samples seen through the map.

    Attributes:
        before, after: the probability of the target's class for the sample and for what the map keeps of it, (n,).
        undefined: whether the map cannot be brought to [0, 1], (n,).
    """

    before: Tensor
    after: Tensor
    undefined: Tensor


@dataclass(frozen=True)
class Masked:
    """The answers for m ⊙ x + (1 − m) ⊙ infill, m being the map over positions, brought to [0, 1].

    Args:
        scale: how: "range": (R − min)/(max − min); "positive": max(R, 0)/max; "none": R is in [0, 1] already.
        infill: what shows where the map is low.
    """

    scale: Literal["range", "positive", "none"]
    infill: Infill

    def measure(self, case: Case) -> Through:
        samples, task = case.samples, case.task
        if not all(x.is_floating_point() for x in as_tuple(task.inputs)):
            raise InputError("tokens can be hidden, but not faded by a map: score them by TokenDeletion")
        before = samples.originals.of("probability")
        mask, undefined = self._mask(case)
        engine = Engine(task, self.infill, filled=samples.filled(self.infill))

        def make(sample: Tensor, _: Tensor) -> Inputs:
            block = Block(task, sample, torch.zeros_like(sample))
            return engine.hide(each(lambda m: m[sample], mask), block)

        after = samples.ask(1, make).of("probability")[:, 0]
        return Through(before, after, undefined)

    def _mask(self, case: Case) -> tuple[Inputs, Tensor]:
        """The map as a mask of every input, float64 on the CPU, and where there is none (n,)."""
        maps = [
            (r.sum(1, keepdim=True) if r.ndim > 2 else r).detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
            for r in as_tuple(case.relevance)
        ]
        flat = torch.cat([r.reshape(len(r), -1) for r in maps], 1)
        if self.scale == "none" and bool(((flat < 0) | (flat > 1)).any()):
            raise InputError("a map that is to be a mask as it is lies in [0, 1]; let scale='range' bring it there")
        zero = torch.zeros(len(flat), dtype=torch.float64)
        low, high = {
            "range": (flat.amin(1), flat.amax(1)),
            "positive": (zero, flat.amax(1)),
            "none": (zero, zero + 1),
        }[self.scale]
        span = high - low
        undefined = ~(span > 0)

        def brought(r: Tensor) -> Tensor:
            shape = (-1, *(1,) * (r.ndim - 1))
            return ((r - low.view(shape)) / span.where(~undefined, 1.0).view(shape)).clamp(0, 1)

        return like(case.task.inputs, tuple(map(brought, maps))), undefined


@dataclass(frozen=True)
class _ThroughTheMap(Metric):
    """What they have in common: the probability before and after."""

    scale: Literal["range", "positive", "none"] = "range"
    infill: Infill = field(default_factory=Zero)

    family = "faithfulness"

    def _scores(self, found: Through, values: Tensor, skipped: dict[str, Tensor]) -> Scores:
        skipped = {"a map that cannot be brought to [0, 1]": found.undefined, **skipped}
        return Scores(unless(skipped, values), {"before": found.before, "after": found.after}, skipped)


@dataclass(frozen=True)
class AverageDrop(_ThroughTheMap):
    """[p − o]₊ / p: the share of its probability that the class loses when the map masks the picture.

    p is the probability for the picture x, o that for m ⊙ x + (1 − m) ⊙ infill, and m the map (its channels summed)
    brought to [0, 1]. In [0, 1]; the mean over samples is the measure of the paper, which states it in percent.
    Details: p as `before` and o as `after`, (n,).
    Cost: one forward per sample, and one for the sample itself; shared with `AverageIncrease` and `AverageGain`.
    Limits: rewards maps that keep much: one that is the same everywhere but in a corner loses nothing; a dimmed
    picture is none that the model was trained on; "range" shows zero relevance as grey where a map has two signs.
    Source: Chattopadhay, Sarkar, Howlader & Balasubramanian 2018, arXiv 1710.11063.

    Args:
        scale: how the map becomes m: "range" is (R − min)/(max − min), "positive" max(R, 0)/max, "none" R itself.
        infill: what shows where m is low.
    """

    higher_is_better = False

    def measure(self, case: Case) -> Scores:
        found = case.once(Masked(self.scale, self.infill))
        drop = (found.before - found.after).clamp_min(0) / found.before
        return self._scores(found, drop, {"a probability of 0 cannot drop": found.before == 0})


@dataclass(frozen=True)
class AverageIncrease(_ThroughTheMap):
    """1 if p < o, else 0: whether the class becomes more probable when the map masks the picture.

    p, o and the details as for `AverageDrop`; the mean over samples is the paper's increase in confidence.
    Cost: one forward per sample, and one for the sample itself; shared with `AverageDrop` and `AverageGain`.
    Limits: as for `AverageDrop`; counts the smallest increase as much as the largest.
    Source: Chattopadhay, Sarkar, Howlader & Balasubramanian 2018, arXiv 1710.11063.

    Args:
        scale: how the map becomes m: "range" is (R − min)/(max − min), "positive" max(R, 0)/max, "none" R itself.
        infill: what shows where m is low.
    """

    higher_is_better = True

    def measure(self, case: Case) -> Scores:
        found = case.once(Masked(self.scale, self.infill))
        more = (found.before < found.after).double().where(torch.isfinite(found.before + found.after), torch.nan)
        return self._scores(found, more, {})


@dataclass(frozen=True)
class AverageGain(_ThroughTheMap):
    """[o − p]₊ / (1 − p): the share of what it lacks that the class gains when the map masks the picture.

    p, o and the details as for `AverageDrop`, of which this is the counterpart.
    Cost: one forward per sample, and one for the sample itself; shared with `AverageDrop` and `AverageIncrease`.
    Limits: as for `AverageDrop`; says little of classes that are nearly certain, nothing of such as are.
    Source: Zhang, Torres, Sicre, Avrithis & Ayache 2023, arXiv 2301.07002.

    Args:
        scale: how the map becomes m: "range" is (R − min)/(max − min), "positive" max(R, 0)/max, "none" R itself.
        infill: what shows where m is low.
    """

    higher_is_better = True

    def measure(self, case: Case) -> Scores:
        found = case.once(Masked(self.scale, self.infill))
        gain = (found.after - found.before).clamp_min(0) / (1 - found.before)
        return self._scores(found, gain, {"a probability of 1 cannot gain": found.before == 1})
