"""Pixel flipping."""

from dataclasses import dataclass
from typing import Literal

from whybox.core.errors import InputError
from whybox.core.reference import Flipped
from whybox.core.regions import Pixels
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Removal, fall


@dataclass(frozen=True)
class PixelFlipping(Metric):
    """Mean over the way of f(x) − f(x with its most relevant pixels flipped), from none to the share `upto` of them.

    A pixel is flipped within the domain of its channel: low + high − value, so that black becomes white. Details: how
    many pixels are `removed`, the `score`, `probability`, `right` and `relative` to the start, (n, levels + 1).
    Cost: `levels` forwards per sample, twice that with the order "both", and one for the sample itself.
    Limits: made for drawings and digits; a pixel half-way between black and white cannot be flipped.
    Source: Bach, Binder, Montavon, Klauschen, Müller & Samek 2015, PLOS ONE 10(7) e0130140.

    Args:
        levels: at how many points of the way the model is asked.
        upto: which share of the pixels is flipped in the end; at least one pixel is.
        order: "most" relevant first, "least", "random", or "both": the area between the curves of least and most.
        follows: f: the "score", the "probability" of the target's class, or whether it is the predicted one, "right".
    """

    levels: int = 50
    upto: float = 1.0
    order: Literal["most", "least", "random", "both"] = "most"
    follows: Literal["probability", "score", "right"] = "score"

    family = "faithfulness"
    higher_is_better = True

    def __post_init__(self) -> None:
        if self.levels < 1 or not 0 < self.upto <= 1:
            raise InputError(f"levels is at least 1 and upto a share in (0, 1], not {self.levels}, {self.upto}")

    def measure(self, case: Case) -> Scores:
        removal = Removal(Pixels(), Flipped(), levels=self.levels, share=self.upto)
        return fall(case, removal, self.order, self.follows)
