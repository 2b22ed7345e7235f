"""Relative stability: the relative change of the map per change of the input, of the outputs, of what is inside."""

from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.core.errors import ModelError
from whybox.evaluation.case import Case
from whybox.evaluation.distance import TINY
from whybox.evaluation.metric import Scores
from whybox.evaluation.neighbours import Answered, Distances, Reactions, by
from whybox.evaluation.sensitivity import OverNeighbours


class _Relative(OverNeighbours):
    """What the relative stabilities have in common: neighbours that the model predicts to be of another class drop."""

    def _measured(self, case: Case, layer: str | None = None) -> tuple[Distances, Reactions]:
        return case.once(self.neighbours), case.samples.once(Answered(self.neighbours, layer))

    def _stability(self, case: Case, distances: Distances, kept: Tensor, per: Tensor) -> Scores:
        """The largest relative change of the map per change of something else (n, draws, norms)."""
        ratios = by(self.norm, distances.relative_relevance) / by(self.norm, per).clamp_min(TINY)
        largest = torch.where(kept, ratios, -torch.inf).amax(1)
        none = {"no neighbour keeps the predicted class": ~kept.any(1)}
        return self._scored(case, distances, largest, none, ratios=ratios, kept=kept)


@dataclass(frozen=True)
class RelativeInputStability(_Relative):
    """max over neighbours x' of ‖(R(x') − R(x)) / R(x)‖ / ‖(x' − x) / x‖: relative change of the map per input's.

    Divided entry by entry, with 10⁻⁶ in the place of zeros; x' = x + n with n uniform in a cube, |n| ≤ radius,
    explained for the target of x. Only neighbours of the same predicted class count.
    Details: the `ratios` of all neighbours and which are `kept`, (n, draws).
    Cost: `draws` explanations and forwards per sample, shared by all metrics of robustness with the same draws and
    radius; the forwards by all explanations of a batch too.
    Limits: ruled by the entries of the map, and of the input, that are next to zero; where they are exactly zero, as
    on black ground, the score is a matter of the 10⁻⁶.
    Source: Agarwal, Johnson, Pawelczyk, Krishna, Saxena, Zitnik & Lakkaraju 2022, arXiv 2203.06877.

    Args:
        draws: neighbours per sample.
        radius: the largest change of a value, as a share of the width of its domain.
        norm: how changes are measured: "l1", "l2", or "max", the largest entry.
    """

    def measure(self, case: Case) -> Scores:
        distances, reactions = self._measured(case)
        return self._stability(case, distances, reactions.kept, distances.relative_inputs)


@dataclass(frozen=True)
class RelativeOutputStability(_Relative):
    """max over neighbours x' of ‖(R(x') − R(x)) / R(x)‖ / ‖h(x') − h(x)‖: relative change of the map per outputs'.

    h are all outputs of the model, as it gives them. Else as `RelativeInputStability`.
    Details: the `ratios` of all neighbours and which are `kept`, (n, draws).
    Cost: `draws` explanations and forwards per sample, shared by all metrics of robustness with the same draws and
    radius; the forwards by all explanations of a batch too.
    Limits: as for `RelativeInputStability`; the outputs' own scale stays in it, so that it compares methods on one
    model, not models.
    Source: Agarwal, Johnson, Pawelczyk, Krishna, Saxena, Zitnik & Lakkaraju 2022, arXiv 2203.06877.

    Args:
        draws: neighbours per sample.
        radius: the largest change of a value, as a share of the width of its domain.
        norm: how changes are measured: "l1", "l2", or "max", the largest entry.
    """

    def measure(self, case: Case) -> Scores:
        distances, reactions = self._measured(case)
        return self._stability(case, distances, reactions.kept, reactions.outputs)


@dataclass(frozen=True)
class RelativeRepresentationStability(_Relative):
    """max over neighbours x' of ‖(R(x') − R(x)) / R(x)‖ / ‖(L(x') − L(x)) / L(x)‖: the same per change inside.

    L is what a layer of the model gives out. Else as `RelativeInputStability`.
    Details: the `ratios` of all neighbours and which are `kept`, (n, draws); the `layer`.
    Cost: `draws` explanations and forwards per sample, shared by all metrics of robustness with the same draws and
    radius; the forwards by all explanations of a batch too, and with `layer=None` by the other relative stabilities.
    Limits: as for `RelativeInputStability`; behind a ReLU many entries of L are exactly zero.
    Source: Agarwal, Johnson, Pawelczyk, Krishna, Saxena, Zitnik & Lakkaraju 2022, arXiv 2203.06877.

    Args:
        draws: neighbours per sample.
        radius: the largest change of a value, as a share of the width of its domain.
        norm: how changes are measured: "l1", "l2", or "max", the largest entry.
        layer: its dotted name; None for the last one before the output that all of the evidence passes through.
    """

    layer: str | None = None

    def measure(self, case: Case) -> Scores:
        distances, reactions = self._measured(case, self.layer)
        if reactions.layer is None:
            raise ModelError(
                "found no layer before the output that all of the evidence passes through; name one with layer='…' "
                "(`whybox layers MODEL` lists them)"
            )
        scores = self._stability(case, distances, reactions.kept, reactions.relative_representations)
        scores.details["layer"] = reactions.layer
        return scores
