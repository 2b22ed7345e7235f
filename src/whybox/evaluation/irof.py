"""IROF: iterative removal of features."""

from dataclasses import dataclass, field

import torch

from whybox.core.errors import InputError
from whybox.core.reference import Infill, Mean
from whybox.core.regions import Regions, Superpixels
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Removal, followed


@dataclass(frozen=True)
class IROF(Metric):
    """Area over p(x without its most relevant segments)/p(x), over the share of segments removed from 0 to 1.

    Segments come in the order of their mean relevance, and are replaced by the picture's mean colour; p is the
    probability of the target's class. Details: how many segments are `removed`, the `score`, `probability`, `right`
    and `relative` = p/p(x) at each level, (n, levels + 1).
    Cost: `levels` forwards per sample (fewer where none has as many segments), and one for the sample itself.
    Limits: a class that the model gives no probability has no share to lose; depends on the segmentation.
    Source: Rieger & Hansen 2020, arXiv 2003.08747.

    Args:
        regions: the segments.
        levels: at how many points of the way the model is asked.
        infill: what replaces a segment.
    """

    regions: Regions = field(default_factory=Superpixels)
    levels: int = 50
    infill: Infill = field(default_factory=Mean)

    family = "faithfulness"
    higher_is_better = True

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise InputError(f"the curve needs at least one level, not {self.levels}")

    def measure(self, case: Case) -> Scores:
        curve = followed(case, Removal(self.regions, self.infill, levels=self.levels, mean=True), "probability")
        details = curve.details("probability")
        missing = curve.answers.probability[:, 0] == 0
        left = torch.trapezoid(details["relative"], curve.share, dim=1)
        return Scores(torch.where(missing, torch.nan, 1 - left), details, {"a probability of zero": missing})
