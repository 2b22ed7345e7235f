"""NeuroMask: the least of the input that keeps the prediction."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whybox.attribution.masks.answer import answer
from whybox.attribution.masks.descent import Adam, RMSProp, Smoothed
from whybox.attribution.masks.masked import Masked, Places
from whybox.attribution.masks.optimiser import Objective, minimise
from whybox.attribution.masks.prediction import Likeness, MeanLogOther, MeanLogProbability, wanted
from whybox.core.annotations import check_fields
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.reference import Black, Infill, Zero
from whybox.core.task import Task

# Pictures below this edge, and everything that is no picture, have the settings that the authors use for CIFAR-10.
SMALL = 64
# How much the search smooths its first and last step, in units of the weight of the smoothness term.
COARSE, FINE = 7.0, 0.2
# The start W of the search, in units of T: where nearly all is kept. From W = 0 the mask fades before it has found a
# place, and the losses that it reaches are higher.
START = 3.0

LOST = (
    "Whether the model predicts another class where the mask hides the rest. Such a mask does not show what the "
    "prediction needs."
)


@dataclass(frozen=True)
class NeuroMask(Method):
    """Relevance R = σ(W/T) in [0, 1]: the least mask that keeps the prediction on x̄ = x R + infill (1 − R).

    W minimises λ_p·CE(class, f(x̄)) + λ_sp·mean|W + τ| + λ_sm·mean (Laplacian of W)²; where the target is no class, its
    score is raised in place of the cross-entropy. A single output is the log-odds of its class; give a function of it
    as the target of a regression. The default descends from W = 3T, where nearly all of the input is kept, by Adam with
    a falling rate, whose steps are smooth at first and fine in the end; `NeuroMask.reference()` is the authors' own way
    to minimise the same, in eight times as many steps, and `NeuroMask.paper()` the paper's formula. Masks lie over
    positions, tokens or columns: (n, 1, h, w) for pictures. Details: `kept_probability` (of a class; in a dense output
    the geometric mean over its positions), `area` (share of R > ½), `losses` of every step and `evaluations` of the
    model, per sample; with `film`, masks on the way.
    Cost: a forward and a backward pass for each step, at most `steps`, and a forward for the mask; a sample whose loss
    has settled, its class more likely than not, costs no more, unless the search is plain.
    Limits: one of many masks that keep the prediction; the weights λ choose which, and so may mere rounding, which
    differs with the chunk size; on about a quarter of small pictures the reference's many steps still find a lower
    loss; a picture with black holes is none that the model was trained on, and small masks may find what fools the
    model; 0 does not mean irrelevant.
    Source: Alzantot, Widdicombe, Julier & Srivastava 2019, arXiv 1908.04389; settings from the authors' code.

    Args:
        prediction: the weight λ_p of the cross-entropy.
        sparseness: the weight λ_sp of the distance of W from −τ.
        smoothness: the weight λ_sm of bends in W; None for .03, for .15 with pictures under 64 pixels and what is no
            picture, and for 0 with columns, which have no order.
        limit: what W is drawn to is −τ, and a random start lies between −τ and τ.
        temperature: by which W is divided, T; None for .3, and 1 for small pictures and what is no picture.
        kernel: width of the Laplacian, which weighs a value against its neighbours; None for 5, and 3 for small ones.
        bends: whether a bend in W costs its "square" or its "absolute" size.
        infill: what stands where the mask is 0; None for `Black` in pictures and videos, and for `Zero` elsewhere: in
            tables, series and the embeddings of tokens.
        steps: how many at most.
        search: "coarse_to_fine", or "plain": RMSProp at full resolution from a random start.
        labels: what is to be kept: the class ("hard"), or the probabilities of all classes ("soft"), by their
            divergence KL(f(x) ‖ f(x̄)) in place of the cross-entropy.
        deletion: the weight of −log(1 − p), p the class's probability where the mask is turned round: what it leaves
            out is not to show the class. It doubles the cost.
        jitter: to so many neighbouring places along each axis the picture is moved under the mask from step to step.
        film: how many masks on the way are kept in the details.
    """

    prediction: float = 0.4
    sparseness: float = 0.35
    smoothness: float | None = None
    limit: float = 10.0
    temperature: float | None = None
    kernel: int | None = None
    bends: Literal["square", "absolute"] = "square"
    infill: Infill | None = None
    steps: int = 240
    search: Literal["coarse_to_fine", "plain"] = "coarse_to_fine"
    labels: Literal["hard", "soft"] = "hard"
    deletion: float = 0.0
    jitter: int = 0
    film: int = 0

    taxonomy = Taxonomy(shows="mask", needs="gradients", relation="dependence")

    def __post_init__(self) -> None:
        check_fields(self)
        weights = (self.prediction, self.sparseness, self.smoothness or 0.0, self.deletion)
        if min(weights) < 0 or not all(map(math.isfinite, weights)):
            raise InputError(f"the weights of a loss are finite and not negative, not {weights}")
        scales = (self.limit, 1.0 if self.temperature is None else self.temperature)
        if not all(0 < scale < math.inf for scale in scales):
            raise InputError(f"limit and temperature are positive, not {self.limit}, {self.temperature}")
        if (
            self.steps < 1
            or min(self.film, self.jitter) < 0
            or (self.kernel is not None and (self.kernel < 3 or self.kernel % 2 == 0))
        ):
            raise InputError(
                "steps is at least 1, film and jitter not negative and kernel odd and at least 3, not "
                f"{self.steps}, {self.film}, {self.jitter}, {self.kernel}"
            )

    @classmethod
    def reference(cls) -> "NeuroMask":
        """As the authors' public code does it: 2,000 steps of RMSProp from a random start."""
        return cls(steps=2000, search="plain")

    @classmethod
    def paper(cls) -> "NeuroMask":
        """As the paper has it: τ = 20, m = σ(W), |Laplacian|.

        The paper gives no weights, rates, steps or kernel: these are those of the authors' code, and its sums over all
        pixels are means here, which is a choice of its λ.
        """
        return cls(steps=2000, search="plain", limit=20.0, temperature=1.0, bends="absolute")

    def attribute(self, task: Task) -> Attribution:
        places = Places.of(task)
        x, axes, grid = places.x, places.axes, places.grid
        small = len(axes) != 2 or min(grid) < SMALL
        temperature = self.temperature or (1.0 if small else 0.3)
        ordered = x.ndim > 2  # the columns of a table are not, so that none is a neighbour of another
        usual = (0.15 if small else 0.03) if ordered else 0.0
        smoothness = usual if self.smoothness is None else self.smoothness
        kernel = self.kernel or (3 if small else 5)
        start = self._start(task, places, temperature)
        laplacian = _laplacian(len(axes), kernel, start)
        masked = Masked(task, places, self.infill or (Black() if places.pictures else Zero()), self.jitter)

        def mask(weights: Tensor) -> Tensor:
            return torch.sigmoid(weights / temperature)

        def penalty(weights: Tensor) -> Tensor:
            everything = tuple(range(1, weights.ndim))
            sparse = (weights + self.limit).abs().mean(everything)
            if not smoothness:
                return self.sparseness * sparse
            bent = _bends(weights, laplacian)
            cost = bent.square() if self.bends == "square" else bent.abs()
            return self.sparseness * sparse + smoothness * cost.mean(everything)

        # With a class more likely than not, no other can be the predicted one.
        classes = self.labels == "hard" and isinstance(wanted(task), MeanLogProbability)
        enough = self.prediction * math.log(2) if classes else math.inf
        fast = self.search == "coarse_to_fine"
        found = minimise(
            task,
            Objective(mask, self._data(masked), penalty, enough=enough),
            start,
            self.steps,
            Smoothed(Adam(), kernel, COARSE * smoothness, FINE * smoothness) if fast else RMSProp(),
            settles=fast,
            choose="lowest" if self.jitter < 2 else "last",
            film=self.film,
        )
        relevance = mask(found.weights).view(-1, *places.shape).to(x.dtype)
        score, lost = masked.outcome(wanted(task), relevance)
        checks: tuple[Check, ...] = ()
        if lost is not None:
            gone = lost.double().masked_fill(score.isnan(), torch.nan)  # of NaN no class is predicted
            checks = (Check("class lost under the mask", gone, 0.0, LOST),)
        return answer(found, relevance, found.steps * (2 if self.deletion else 1), score, lost, *checks)

    def _data(self, masked: Masked) -> Callable[[Tensor, Tensor, int], Tensor]:
        """What the model makes of a mask, as a loss."""
        task = masked.task
        target = wanted(task)
        if self.labels == "soft" and not isinstance(target, MeanLogProbability):
            raise InputError("soft labels are the probabilities of all classes: they need a class as target")
        kept = Likeness.to_original(task) if self.labels == "soft" else target
        gone = MeanLogOther(target.index) if isinstance(target, MeanLogProbability) else target

        def data(masks: Tensor, sample: Tensor, step: int) -> Tensor:
            loss = -self.prediction * masked.score(kept, masks, sample, step)
            if not self.deletion:
                return loss
            task.cost.backwards += len(sample)  # the loss has two scores behind it
            rest = masked.score(gone, 1 - masks, sample, step)
            return loss + self.deletion * (rest if gone is target else -rest)

        return data

    def _start(self, task: Task, places: Places, temperature: float) -> Tensor:
        x, shape = places.x, (1, *places.grid)
        if self.search == "coarse_to_fine":
            return x.new_full((len(x), *shape), START * temperature, dtype=places.dtype)
        generators = task.everything().generators(x.device)
        draws = [torch.rand(shape, dtype=places.dtype, device=x.device, generator=one) for one in generators]
        return self.limit * (2 * torch.stack(draws) - 1)


def _laplacian(axes: int, width: int, like: Tensor) -> Tensor:
    """A kernel of −1 with as much at its centre as makes it sum to 0, (1, 1, width, …)."""
    kernel = -torch.ones((1, 1, *(width,) * axes), dtype=like.dtype, device=like.device)
    kernel[(0, 0, *(width // 2,) * axes)] = width**axes - 1
    return kernel


def _bends(weights: Tensor, kernel: Tensor) -> Tensor:
    """The Laplacian of the weights where the kernel lies inside; zero where they are too small for that."""
    if weights.ndim < 3 or any(edge < width for edge, width in zip(weights.shape[2:], kernel.shape[2:], strict=True)):
        return 0 * weights
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
    return convolve[weights.ndim - 3](weights, kernel)
