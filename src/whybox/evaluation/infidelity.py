"""Infidelity."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whybox.core.block import Block
from whybox.core.errors import InputError
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Grid, Regions
from whybox.core.tree import Inputs, as_tuple, each, like
from whybox.evaluation.case import Answers, Case, Make, Samples
from whybox.evaluation.hiding import OneByOne, drop, places
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Divided, relevance_of
from whybox.evaluation.similarity import over_positions


@dataclass(frozen=True)
class Noisy:
    """The answers for the samples under Gaussian noise, (n, draws).

    Args:
        noise: its standard deviation as a share of the domain of each channel.
        draws: how many noisy copies of each sample.
    """

    noise: float
    draws: int

    def measure(self, samples: Samples) -> Answers:
        return samples.ask(self.draws, self.make(samples))

    def make(self, samples: Samples) -> Make:
        """Makes the noisy copies again."""
        task = samples.task
        bounds = zip(task.domains(), as_tuple(task.inputs), strict=True)
        spread = like(task.inputs, tuple(high - low for low, high in (domain.bounds(x) for domain, x in bounds)))

        def make(sample: Tensor, number: Tensor) -> Inputs:
            block = Block(task, sample, number)
            return each(lambda x, n, s: x - self.noise * s * n, block.inputs, block.normal(), spread)

        return make


@dataclass(frozen=True)
class Infidelity(Metric):
    """E_I (Iᵀφ − (f(x) − f(x − I)))²: how far the relevance is from telling what changes I of the input change.

    I removes one region, each in turn, I = x − infill there and 0 elsewhere; or it is Gaussian noise. φ is the
    relevance of a unit of change, as a gradient is. Most methods multiply it by the input: R = φ ⊙ (x − baseline), and
    then removing a region has Iᵀφ = Σ R over it; `multiplied` says which of the two the relevance is. 0 for a map that
    is additive for f. The answers depend on the samples alone: all explanations compared share them, and, of regions,
    `FaithfulnessEstimate` of the same regions and infill. Details: `expected` Iᵀφ (after scaling) and the `change` of
    each I, (n, changes), NaN behind a sample's last region.
    Cost: a forward for each region, or `draws` of noise, and one for the sample itself; none for a second explanation.
    Limits: in the units of f²: a map of the right shape but another scale fails, as does one of φ taken for R; compare
    such with `scaled`, and samples by other means. Inputs with holes are none that the model was trained on.
    Source: Yeh, Hsieh, Suggala, Inouye & Ravikumar 2019, arXiv 1901.09392.

    Args:
        regions: what is removed at once, cut at the border; None for what is usual for inputs of their kind.
        infill: what replaces it.
        noise: the noise's standard deviation as a share of the domain; None to remove regions instead.
        draws: how often noise is drawn.
        multiplied: whether the relevance is R, in the units of f, rather than φ; noise needs φ.
        scaled: whether each map is multiplied by the number β that makes its infidelity least,
            β = E (Iᵀφ · (f(x) − f(x − I))) / E (Iᵀφ)².
        follows: f: the target's "score", or the "probability" of its class.
    """

    regions: Regions | None = field(default_factory=Grid)
    infill: Infill = field(default_factory=Zero)
    noise: float | None = None
    draws: int = 50
    multiplied: bool = True
    scaled: bool = False
    follows: Literal["score", "probability"] = "score"

    family = "faithfulness"
    higher_is_better = False

    def __post_init__(self) -> None:
        if self.draws < 1 or (self.noise is not None and not 0 < self.noise < math.inf):
            raise InputError(f"infidelity needs draws ≥ 1 and finite noise > 0 or None, not {self.draws}, {self.noise}")
        if self.noise is not None and self.multiplied:
            raise InputError(
                "relevance that was multiplied by the input says nothing of noise: give multiplied=False and the "
                "relevance of a unit of change, such as a gradient; or noise=None"
            )

    def measure(self, case: Case) -> Scores:
        change, present = self._change(case)
        if self.multiplied:
            expected = relevance_of(case.samples.once(Divided(self.regions)), case.relevance)
        else:
            expected = self._over(case, lambda i, r: i * r)
        expected = expected.nan_to_num(0.0, 0.0, 0.0)
        if self.scaled:
            square = expected.square().where(present, 0.0).sum(1)
            beta = (expected * change).where(present, 0.0).sum(1) / square.where(square > 0, 1.0)
            expected = expected * beta[:, None]
        details = {"expected": expected.where(present, torch.nan), "change": change}
        return Scores(_mean((expected - change).square(), present), details)

    def chance(self, case: Case) -> Tensor | None:
        """The mean of (f(x) − f(x − I))² + ⅓ Σ (Σ_c I)², a random map having the variance ⅓ at every position.

        The second sum is over positions, the inner one over channels; for multiplied relevance it counts positions.
        """
        if self.scaled:
            return None
        change, present = self._change(case)
        if self.multiplied:
            spread = places(case.samples, self.regions)
        else:
            spread = self._over(case, lambda i, _: over_positions(i).square())
        return _mean(change.square() + spread / 3, present)

    @property
    def _kind(self) -> Noisy | OneByOne:
        return OneByOne(self.regions, self.infill) if self.noise is None else Noisy(self.noise, self.draws)

    def _change(self, case: Case) -> tuple[Tensor, Tensor]:
        """f(x) − f(x − I) of every change (n, changes), and which of these there are."""
        samples = case.samples
        if not self.multiplied and not all(x.is_floating_point() for x in as_tuple(case.task.inputs)):
            raise InputError("tokens do not change by an amount: give multiplied=True")
        change = drop(samples, self._kind, self.follows)
        if self.noise is None:
            return change, samples.once(Divided(self.regions)).present
        return change, torch.ones_like(change, dtype=torch.bool)

    def _over(self, case: Case, term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The sum over all values of term(I, R), in float64 on the CPU, for every change I, (n, changes)."""
        change, _ = self._change(case)
        make, found = self._kind.make(case.samples), torch.zeros_like(change)
        for block in case.task.blocks(change.shape[1]):
            parts = zip(
                as_tuple(block.inputs),
                as_tuple(make(block.sample, block.draw)),
                as_tuple(case.relevance),
                strict=True,
            )
            for x, changed, relevance in parts:
                difference = (x - changed).detach().cpu().double()
                terms = term(difference, relevance.detach().cpu().double()[block.sample])
                found[block.sample, block.draw] += terms.flatten(1).sum(1)
        return found


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """The mean of each row over what is present."""
    return values.where(present, 0.0).sum(1) / present.sum(1)
