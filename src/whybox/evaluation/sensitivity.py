"""How much the map changes in the neighbourhood of the input: at most, on average, and per change of the input."""

from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.evaluation.case import Case
from whybox.evaluation.distance import Norm, flat, length
from whybox.evaluation.metric import Metric, Scores, unless
from whybox.evaluation.neighbours import Distances, Neighbours, by


@dataclass(frozen=True)
class OverNeighbours(Metric):
    """What metrics have in common that look at the explanations of neighbours of the input."""

    draws: int = 20
    radius: float = 0.02
    norm: Norm = "l2"

    family = "robustness"
    higher_is_better = False
    explains_again = True

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.radius < torch.inf:
            raise InputError(f"neighbours need at least one draw and a radius above 0, not {self.draws}, {self.radius}")

    @property
    def neighbours(self) -> Neighbours:
        """The measurement that all of them share."""
        return Neighbours(self.draws, self.radius)

    def _scored(
        self, case: Case, distances: Distances, values: Tensor, skipped: dict[str, Tensor], **details: Tensor
    ) -> Scores:
        """The values, but none where something hinders, and why."""
        reasons = {**distances.hindered(case), **skipped}
        return Scores(unless(reasons, values), details, reasons)


@dataclass(frozen=True)
class _Sensitivity(OverNeighbours):
    """What the greatest and the mean sensitivity have in common."""

    relative: bool = True

    def _changes(self, case: Case) -> tuple[Distances, Tensor, dict[str, Tensor]]:
        """All distances; those of the maps that count (n, draws); and which samples have none to speak of."""
        distances = case.once(self.neighbours)
        changes = by(self.norm, distances.relevance)
        if not self.relative:
            return distances, changes, {}
        size = length(flat(case.relevance), self.norm).cpu()
        return distances, changes / size[:, None], {"no relevance anywhere": size == 0}


@dataclass(frozen=True)
class MaxSensitivity(_Sensitivity):
    """max over neighbours x' of ‖R(x') − R(x)‖ / ‖R(x)‖: the largest change of the map by a small one of the input.

    x' = x + n with n uniform in a cube, |n| ≤ radius; explained for the target of x. The paper's own form has no
    denominator, and calls a map ten times more robust that is a tenth in size: `relative=False`.
    Details: the `changes` of all neighbours (n, draws).
    Cost: `draws` explanations per sample, shared by all metrics of robustness with the same draws and radius.
    Limits: the largest of so many draws, a lower bound of the maximum; a map that ignores the input is at its best.
    The method's own noise, where it has some, counts as change.
    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019, arXiv 1901.09392.

    Args:
        draws: neighbours per sample.
        radius: the largest change of a value, as a share of the width of its domain.
        norm: how a change of the map is measured: "l1", "l2", or "max", its largest entry.
        relative: divide by the norm of the map.
    """

    def measure(self, case: Case) -> Scores:
        distances, changes, skipped = self._changes(case)
        return self._scored(case, distances, changes.amax(1), skipped, changes=changes)


@dataclass(frozen=True)
class AverageSensitivity(_Sensitivity):
    """mean over neighbours x' of ‖R(x') − R(x)‖ / ‖R(x)‖: the usual change of the map by a small one of the input.

    As `MaxSensitivity`, with the mean in the place of the maximum.
    Details: the `changes` of all neighbours (n, draws).
    Cost: `draws` explanations per sample, shared by all metrics of robustness with the same draws and radius.
    Limits: a map that ignores the input is at its best; the method's own noise, where it has some, counts as change.
    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019, arXiv 1901.09392.

    Args:
        draws: neighbours per sample.
        radius: the largest change of a value, as a share of the width of its domain.
        norm: how a change of the map is measured: "l1", "l2", or "max", its largest entry.
        relative: divide by the norm of the map.
    """

    def measure(self, case: Case) -> Scores:
        distances, changes, skipped = self._changes(case)
        return self._scored(case, distances, changes.mean(1), skipped, changes=changes)


@dataclass(frozen=True)
class LocalLipschitz(OverNeighbours):
    """max over neighbours x' of ‖R(x') − R(x)‖ / ‖x' − x‖: the steepest change of the map around the input.

    x' = x + n with n uniform in a cube, |n| ≤ radius; explained for the target of x. Neighbours that rounding makes
    equal to x do not count. Details: the `ratios` of all neighbours (n, draws), NaN of those.
    Cost: `draws` explanations per sample, shared by all metrics of robustness with the same draws and radius.
    Limits: the largest of so many draws, a lower bound of the maximum; grows with the scale of the map, so that it
    compares only methods whose maps have one unit.
    Source: Alvarez-Melis & Jaakkola 2018, arXiv 1806.08049.

    Args:
        draws: neighbours per sample.
        radius: the largest change of a value, as a share of the width of its domain.
        norm: how changes of map and input are measured: "l1", "l2", or "max", the largest entry.
    """

    def measure(self, case: Case) -> Scores:
        distances = case.once(self.neighbours)
        way = by(self.norm, distances.inputs)
        ratios = torch.where(way == 0, torch.nan, by(self.norm, distances.relevance) / way)
        steepest = torch.where(way == 0, -torch.inf, ratios).amax(1)
        return self._scored(case, distances, steepest, {}, ratios=ratios)
