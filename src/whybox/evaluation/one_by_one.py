"""Metrics that hide one region after the other: those that matter to the model should have the relevance."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.reference import Infill, UniformNoise, Zero
from whybox.core.regions import Grid, Regions
from whybox.evaluation.case import Case
from whybox.evaluation.hiding import OneByOne, drop, places
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Divided, relevance_of
from whybox.evaluation.similarity import constant, correlation


@dataclass(frozen=True)
class FaithfulnessEstimate(Metric):
    """Pearson's correlation over regions i of R_i and f(x) − f(x without i): whether what matters has the relevance.

    The answers depend on the samples alone: all explanations compared share them, and `Infidelity` of the same regions
    and infill. Details: the `relevance` and the `drop` of every region, (n, regions), NaN behind a sample's last.
    Cost: a forward for each region, and one for the sample itself; none for a second explanation of it. With Pixels
    that is 50,176 of a picture of 224².
    Limits: what can be replaced by something else in the input changes nothing by itself; NaN where all regions have
    the same relevance or none changes the answer.
    Source: Alvarez-Melis & Jaakkola 2018, arXiv 1806.07538.

    Args:
        regions: what is hidden together; None for what is usual for inputs of their kind.
        infill: what replaces it.
        follows: f: the "probability" of the target's class, or its "score".
    """

    regions: Regions | None = field(default_factory=Grid)
    infill: Infill = field(default_factory=Zero)
    follows: Literal["probability", "score"] = "probability"

    family = "faithfulness"
    higher_is_better = True

    def measure(self, case: Case) -> Scores:
        samples = case.samples
        partition = samples.once(Divided(self.regions))
        lost = drop(samples, OneByOne(self.regions, self.infill), self.follows)
        relevance = relevance_of(partition, case.relevance).nan_to_num(0.0, 0.0, 0.0)
        return _scores(correlation(relevance, lost, "pearson", partition.present), relevance, lost, partition.present)

    def chance(self, case: Case) -> Tensor:
        """Zero: a random map is as likely as the same one with its sign changed."""
        return torch.zeros(case.task.size, dtype=torch.float64)


@dataclass(frozen=True)
class MonotonicityCorrelation(Metric):
    """Spearman's correlation over regions i of |R_i| and E (f(x) − f(x with i drawn anew))²: as much as depends on i.

    The original divides the expectation by f(x)², which changes no rank. The answers depend on the samples alone: all
    explanations compared share them. Details: the `relevance` |R_i| and the `change` E, (n, regions), NaN behind a
    sample's last.
    Cost: `draws` forwards for each region, and one for the sample itself; none for a second explanation of it. A fixed
    infill is drawn once.
    Limits: asks for the size of the relevance alone, for or against; what can be replaced by something else in the
    input changes nothing by itself. NaN where all regions have the same relevance or none changes the answer.
    Source: Nguyen & Martínez 2020, arXiv 2007.07584.

    Args:
        regions: what is drawn anew together; None for what is usual for inputs of their kind.
        infill: what it is drawn from.
        draws: how often each region is drawn.
        follows: f: the "probability" of the target's class, or its "score".
    """

    regions: Regions | None = field(default_factory=Grid)
    infill: Infill = field(default_factory=UniformNoise)
    draws: int = 10
    follows: Literal["probability", "score"] = "probability"

    family = "faithfulness"
    higher_is_better = True

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"each region is drawn at least once, not {self.draws} times")

    def measure(self, case: Case) -> Scores:
        samples = case.samples
        partition = samples.once(Divided(self.regions))
        draws = 1 if self.infill.fixed else self.draws
        lost = drop(samples, OneByOne(self.regions, self.infill, draws), self.follows)
        change = lost.view(len(lost), partition.size, draws).square().mean(2)
        relevance = relevance_of(partition, case.relevance).nan_to_num(0.0, 0.0, 0.0).abs()
        scores = _scores(
            correlation(relevance, change, "spearman", partition.present), relevance, change, partition.present
        )
        scores.details["change"] = scores.details.pop("drop")
        return scores

    def chance(self, case: Case) -> Tensor | None:
        """Zero where all regions have as many places: then every order of a random map is as likely as another."""
        partition = case.samples.once(Divided(self.regions))
        equal = constant(places(case.samples, self.regions), partition.present).all()
        return torch.zeros(case.task.size, dtype=torch.float64) if bool(equal) else None


def _scores(correlation: Tensor, relevance: Tensor, lost: Tensor, present: Tensor) -> Scores:
    """The correlation with what it is of, and the samples that have none."""
    skipped = {
        "all regions have the same relevance": constant(relevance, present),
        "hiding changes nothing": constant(lost, present),
    }
    return Scores(correlation, {"relevance": relevance.where(present, torch.nan), "drop": lost}, skipped)
