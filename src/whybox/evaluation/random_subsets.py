"""Metrics that hide random sets of regions: what was hidden should have had as much relevance as the answer lost."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Grid, Pixels, Regions
from whybox.evaluation.case import Case
from whybox.evaluation.hiding import RandomSubsets, drop
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Divided, relevance_of
from whybox.evaluation.similarity import Similarity, constant, correlation


@dataclass(frozen=True)
class _OfSubsets(Metric):
    """What they have in common: the relevance of random sets of regions, and the drop when these are hidden."""

    regions: Regions | None = field(default_factory=Pixels)
    infill: Infill = field(default_factory=Zero)
    draws: int = 100
    follows: Literal["score", "probability"] = "score"

    family = "faithfulness"
    higher_is_better = True

    def chance(self, case: Case) -> Tensor:
        """Zero: a random map is as likely as the same one with its sign changed."""
        return torch.zeros(case.task.size, dtype=torch.float64)

    def _check(self, *shares: float) -> None:
        if self.draws < 2 or not shares or not all(0 < share <= 1 for share in shares):
            raise InputError(
                f"a correlation needs at least 2 draws, and the sets a share in (0, 1], not {self.draws}, {shares}"
            )

    def _pairs(self, case: Case, share: float) -> tuple[Tensor, Tensor]:
        """The relevance hidden and the drop, each (n, draws)."""
        samples = case.samples
        subsets = RandomSubsets(self.regions, self.infill, share, self.draws)
        lost = drop(samples, subsets, self.follows)
        relevance = relevance_of(samples.once(Divided(self.regions)), case.relevance).nan_to_num(0.0, 0.0, 0.0)
        return samples.once(subsets).sums(relevance), lost

    def _scores(self, case: Case, share: float, kind: Similarity) -> Scores:
        relevance, lost = self._pairs(case, share)
        skipped = {
            "all sets have the same relevance": constant(relevance),
            "hiding changes nothing": constant(lost),
        }
        return Scores(correlation(relevance, lost, kind), {"relevance": relevance, "drop": lost}, skipped)


@dataclass(frozen=True)
class FaithfulnessCorrelation(_OfSubsets):
    """Pearson's correlation over random sets S of Σ_{i∈S} R_i and f(x) − f(x without S), |S| fixed.

    1 for a map that is additive for f; expected 0 of a random one. The sets and the answers depend on the samples
    alone, so all explanations compared, `SensitivityN` and `MuFidelity` share those of the same regions, infill,
    share and draws. Details: the `relevance` and the `drop` of every set, (n, draws).
    Cost: `draws` forwards per sample, and one for the sample itself; none for a second explanation of it.
    Limits: small sets of single pixels change little, and the correlation is then mostly noise; inputs with holes are
    none that the model was trained on. NaN where all sets have the same relevance or nothing changes the answer.
    Source: Bhatt, Weller & Moura 2020, arXiv 2005.00631.

    Args:
        regions: what is hidden together; None for what is usual for inputs of their kind.
        infill: what replaces it; a random one is drawn for each set.
        draws: the number of sets.
        follows: f: the target's "score", or the "probability" of its class.
        share: |S| as a share of all regions.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        self._check(self.share)

    def measure(self, case: Case) -> Scores:
        return self._scores(case, self.share, "pearson")


@dataclass(frozen=True)
class MuFidelity(_OfSubsets):
    """Spearman's correlation over random sets S of patches of Σ_{i∈S} R_i and f(x) − f(x without S), |S| fixed.

    `FaithfulnessCorrelation` made for pictures: patches of a grid, whose absence changes more than that of as many
    scattered pixels, and ranks. Details: the `relevance` and the `drop` of every set, (n, draws).
    Cost: `draws` forwards per sample, and one for the sample itself; none for a second explanation of it.
    Limits: sees nothing finer than its patches; pictures with holes are none that the model was trained on. NaN where
    all sets have the same relevance or nothing changes the answer.
    Source: Bhatt, Weller & Moura 2020, arXiv 2005.00631; grid and ranks: Fel et al. 2022, Xplique, arXiv 2206.04394.

    Args:
        regions: what is hidden together; None for what is usual for inputs of their kind.
        infill: what replaces it; a random one is drawn for each set.
        draws: the number of sets.
        follows: f: the target's "score", or the "probability" of its class.
        share: |S| as a share of all regions.
    """

    regions: Regions | None = field(default_factory=Grid)
    draws: int = 200
    share: float = 0.2

    def __post_init__(self) -> None:
        self._check(self.share)

    def measure(self, case: Case) -> Scores:
        return self._scores(case, self.share, "spearman")


@dataclass(frozen=True)
class SensitivityN(_OfSubsets):
    """Mean over n of Pearson's correlation over random sets S of n regions of Σ_{i∈S} R_i and f(x) − f(x without S).

    Sensitivity-n asks of a map that the two be equal for every set of n regions; the correlation says how near it
    comes, at every n. Details: the `sizes` n and the `correlation` at each, (n, sizes).
    Cost: `draws` forwards per sample for every size, and one for the sample itself; none for a second explanation of
    it, and none for `FaithfulnessCorrelation` of one of the shares.
    Limits: maps from local gradients can win at small n and lose at large ones: look at the curve. Sizes at which all
    sets have the same relevance or nothing changes the answer are left out of the mean, and the sample named.
    Source: Ancona, Ceolini, Öztireli & Gross 2018, arXiv 1711.06104.

    Args:
        regions: what is hidden together; None for what is usual for inputs of their kind.
        infill: what replaces it; a random one is drawn for each set.
        draws: the number of sets of each size.
        follows: f: the target's "score", or the "probability" of its class.
        shares: the sizes n as shares of all regions, at least one region; of such as come to the same one is taken.
    """

    shares: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)

    def __post_init__(self) -> None:
        self._check(*self.shares)

    def measure(self, case: Case) -> Scores:
        sizes = {
            share: RandomSubsets(self.regions, self.infill, share, self.draws).sizes(case.samples)
            for share in self.shares
        }
        apart = {tuple(size.tolist()): share for share, size in reversed(sizes.items())}
        shares = sorted(apart.values())
        found = torch.stack([correlation(*self._pairs(case, share), "pearson") for share in shares], 1)
        undefined = torch.isnan(found).any(1)
        return Scores(
            found.nanmean(1),
            {"sizes": torch.stack([sizes[share] for share in shares], 1), "correlation": found},
            {"at some sizes all sets have the same relevance, or hiding changes nothing": undefined},
        )
