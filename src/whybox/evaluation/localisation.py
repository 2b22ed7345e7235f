"""Localisation: whether relevance lies where the evidence is known to lie. `truth` says in which forms that is told."""

from dataclasses import dataclass

import numpy
import scipy.ndimage
import torch
from jaxtyping import Bool, Float
from scipy.stats import binom, hypergeom, rankdata
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.tree import as_tuple
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.places import Part, all_places, among_highest, part_of, share_inside
from whybox.evaluation.truth import box_around, inside, is_boxes


@dataclass(frozen=True)
class _Localisation(Metric):
    """What they have in common: one number a place of the map, of which a part counts, against masks."""

    part: Part = "positive"

    family = "localisation"
    higher_is_better = True
    needs_truth = True

    def measure(self, case: Case) -> Scores:
        marked = self._marked(case)
        values = part_of(all_places(case.relevance, case.task.inputs).view(marked.shape), self.part)
        silent = (values == 0).flatten(1).all(1)
        unfit = self._unfit(marked)
        scores = self._compare(values, marked).masked_fill(_any(unfit) | silent, torch.nan)
        details = {name: value.masked_fill(_any(unfit), torch.nan) for name, value in self._details(marked).items()}
        return Scores(scores, details, {**unfit, "no relevance of the part that counts": silent})

    def chance(self, case: Case) -> Tensor | None:
        marked = self._marked(case)
        expected = self._by_chance(marked)
        return None if expected is None else expected.double().masked_fill(_any(self._unfit(marked)), torch.nan)

    def _marked(self, case: Case) -> Tensor:
        """The places (n, *places) that are taken for the truth."""
        return inside(case.truth, case.task.inputs)

    def _unfit(self, marked: Tensor) -> dict[str, Tensor]:
        """In words, why there is nothing to compare with (n,)."""
        return {"truth that marks no place": ~marked.flatten(1).any(1)}

    def _compare(self, values: Tensor, marked: Tensor) -> Tensor:
        """The score of each sample (n,), from what counts at each place and whether it is marked (n, *places)."""
        raise NotImplementedError

    def _details(self, marked: Tensor) -> dict[str, Tensor]:
        """What else is told of each sample (n,)."""
        return {}

    def _by_chance(self, marked: Tensor) -> Tensor | None:
        """The score expected of a random map: unless said otherwise, the share of the places that are marked."""
        return marked.flatten(1).double().mean(1)


@dataclass(frozen=True)
class PointingGame(_Localisation):
    """1 where the place of the highest relevance lies within `tolerance` of the truth, else 0.

    Distances are Euclidean, from the middle of one pixel to that of another. Of several places that are the highest,
    the share that hits counts. Details: `centre`, the same for the middle of the input: photographers centre things.
    Cost: none.
    Limits: sees one place of the map only; with 15 pixels made for photographs: in small pictures nearly everything
    is a hit, as `chance` says.
    Source: Zhang, Bargal, Lin, Brandt, Shen & Sclaroff 2018, arXiv 1608.00507.

    Args:
        part: what counts of signed relevance, after the sum over channels: "positive", "negative", "absolute" or
            "signed", as it is.
        tolerance: in pixels, or steps of a series; tables and tokens have none, for their columns are no neighbours.
    """

    tolerance: float = 15.0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < torch.inf:
            raise InputError(f"the tolerance is a finite distance of at least 0, not {self.tolerance}")

    def _marked(self, case: Case) -> Tensor:
        exact = super()._marked(case)
        return _widened(exact, self.tolerance) if as_tuple(case.task.inputs)[0].ndim > 2 else exact

    def _compare(self, values: Tensor, marked: Tensor) -> Tensor:
        flat = values.flatten(1)
        return share_inside((flat == flat.amax(1, keepdim=True)).double(), marked.flatten(1))

    def _details(self, marked: Tensor) -> dict[str, Tensor]:
        return {"centre": self._compare(_middle(marked), marked)}


@dataclass(frozen=True)
class _Mass(_Localisation):
    """How much of the relevance lies in what is marked."""

    def _compare(self, values: Tensor, marked: Tensor) -> Tensor:
        return share_inside(values, marked)

    def _by_chance(self, marked: Tensor) -> Tensor | None:
        return None if self.part == "signed" else super()._by_chance(marked)


@dataclass(frozen=True)
class RelevanceMass(_Mass):
    """Σ_{p in the truth} R_p / Σ_p R_p: how much of the relevance lies in the truth.

    Cost: none.
    Limits: one extreme value decides; evidence around the object, such as its shadow, counts as a miss.
    Source: Arras, Osman & Samek 2022, arXiv 2003.07258.

    Args:
        part: what counts of signed relevance, after the sum over channels: "positive", "negative", "absolute" or
            "signed", as it is; then the share can be anything, and chance is not known.
    """


@dataclass(frozen=True)
class RelevanceRank(_Localisation):
    """The share of the K places of the highest relevance that lies in the truth, which has K places.

    Of places that tie for the last rank each counts in part: what is expected if the tie is broken at random.
    Cost: none.
    Limits: blind to how much higher the highest are; evidence around the object counts as a miss.
    Source: Arras, Osman & Samek 2022, arXiv 2003.07258.

    Args:
        part: what counts of signed relevance, after the sum over channels: "positive", "negative", "absolute" or
            "signed", as it is.
    """

    def _compare(self, values: Tensor, marked: Tensor) -> Tensor:
        values, marked = values.flatten(1), marked.flatten(1)
        return share_inside(among_highest(values, marked.sum(1)), marked)


@dataclass(frozen=True)
class EnergyInBox(_Mass):
    """Σ_{p in the box} R_p / Σ_p R_p: how much of the relevance lies in the box around the truth.

    Boxes are taken as they are given; of a mask, the smallest box around all that it marks.
    Cost: none.
    Limits: a box that covers most of the picture is hard to miss: look at `chance`.
    Source: the energy-based pointing game of Wang et al. 2020, arXiv 1910.01279.

    Args:
        part: what counts of signed relevance, after the sum over channels: "positive", "negative", "absolute" or
            "signed", as it is; then the share can be anything, and chance is not known.
    """

    def _marked(self, case: Case) -> Tensor:
        exact = super()._marked(case)
        return exact if case.truth is not None and is_boxes(case.truth) else box_around(exact)


@dataclass(frozen=True)
class IoU(_Localisation):
    """|A ∩ T| / |A ∪ T|: how well the places A of high relevance cover the truth T, and nothing else.

    A are the places above the map's `quantile`, and those of its highest value, should that be no more than the
    quantile.
    Cost: none.
    Limits: the quantile says how large A is, whatever the size of the object: a right map of a small object is marked
    down where it does not vanish around it.
    Source: as a measure of localisation by maps, Bau, Zhou, Khosla, Oliva & Torralba 2017, arXiv 1704.05796.

    Args:
        part: what counts of signed relevance, after the sum over channels: "positive", "negative", "absolute" or
            "signed", as it is.
        quantile: between 0 and 1.
    """

    quantile: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.quantile < 1:
            raise InputError(f"the quantile lies between 0 and 1, not {self.quantile}")

    def _compare(self, values: Tensor, marked: Tensor) -> Tensor:
        values, marked = values.flatten(1), marked.flatten(1)
        threshold = values.kthvalue(self._below(values.shape[1]), 1, keepdim=True).values
        high = (values > threshold) | (values == values.amax(1, keepdim=True))
        return (high & marked).sum(1) / (high | marked).sum(1).double()

    def _below(self, places: int) -> int:
        """How many places are not above the quantile."""
        return int(self.quantile * (places - 1)) + 1

    def _by_chance(self, marked: Tensor) -> Tensor | None:
        """The overlap is distributed hypergeometrically; not so where too few places have relevance that counts."""
        places = marked[0].numel()
        high = max(places - self._below(places), 1)
        if self.part in ("positive", "negative") and binom.cdf(high - 1, places, 0.5) > 1e-4:
            return None
        size = marked.flatten(1).sum(1, keepdim=True).numpy()
        both = numpy.arange(high + 1)
        likely = hypergeom.pmf(both, places, size, high)
        return torch.as_tensor((likely * both / numpy.maximum(size + high - both, 1)).sum(1))


@dataclass(frozen=True)
class AUC(_Localisation):
    """P(R_p > R_q) + ½ P(R_p = R_q) for p in the truth and q outside: the area under the ROC curve of finding it.

    Cost: none; the places are sorted.
    Limits: large objects and small ones count alike, and so do the lowest places and the highest.
    Source: as a measure of where people look, Bylinskii, Judd, Oliva, Torralba & Durand 2016, arXiv 1604.03605.

    Args:
        part: what counts of signed relevance, after the sum over channels: "positive", "negative", "absolute" or
            "signed", as it is.
    """

    def _unfit(self, marked: Tensor) -> dict[str, Tensor]:
        return {**super()._unfit(marked), "truth that marks every place": marked.flatten(1).all(1)}

    def _compare(self, values: Tensor, marked: Tensor) -> Tensor:
        ranks = torch.as_tensor(rankdata(values.flatten(1).numpy(), axis=1))
        marked = marked.flatten(1)
        size, rest = marked.sum(1).double(), (~marked).sum(1).double()
        return ((ranks * marked).sum(1) - size * (size + 1) / 2) / (size * rest)

    def _by_chance(self, marked: Tensor) -> Tensor | None:
        return torch.full((len(marked),), 0.5)


def _any(reasons: dict[str, Tensor]) -> Tensor:
    """Whether at least one of the reasons holds (n,)."""
    return torch.stack(list(reasons.values())).any(0)


def _widened(masks: Bool[Tensor, "n ..."], tolerance: float) -> Bool[Tensor, "n ..."]:
    """All places within the tolerance of a marked one."""
    apart = tolerance + sum(masks.shape) + 1  # between two samples, so that none is near what another one marks
    distance = scipy.ndimage.distance_transform_edt(~masks.numpy(), sampling=(apart, *(1,) * (masks.ndim - 1)))
    return torch.as_tensor(distance <= tolerance) & masks.flatten(1).any(1).view(-1, *(1,) * (masks.ndim - 1))


def _middle(masks: Tensor) -> Float[Tensor, "n ..."]:
    """1 at the place in the middle, or at those around it where a size is even, else 0."""
    middle = torch.ones(masks.shape, dtype=torch.float64)
    for axis, size in enumerate(masks.shape[1:], 1):
        shape = [1] * masks.ndim
        shape[axis] = -1
        middle *= ((torch.arange(size) - (size - 1) / 2).abs() < 1).view(shape)
    return middle
