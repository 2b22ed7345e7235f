"""Non-sensitivity: no relevance exactly where nothing depends on the input."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.core.errors import InputError
from whybox.core.reference import Infill, UniformNoise
from whybox.core.regions import Regions
from whybox.core.tree import each
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Divided, relevance_of


@dataclass(frozen=True)
class Effects:
    """f(x) − f(x without the region) of every region, float64 (n, regions); 0 behind a sample's last one."""

    regions: Regions | None
    infill: Infill

    def measure(self, samples: Samples) -> Tensor:
        partition = samples.once(Divided(self.regions))
        engine = Engine(samples.task, self.infill, partition, filled=samples.filled(self.infill))
        columns = torch.arange(partition.size)
        effects = torch.zeros(samples.task.size, partition.size, dtype=torch.float64)
        for chunk in engine.scores(partition.counts, lambda _, number: columns != number[:, None]):
            effects[chunk.sample, chunk.number] = samples.originals.score[chunk.sample] - chunk.score
        return effects


@dataclass(frozen=True)
class NonSensitivity(Metric):
    """The share of regions that have relevance but no effect on the score, or an effect but no relevance.

    A region has an effect where f(x) changes as the infill takes its place, and relevance where Σ |R| over it is not
    zero; both mean by more than the tolerance. Details: which regions are `relevant` and which have an `effect`,
    (n, regions), and the number of `violations`, (n,), the score of the paper.
    Cost: one forward per region and sample, and one for the sample itself; shared by all explanations of a batch.
    Limits: says nothing of how much relevance there is; one draw of the infill per sample; a region that equals its
    infill has no effect, so that fixed infills mistake the ground of a picture for irrelevant.
    Source: Nguyen & Rodríguez Martínez 2020, arXiv 2007.07584; Ancona et al. 2018, arXiv 1711.06104.

    Args:
        regions: what is replaced at once; None for what is usual for inputs of their kind.
        infill: what replaces it.
        tolerance: what counts as zero, as a share of the sample's largest effect, and of its largest relevance.
    """

    regions: Regions | None = None
    infill: Infill = field(default_factory=UniformNoise)
    tolerance: float = 1e-5

    family = "axioms"
    higher_is_better = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise InputError(f"the tolerance is a share of the largest, from 0 to below 1, not {self.tolerance}")

    def measure(self, case: Case) -> Scores:
        partition = case.samples.once(Divided(self.regions))
        relevant = self._beyond(relevance_of(partition, each(Tensor.abs, case.relevance)))
        effect = self._beyond(self._effects(case))
        violations = ((relevant != effect) & partition.present).sum(1)
        details = {"relevant": relevant, "effect": effect, "violations": violations}
        return Scores(violations / partition.counts.double(), details)

    def chance(self, case: Case) -> Tensor:
        """A random map has relevance everywhere (but where it is within the tolerance), so it errs without effect."""
        without = ~self._beyond(self._effects(case)) & case.samples.once(Divided(self.regions)).present
        return without.sum(1) / case.samples.once(Divided(self.regions)).counts.double()

    def _effects(self, case: Case) -> Tensor:
        return case.samples.once(Effects(self.regions, self.infill)).abs()

    def _beyond(self, values: Tensor) -> Tensor:
        """Which values are more than zero, (n, regions)."""
        return values > self.tolerance * values.amax(1, keepdim=True)
