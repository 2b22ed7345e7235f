"""Completeness: whether the relevance adds up to what it is to explain."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.attribution.path import relative_gap
from whybox.core.errors import InputError
from whybox.core.reference import Infill, Zero
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.distance import flat
from whybox.evaluation.metric import Metric, Scores, unless


@dataclass(frozen=True)
class BaselineScore:
    """The target's score of every sample replaced whole, float64 (n,) on the CPU."""

    baseline: Infill

    def measure(self, samples: Samples) -> Tensor:
        filled = samples.filled(self.baseline)
        if filled is None:
            raise InputError(f"{self.baseline} follows from what is hidden, and there is no baseline if all is")
        return samples.task.score(filled).cpu().double()


@dataclass(frozen=True)
class Completeness(Metric):
    """|Σ R − (f(x) − f(x′))| / |f(x) − f(x′)|: the share of the score that the relevance leaves unaccounted for.

    x′ is the baseline, f the target's score. Details: the `sum` of the relevance, the `difference` of the scores, and
    whether the gap is within the tolerance, `passed`, (n,).
    Cost: one forward per sample, and one for the sample itself; both shared by all explanations of a batch.
    Limits: asked of methods that promise it (integrated gradients, DeepLIFT, LRP without biases, Shapley values), for
    the baseline that they use; a sum can be right where each of its parts is wrong. Where f(x) = f(x′) there is
    nothing to be a share of, and no score.
    Source: Sundararajan, Taly & Yan 2017, arXiv 1703.01365; Bach et al. 2015, doi 10.1371/journal.pone.0130140.

    Args:
        baseline: the infill that replaces all of the input, drawn once per sample.
        tolerance: the largest gap that passes.
    """

    baseline: Infill = field(default_factory=Zero)
    tolerance: float = 0.01

    family = "axioms"
    higher_is_better = False

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise InputError(f"the tolerance is at least 0, not {self.tolerance}")

    def measure(self, case: Case) -> Scores:
        difference = case.samples.originals.score - case.samples.once(BaselineScore(self.baseline))
        total = flat(case.relevance).sum(1).cpu()
        gap = relative_gap(total, difference)
        nothing = torch.isinf(gap) & (difference == 0)
        details = {"sum": total, "difference": difference, "passed": gap <= self.tolerance}
        skipped = {"the baseline has the same score, and the relevance another sum than 0": nothing}
        return Scores(unless(skipped, gap), details, skipped)
