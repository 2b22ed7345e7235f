"""Complexity: on how few places the relevance lies. It says nothing of whether these are the right ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whybox.core.errors import InputError
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.places import all_places


@dataclass(frozen=True)
class _Complexity(Metric):
    """What they have in common: they look at |R_p|, R_p the relevance of a place, summed over the channels."""

    family = "complexity"

    def measure(self, case: Case) -> Scores:
        strength = all_places(case.relevance, case.task.inputs).abs()
        none = (strength == 0).all(1)
        return Scores(self._of(strength).masked_fill(none, torch.nan), skipped={"no relevance at any place": none})

    def _of(self, strength: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
        raise NotImplementedError


@dataclass(frozen=True)
class Sparseness(_Complexity):
    """G = Σ_i (2i − P − 1) |R|_(i) / (P Σ_p |R_p|), the Gini index of |R| over the P places, sorted upwards.

    0 where all places are alike, 1 − 1/P where one has everything. R_p is summed over the channels.
    Cost: none; the places are sorted.
    Limits: a sparse map can be wrong, and evidence can lie everywhere.
    Source: Chalasani, Chen, Chowdhury, Jha & Wu 2020, arXiv 1810.06583; Hurley & Rickard 2009, arXiv 0811.4706.
    """

    higher_is_better = True

    def _of(self, strength: Tensor) -> Tensor:
        count = strength.shape[1]
        weight = 2 * torch.arange(1, count + 1, dtype=torch.float64) - count - 1
        return strength.sort(1).values @ weight / (count * strength.sum(1))


@dataclass(frozen=True)
class Complexity(_Complexity):
    """H = −Σ_p s_p ln s_p with s_p = |R_p| / Σ_q |R_q|: the entropy of how |R| is spread over the places.

    0 where one place has everything, ln P where all P are alike; e^H is a number of places. R_p is summed over the
    channels.
    Cost: none.
    Limits: a simple map can be wrong; maps over different numbers of places do not compare.
    Source: Bhatt, Weller & Moura 2020, arXiv 2005.00631.
    """

    higher_is_better = False

    def _of(self, strength: Tensor) -> Tensor:
        share = strength / strength.sum(1, keepdim=True)
        entropy: Tensor = torch.special.entr(share).sum(1)
        return entropy


@dataclass(frozen=True)
class EffectiveComplexity(_Complexity):
    """#{p : |R_p| > t · max_q |R_q|}: the number of places whose relevance is not negligible.

    R_p is summed over the channels.
    Cost: none.
    Limits: t decides; in the paper the model does, by when its answer is the same without the rest.
    Source: after Nguyen & Martínez 2020, arXiv 2007.07584.

    Args:
        threshold: t, from 0 to below 1.
    """

    threshold: float = 0.01

    higher_is_better = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise InputError(f"the threshold is a share of the largest relevance, from 0 to 1, not {self.threshold}")

    def _of(self, strength: Tensor) -> Tensor:
        return (strength > self.threshold * strength.amax(1, keepdim=True)).sum(1).double()

    def chance(self, case: Case) -> Tensor:
        """Below the largest of independent uniform values, all others are uniform."""
        places = all_places(case.relevance, case.task.inputs).shape[1]
        return torch.full((case.task.size,), 1 + (places - 1) * (1 - self.threshold), dtype=torch.float64)
