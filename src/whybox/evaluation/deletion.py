"""Deletion and insertion."""

from dataclasses import dataclass, field
from typing import Literal

from whybox.core.errors import InputError
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Pixels, Regions
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Removal, followed


@dataclass(frozen=True)
class _OfAll(Metric):
    """What deletion and insertion have in common: all regions go, in steps of equal size."""

    steps: int = 50
    regions: Regions = field(default_factory=Pixels)
    infill: Infill = field(default_factory=Zero)
    follows: Literal["probability", "score", "right"] = "probability"

    family = "faithfulness"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"the curve needs at least one step, not {self.steps}")

    def _scores(self, case: Case, order: Literal["most", "least"]) -> Scores:
        curve = followed(case, Removal(self.regions, self.infill, order, self.steps), self.follows)
        return Scores(curve.area_under(self.follows), curve.details(self.follows))


@dataclass(frozen=True)
class Deletion(_OfAll):
    """AUC of f(x with its most relevant share s removed) over s from 0 to 1: low where the map knows what matters.

    Details: the number of regions `removed`, and at each step the `score`, `probability` and `right`, (n, steps + 1).
    Cost: `steps` forwards per sample, and one for the sample itself.
    Limits: pictures with pixels removed are none that the model was trained on; compare with a second infill.
    Source: Petsiuk, Das & Saenko 2018, arXiv 1806.07421.

    Args:
        steps: how often the model is asked on the way.
        regions: what is removed at once.
        infill: what replaces it, drawn once per sample.
        follows: f: the "probability" of the target's class, its "score", or whether it is the predicted one, "right".
    """

    higher_is_better = False

    def measure(self, case: Case) -> Scores:
        return self._scores(case, "most")


@dataclass(frozen=True)
class Insertion(_OfAll):
    """AUC of f(the infill with the most relevant share s of x put in) over s: high where the map knows what matters.

    The curve is that of removing the least relevant, read from its end, and shared with metrics that remove those.
    Details: the number of regions `removed`, and at each step the `score`, `probability` and `right`, (n, steps + 1).
    Cost: `steps` forwards per sample, and one for the sample itself.
    Limits: as for `Deletion`; the paper inserts into a blurred picture, `infill=Blur(10)`.
    Source: Petsiuk, Das & Saenko 2018, arXiv 1806.07421.

    Args:
        steps: how often the model is asked on the way.
        regions: what is inserted at once.
        infill: what the rest consists of, drawn once per sample.
        follows: f: the "probability" of the target's class, its "score", or whether it is the predicted one, "right".
    """

    higher_is_better = True

    def measure(self, case: Case) -> Scores:
        return self._scores(case, "least")
