"""Continuity: how much the map changes when the picture is moved a little."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.reference import Black, Infill
from whybox.core.tree import as_tuple, each
from whybox.evaluation.case import Case
from whybox.evaluation.distance import flat, flat_maps, length
from whybox.evaluation.metric import Metric, Scores, unless


@dataclass(frozen=True)
class Continuity(Metric):
    """max over translations x' of ‖R(x') − R(x)‖₁ / ‖x' − x‖₂: the steepest change of the map as the input moves.

    x' is x moved along its last axis, the width of a picture or the time of a series, explained for the target of x;
    what moves in is the infill. Translations that change nothing do not count. Details: the `ratios` at all of them,
    (n, translations).
    Cost: one explanation per translation and sample.
    Limits: grows with the scale of the map, so that it compares only methods whose maps have one unit; a map that
    ignores the input is at its best.
    Source: Montavon, Samek & Müller 2018, arXiv 1706.07979.

    Args:
        translations: by how many places, to the right where positive.
        infill: what moves in, drawn once per sample.
    """

    translations: tuple[int, ...] = (-4, -3, -2, -1, 1, 2, 3, 4)
    infill: Infill = field(default_factory=Black)

    family = "robustness"
    higher_is_better = False
    explains_again = True

    def __post_init__(self) -> None:
        if not self.translations or 0 in self.translations:
            raise InputError(f"translations are at least one number of places, none of them 0, not {self.translations}")

    def measure(self, case: Case) -> Scores:
        task = case.task
        filled = case.samples.filled(self.infill)
        if filled is None or any(x.ndim < 3 for x in as_tuple(task.inputs)):
            raise InputError(
                "continuity moves inputs with positions (n, c, …) and an infill that can be drawn beforehand, not "
                f"{self.infill} for inputs of shape {[tuple(x.shape) for x in as_tuple(task.inputs)]}"
            )
        changes = []
        for block in task.blocks(len(self.translations)):
            places = torch.tensor(self.translations)[block.draw]

            def own(part: Tensor, rows: Tensor = block.sample) -> Tensor:
                return part[rows.to(part.device)]

            moved = each(lambda x, f, by=places: _moved(x, f, by.to(x.device)), block.inputs, each(own, filled))
            before, after = flat_maps(each(own, case.relevance), case.explain(moved, block))
            change, way = length(after - before, "l1"), length(flat(moved) - flat(block.inputs), "l2")
            changes.append(torch.stack((change, way), 1).cpu())
        change, way = torch.cat(changes).view(task.size, -1, 2).unbind(2)
        ratios = torch.where(way == 0, torch.nan, change / way)
        skipped = {
            "no translation changes the input": (way == 0).all(1),
            "a translated input's relevance is not finite": case.finite() & ~torch.isfinite(change).all(1),
        }
        steepest = torch.where(way == 0, -torch.inf, ratios).amax(1)
        return Scores(unless(skipped, steepest), {"ratios": ratios}, skipped)


def _moved(x: Tensor, filled: Tensor, places: Tensor) -> Tensor:
    """Each row moved along its last axis by its own number of places, with the infill behind it."""
    width = x.shape[-1]
    source = torch.arange(width, device=x.device) - places[:, None]
    column = source.view(len(x), *(1,) * (x.ndim - 2), width)
    inside = (column >= 0) & (column < width)
    return torch.where(inside, x.gather(-1, column.clamp(0, width - 1).expand_as(x)), filled)
