"""NeuroMask: the least of the input that keeps the prediction."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from whybox.attribution.masks.descent import Adam, Descent, RMSProp, Smoothed
from whybox.attribution.masks.optimiser import Found, Objective, Stage, minimise
from whybox.attribution.perturbation.partition import position_axes
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.reference import Black, Infill
from whybox.core.target import Logit, LogProbability, Target
from whybox.core.task import Task

# Pictures below this edge, and everything that is no picture, have the settings that the authors use for CIFAR-10.
SMALL = 64
# How much the search smooths its first and last step, in units of the weight of the smoothness term.
COARSE, FINE = 20.0, 0.2


@dataclass(frozen=True)
class NeuroMask(Method):
    """Relevance R = σ(W/T) in [0, 1]: the least mask that keeps the prediction on x̄ = x R + infill (1 − R).

    W minimises λ_p·CE(class, f(x̄)) + λ_sp·mean|W + τ| + λ_sm·mean (Laplacian of W)²; where the target is no class, its
    score is raised in place of the cross-entropy. A single output is the log-odds of its class; give a function of it
    as the target of a regression. The default descends from W = T, where most of the input is kept, by Adam with a
    falling rate, whose steps are smooth at first and fine in the end; `NeuroMask.reference()` is the authors' own way
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
        infill: what stands where the mask is 0. Inside a model (`at`) black is the lowest value of the batch; `Zero` or
            `Mean` say more there.
        steps: how many at most.
        search: "coarse_to_fine", or "plain": RMSProp at full resolution from a random start.
        film: how many masks on the way are kept in the details.
    """

    prediction: float = 0.4
    sparseness: float = 0.35
    smoothness: float | None = None
    limit: float = 10.0
    temperature: float | None = None
    kernel: int | None = None
    bends: Literal["square", "absolute"] = "square"
    infill: Infill = field(default_factory=Black)
    steps: int = 240
    search: Literal["coarse_to_fine", "plain"] = "coarse_to_fine"
    film: int = 0

    taxonomy = Taxonomy(shows="regions", needs="gradients", relation="dependence")

    def __post_init__(self) -> None:
        weights = (self.prediction, self.sparseness, self.smoothness or 0.0)
        if min(weights) < 0 or not all(map(math.isfinite, weights)):
            raise InputError(f"the weights of a loss are finite and not negative, not {weights}")
        scales = (self.limit, 1.0 if self.temperature is None else self.temperature)
        if not all(0 < scale < math.inf for scale in scales):
            raise InputError(f"limit and temperature are positive, not {self.limit}, {self.temperature}")
        if self.bends not in ("square", "absolute") or self.search not in ("coarse_to_fine", "plain"):
            raise InputError(
                "bends is 'square' or 'absolute' and search 'coarse_to_fine' or 'plain', "
                f"not {self.bends!r}, {self.search!r}"
            )
        if self.steps < 1 or self.film < 0 or (self.kernel is not None and (self.kernel < 3 or self.kernel % 2 == 0)):
            raise InputError(
                f"steps is at least 1, film not negative and kernel odd and at least 3, not {self.steps}, {self.film}, "
                f"{self.kernel}"
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
        x, axes = _one_input(task)
        small = len(axes) != 2 or min(x.shape[axis] for axis in axes) < SMALL
        grid = tuple(x.shape[axis] for axis in axes)
        shape = tuple(x.shape[axis] if axis in axes else 1 for axis in range(1, x.ndim))
        temperature = self.temperature or (1.0 if small else 0.3)
        ordered = x.ndim > 2  # the columns of a table are not, so that none is a neighbour of another
        usual = (0.15 if small else 0.03) if ordered else 0.0
        smoothness = usual if self.smoothness is None else self.smoothness
        kernel = self.kernel or (3 if small else 5)
        start = self._start(task, x, grid, temperature)
        laplacian = _laplacian(len(axes), kernel, start)
        filled = task.everything().fill(self.infill)
        assert isinstance(filled, Tensor)
        target = MeanLogProbability(task.target.index) if isinstance(task.target, Logit) else task.target

        def mask(weights: Tensor) -> Tensor:
            return torch.sigmoid(weights / temperature)

        def masked(masks: Tensor, sample: Tensor) -> Tensor:
            here = sample.to(x.device)
            return torch.lerp(filled[here], x[here], masks.view(-1, *shape).to(x.dtype))

        def penalty(weights: Tensor) -> Tensor:
            everything = tuple(range(1, weights.ndim))
            sparse = (weights + self.limit).abs().mean(everything)
            if not smoothness:
                return self.sparseness * sparse
            bent = _bends(weights, laplacian)
            cost = bent.square() if self.bends == "square" else bent.abs()
            return self.sparseness * sparse + smoothness * cost.mean(everything)

        def kept(score: Tensor) -> Tensor:  # more likely than not: no other class can be the predicted one
            return score > (-math.log(2) if isinstance(target, MeanLogProbability) else -math.inf)

        objective = Objective(mask, masked, lambda score: -self.prediction * score, penalty, kept)
        fast = self.search == "coarse_to_fine"
        smoothed = Smoothed(Adam(), kernel, COARSE * smoothness, FINE * smoothness)
        descent: Descent = smoothed if fast else RMSProp()
        stages = (Stage(grid, self.steps),)
        found = minimise(replace(task, target=target), objective, start, stages, descent, settles=fast, film=self.film)
        relevance = mask(found.weights).view(-1, *shape).to(x.dtype)
        return _answer(found, relevance, self._lost(task, target, masked, relevance))

    @staticmethod
    def _lost(
        task: Task, target: Target, masked: Callable[[Tensor, Tensor], Tensor], relevance: Tensor
    ) -> Tensor | None:
        """Whether the model predicts another class than the target's under the mask (n,); None where it is no class."""
        if not isinstance(target, MeanLogProbability):
            return None

        def lost(masks: Any, sample: Tensor) -> Tensor:
            here = target.rows(sample)
            assert isinstance(here, MeanLogProbability)
            with torch.no_grad():
                return here.lost(task.output(masked(masks, sample), sample))

        found: Tensor = task.map(lost, relevance, gradient=False)
        return found

    def _start(self, task: Task, x: Tensor, grid: tuple[int, ...], temperature: float) -> Tensor:
        """Where all is kept, more or less, or anywhere; from W = 0 the mask would fade before it has found a place."""
        dtype = torch.promote_types(x.dtype, torch.float32)  # in half precision small steps would be lost
        if self.search == "coarse_to_fine":
            return x.new_full((len(x), 1, *grid), temperature, dtype=dtype)
        generators = task.everything().generators(x.device)
        draws = [torch.rand((1, *grid), dtype=dtype, device=x.device, generator=one) for one in generators]
        return self.limit * (2 * torch.stack(draws) - 1)


@dataclass(frozen=True, eq=False)
class MeanLogProbability(LogProbability):
    """The logarithm of the probability of a class; in a dense output its mean over all positions."""

    def score(self, output: Tensor) -> Tensor:
        positions = 1 if isinstance(self.index, tuple) else math.prod(output.shape[2:])
        return super().score(output) / positions

    def lost(self, output: Tensor) -> Tensor:
        """Whether another class is predicted (n,); a single output is the log-odds of its class, whose rival has 0."""
        columns = output[:, None] if output.ndim == 1 else output
        if columns.shape[1] == 1:
            columns = torch.cat((columns, torch.zeros_like(columns)), 1)
        wanted = self.index
        if isinstance(wanted, tuple):
            wanted, *places = wanted
            for place in reversed(places):
                columns = columns.select(-1, place)
        return torch.as_tensor(Logit().pin(len(columns), columns).index) != torch.as_tensor(wanted)


def _one_input(task: Task) -> tuple[Tensor, tuple[int, ...]]:
    """The input and its axes of places; a mask belongs to one input of numbers."""
    if isinstance(task.inputs, tuple):
        raise InputError("a mask belongs to one input; put the model into a module that sets the others")
    if not task.inputs.is_floating_point():
        raise InputError(f"{task.inputs.dtype} can be hidden, but not faded; explain the embedding layer with at='…'")
    return task.inputs, position_axes(task)[0]


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


def _answer(found: Found, relevance: Tensor, lost: Tensor | None) -> Attribution:
    """The masks with what is known of them, and whether they keep what they are for."""
    failed = ~torch.isfinite(found.loss)
    diverged = ~torch.isfinite(found.losses.gather(1, found.steps[:, None] - 1)[:, 0])
    details = {
        "kept_score" if lost is None else "kept_probability": torch.where(
            failed, torch.nan, found.score if lost is None else found.score.exp()
        ),
        "area": (relevance > 0.5).view(len(relevance), -1).cpu().double().mean(1),
        "losses": found.losses,
        "evaluations": found.steps,
    }
    if found.film is not None:
        details["film"] = found.film
    checks = [
        Check(
            "search that diverged",
            diverged.double(),
            0.0,
            "Whether the loss became NaN or infinite, which ended the search. Then the mask is the best before that, "
            "or the one that the search began with.",
        )
    ]
    if lost is not None:
        checks.append(
            Check(
                "class lost under the mask",
                lost.double(),
                0.0,
                "Whether the model predicts another class where the mask hides the rest. Such a mask does not show "
                "what the prediction needs.",
            )
        )
    return Attribution(relevance, details, tuple(checks))
