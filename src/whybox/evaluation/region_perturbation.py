"""Region perturbation."""

from dataclasses import dataclass, field
from typing import Literal

from whybox.core.errors import InputError
from whybox.core.reference import Infill, UniformNoise
from whybox.core.regions import Patches
from whybox.core.tree import as_tuple
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Removal, fall


@dataclass(frozen=True)
class RegionPerturbation(Metric):
    """AOPC = 1/(L+1) Σ_{k=0…L} f(x⁽⁰⁾) − f(x⁽ᵏ⁾): how fast the answer falls as the most relevant regions become noise.

    x⁽ᵏ⁾ is x⁽ᵏ⁻¹⁾ with one more region of a grid replaced, the one of the highest summed relevance that is left;
    regions at the border are cut to the picture, and a picture of fewer than L regions is taken away whole. The sum
    runs over the levels at which the model is asked. Details: for each order how many regions are `removed`, the
    `score`, `probability`, `right` and `relative` = f(x⁽ᵏ⁾)/f(x⁽⁰⁾) at each level, (n, levels + 1).
    Cost: `levels` forwards per sample, twice that with the order "both", and one for the sample itself.
    Limits: pictures with regions replaced are none that the model was trained on, and what replaces them can reverse
    the order of methods: compare with a second infill.
    Source: Samek, Binder, Montavon, Lapuschkin & Müller 2017, arXiv 1509.06321.

    Args:
        size: edge of a region in pixels.
        steps: L, how many regions are replaced at most.
        levels: at how many points of the way the model is asked.
        infill: what replaces a region, drawn once per sample.
        order: "most" relevant first, "least", "random", or "both": the area between the curves of least and most,
            ABPC = AOPC(most) − AOPC(least).
        follows: f: the "probability" of the target's class, its "score", or whether it is the predicted one, "right".
    """

    size: int = 9
    steps: int = 100
    levels: int = 20
    infill: Infill = field(default_factory=UniformNoise)
    order: Literal["most", "least", "random", "both"] = "most"
    follows: Literal["probability", "score", "right"] = "probability"

    family = "faithfulness"
    higher_is_better = True

    def __post_init__(self) -> None:
        if self.size < 1 or self.steps < 1 or self.levels < 1:
            raise InputError(f"size, steps and levels are at least 1, not {self.size}, {self.steps}, {self.levels}")

    def measure(self, case: Case) -> Scores:
        if any(x.ndim < 3 for x in as_tuple(case.task.inputs)):
            raise InputError("RegionPerturbation needs positions (n, c, …); tables and tokens are for TokenDeletion")
        removal = Removal(Patches(self.size), self.infill, levels=self.levels, most=self.steps)
        return fall(case, removal, self.order, self.follows)
