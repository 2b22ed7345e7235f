"""ROAD: remove and debias."""

import math
from dataclasses import dataclass
from typing import Literal

from whybox.core.errors import InputError
from whybox.core.reference import Imputed
from whybox.core.regions import Pixels
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Removal, fall


@dataclass(frozen=True)
class ROAD(Metric):
    """Mean over shares, 0 and on, of f(x) − f(x with its most relevant such share of pixels imputed).

    Noisy linear imputation: what is removed becomes the weighted mean of its neighbours, so that the shape of the hole
    gives less away than a constant would. Averaged over many samples, with `follows="right"` it is the fall of the
    accuracy that the paper plots. Details: how many pixels are `removed`, the `score`, `probability`, `right` and
    `relative` to the start at each share, (n, levels + 1).
    Cost: `levels` forwards and sparse linear solves per sample, twice that with the order "both", and one forward for
    the sample itself; the solves dominate on large pictures.
    Limits: large removed areas are smooth, which no natural picture is.
    Source: Rong, Leemann, Borisov, Kasneci & Kasneci 2022, arXiv 2202.00449.

    Args:
        levels: how many shares, evenly spread up to `upto`.
        upto: the largest share removed, at least one pixel.
        noise: standard deviation of the noise added to imputed pixels, in the model's units.
        order: "most" relevant first, "least", "random", or "both": the area between the curves of least and most.
        follows: f: whether the target's class is the predicted one, "right", its "probability", or its "score".
    """

    levels: int = 9
    upto: float = 0.9
    noise: float = 0.01
    order: Literal["most", "least", "random", "both"] = "most"
    follows: Literal["probability", "score", "right"] = "probability"

    family = "faithfulness"
    higher_is_better = True

    def __post_init__(self) -> None:
        if self.levels < 1 or not 0 < self.upto <= 1 or not 0 <= self.noise < math.inf:
            raise InputError(
                "levels is at least 1, upto a share in (0, 1] and noise finite and not negative, not "
                f"{self.levels}, {self.upto}, {self.noise}"
            )

    def measure(self, case: Case) -> Scores:
        removal = Removal(Pixels(), Imputed(self.noise), levels=self.levels, share=self.upto)
        return fall(case, removal, self.order, self.follows)
