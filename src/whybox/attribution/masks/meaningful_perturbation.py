"""MeaningfulPerturbation: the least of the input that must be deleted for the prediction to be lost."""

import math
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy
import scipy.ndimage
import torch
from torch import Tensor

from whybox.attribution.masks.answer import answer
from whybox.attribution.masks.descent import Adam
from whybox.attribution.masks.masked import Masked, Places
from whybox.attribution.masks.optimiser import Objective, minimise
from whybox.attribution.masks.prediction import MeanLogProbability, wanted
from whybox.attribution.perturbation.engine import ask
from whybox.core.annotations import check_fields
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.reference import Blur, Infill, Zero
from whybox.core.target import Target
from whybox.core.task import Task

# The edge of the pictures for which the settings are given in pixels, and that of their masks in cells.
EDGE, CELLS = 224, 28
# The standard deviation of the blur of what is deleted, and of the edges of discs.
BLUR = 10.0
# The radii of the discs among which the start is chosen, and which share of what the largest one takes away from the
# score the chosen one may leave.
RADII, LEFT = tuple(range(0, 175, 5)), 0.01

LOWERED = (
    "Whether the score with the marked places deleted is no lower than that of the input. Then they do not show what "
    "it needs; another infill may delete more."
)
HALVED = (
    "The share of the class's probability that is left with the marked places deleted. Where it is large, they do not "
    "show what the prediction needs; another infill may delete more."
)


@dataclass(frozen=True)
class MeaningfulPerturbation(Method):
    """Relevance R = 1 − M in [0, 1]: the least that must be deleted for the class to be lost on x̄ = x M + infill R.

    M is a coarse mask m in [0, 1], enlarged and blurred. m minimises λ₁·Σ|1 − m| + λ₂·Σ‖∇m‖^β + p(class | x̄), a target
    that is no class in place of the probability p; the picture is moved under the mask from step to step. Adam descends
    from the smallest disc in the middle whose deletion takes 99 % of what the largest one takes. Lengths are in pixels
    of a picture of 224 × 224 with 28 × 28 cells, and in proportion in pictures of other sizes, series and videos; sums
    over fewer cells count as over 28². Tokens and columns have one m each, from ½ on, with neither ∇ nor blur nor
    jitter. Masks lie over places: (n, 1, h, w) for pictures. Details: `left_probability` (the class's, with the marked
    places deleted), `original_probability`, `area` (share of R > ½), `losses` of every step and `evaluations` of the
    model, per sample; with `film`, masks on the way.
    Cost: 35 forward passes for the start, a forward and a backward pass for each step, and a forward for the mask.
    Limits: one of many masks; a blurred picture is none that the model was trained on, and where it still shows the
    class, nothing is found; soft edges, as coarse as the cells; 0 does not mean irrelevant.
    Source: Fong & Vedaldi 2017, arXiv 1704.03296; start, shifts and the units of the lengths from the authors' code.

    Args:
        area: the weight λ₁ of what is deleted.
        variation: the weight λ₂ of the edges of the mask.
        power: their exponent β.
        cell: edge of a cell.
        softness: standard deviation of the blur of the mask.
        infill: what stands where something is deleted; None for a blur of standard deviation 10, which is no less in
            smaller pictures, and for `Zero` in tokens and columns.
        jitter: to so many neighbouring places along each axis the picture may be moved.
        steps: how many.
        rate: of Adam.
        film: how many masks on the way are kept in the details.
    """

    area: float = 1e-4
    variation: float = 1e-2
    power: float = 3.0
    cell: float = 8.0
    softness: float = 5.0
    infill: Infill | None = None
    jitter: int = 4
    steps: int = 300
    rate: float = 0.1
    film: int = 0

    taxonomy = Taxonomy(shows="mask", needs="gradients", relation="dependence")

    def __post_init__(self) -> None:
        check_fields(self)
        weights = (self.area, self.variation, self.softness)
        if not all(0 <= weight < math.inf for weight in weights):
            raise InputError(f"area, variation and softness are finite and not negative, not {weights}")
        if not all(0 < value < math.inf for value in (self.cell, self.rate)) or not 1 <= self.power < math.inf:
            raise InputError(
                f"cell and rate are positive, and power at least 1, not {self.cell}, {self.rate}, {self.power}"
            )
        if self.steps < 1 or min(self.film, self.jitter) < 0:
            raise InputError(
                f"steps is at least 1, film and jitter not negative, not {self.steps}, {self.film}, {self.jitter}"
            )

    def attribute(self, task: Task) -> Attribution:
        places = Places.of(task)
        layout = _Layout(places, self.cell, self.softness)
        infill = self.infill or (Blur(BLUR * max(1.0, layout.unit)) if places.positions else Zero())
        masked = Masked(task, places, infill, round(self.jitter * layout.unit))
        target = wanted(task)
        original, start = self._start(masked, layout, target)
        task.cost.planned = task.cost.forwards + task.size * (self.steps + 1)
        weigh = CELLS**2 / math.prod(layout.cells)

        def data(masks: Tensor, sample: Tensor, step: int) -> Tensor:
            return _lowered(masked.score(target, masks, sample, step), target)

        def penalty(weights: Tensor) -> Tensor:
            everything = tuple(range(1, weights.ndim))
            cost = self.area * (1 - weights).abs().sum(everything)
            if places.positions:
                cost = cost + self.variation * _variation(weights, self.power).sum(everything)
            return weigh * cost

        found = minimise(
            task,
            Objective(layout.enlarged, data, penalty, box=(0.0, 1.0)),
            start,
            self.steps,
            Adam(rate=self.rate, last=self.rate, momentum=0.9, decay=0.999, epsilon=1e-8),
            settles=False,
            choose="last",
            film=self.film,
        )
        if found.film is not None:
            found = replace(found, film=(1 - found.film).clamp(0, 1))
        kept = layout.enlarged(found.weights).clamp(0, 1).view(-1, *places.shape).to(places.x.dtype)
        score, lost = masked.outcome(target, kept)
        left = _lowered(score, target)
        if lost is None:
            check = Check("score not lowered", (~(left < original)).double(), 0.0, LOWERED)
        else:
            check = Check("class not lowered", left / original, 0.5, HALVED)
        result = answer(found, 1 - kept, found.steps + layout.starts, score, lost, check, called="left")
        result.details["original_score" if lost is None else "original_probability"] = original
        return result

    @staticmethod
    def _start(masked: Masked, layout: "_Layout", target: Target) -> tuple[Tensor, Tensor]:
        """What is lowered, of the input itself (n,), and the cells (n, 1, *cells) that the search begins with."""
        task, places = masked.task, masked.places
        if not places.positions:
            half = torch.full((task.size, 1, *layout.cells), 0.5, dtype=places.dtype, device=places.x.device)
            whole = torch.ones((task.size, *places.shape), dtype=places.dtype, device=places.x.device)
            return _lowered(masked.outcome(target, whole)[0], target), half
        kept = 1 - layout.discs()
        scores = torch.empty(task.size, len(kept), dtype=torch.float64)
        for chunk in ask(
            replace(task, target=target),
            len(kept),
            lambda sample, number: (masked(kept[number.to(kept.device)], sample), None),
        ):
            scores[chunk.sample, chunk.number] = _lowered(chunk.score, target)
        left = (scores - scores[:, -1:]) / (scores[:, :1] - scores[:, -1:])
        enough = left < LEFT
        enough[:, -1] = True  # where no smaller one does
        cells = torch.nn.functional.interpolate(kept, layout.cells, mode="nearest-exact")
        return scores[:, 0], cells[enough.int().argmax(1).to(cells.device)]


@dataclass(frozen=True)
class _Layout:
    """How the cells of a mask lie over the places: one a token or column, so many pixels wide over positions."""

    places: Places
    cell: float
    softness: float

    @property
    def starts(self) -> int:
        """How often the model is asked about a sample before the search."""
        return len(RADII) if self.places.positions else 1

    @property
    def unit(self) -> float:
        """What a pixel of a picture of 224 × 224 is here, in places."""
        return math.sqrt(sum(edge**2 for edge in self.places.grid) / max(1, len(self.places.grid))) / EDGE

    @property
    def cells(self) -> tuple[int, ...]:
        """How many there are along each axis."""
        if not self.places.positions:
            return self.places.grid
        return tuple(min(edge, max(1, round(edge / (self.cell * self.unit)))) for edge in self.places.grid)

    @cached_property
    def _shares(self) -> tuple[Tensor, ...]:
        """For each axis the share (places, cells) that each cell has in each place: that it lies in, then blurred."""
        shares = []
        for edge, count in zip(self.places.grid, self.cells, strict=True):
            own = numpy.eye(count)[((numpy.arange(edge) + 0.5) * count / edge).astype(int)]
            if self.softness:
                own = scipy.ndimage.gaussian_filter1d(own, self.softness * self.unit, axis=0, mode="nearest")
            shares.append(torch.as_tensor(own, dtype=self.places.dtype, device=self.places.x.device))
        return tuple(shares)

    def enlarged(self, cells: Tensor) -> Tensor:
        """Masks (k, 1, *grid) of the values of cells (k, 1, *cells)."""
        if not self.places.positions:
            return cells
        # Each time the first axis of cells goes and its places come last, so that in the end all are in order.
        return reduce(lambda mask, share: torch.tensordot(mask, share, ([2], [1])), self._shares, cells)

    def discs(self) -> Tensor:
        """1 in the middle, (radii, 1, *grid), with blurred edges; the first is empty."""
        axes = [numpy.arange(edge) - (edge - 1) / 2 for edge in self.places.grid]
        distance = numpy.sqrt(sum(axis**2 for axis in numpy.meshgrid(*axes, indexing="ij")))
        discs = [
            scipy.ndimage.gaussian_filter((distance < radius * self.unit).astype(float), BLUR * self.unit)
            for radius in RADII
        ]
        return torch.as_tensor(numpy.stack(discs)[:, None], dtype=self.places.dtype, device=self.places.x.device)


def _lowered(score: Tensor, target: Target) -> Tensor:
    """What is to become small: a class's probability, or the score itself."""
    return score.exp() if isinstance(target, MeanLogProbability) else score


def _variation(cells: Tensor, power: float) -> Tensor:
    """‖∇m‖^β of every cell, by the differences to the next along each axis; none is beyond the last."""
    squares = torch.zeros_like(cells)
    for axis in range(2, cells.ndim):
        last = cells.narrow(axis, cells.shape[axis] - 1, 1)
        squares = squares + cells.diff(dim=axis, append=last).square()
    return squares.clamp_min(1e-10) ** (power / 2)  # the root has no slope at 0
