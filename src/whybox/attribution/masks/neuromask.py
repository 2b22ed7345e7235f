"""NeuroMask: the least of the input that keeps the prediction."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whybox.attribution.masks.descent import Adam, Descent, RMSProp
from whybox.attribution.masks.optimiser import Found, Objective, Stage, minimise
from whybox.attribution.perturbation.partition import position_axes
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.reference import Black, Infill
from whybox.core.target import Logit, LogProbability, Probability, Target
from whybox.core.task import Task

# Pictures below this edge, and everything that is no picture, have the settings that the authors use for CIFAR-10.
SMALL = 64


@dataclass(frozen=True)
class NeuroMask(Method):
    """Mask m = σ(W/T) of least area that keeps the prediction on x̄ = x m + infill (1 − m); relevance R = m in [0, 1].

    W minimises λ_p·CE(class, f(x̄)) + λ_sp·mean|W + τ| + λ_sm·mean (Laplacian of W)²; where the target is no class, its
    score is raised in place of the cross-entropy. The default descends from W = 0 in three stages, of a quarter and of
    half the resolution and of the whole, by Adam with a falling rate; `NeuroMask.reference()` is the authors' own way
    to minimise the same, in eight times as many steps, and `NeuroMask.paper()` the paper's formula. Masks lie over
    positions, tokens or columns: (n, 1, h, w) for pictures. Details: `kept_probability` (of a class), `area` (share of
    m > ½), `losses` of every step and `evaluations` of the model, per sample; with `film`, masks on the way.
    Cost: a forward and a backward pass for each step, at most `steps`; samples that have settled cost no more.
    Limits: one of many masks that keep the prediction, and the weights λ choose which; a picture with black holes is
    none that the model was trained on, and small masks may find what fools the model; 0 does not mean irrelevant.
    Source: Alzantot, Widdicombe, Julier & Srivastava 2019, arXiv 1908.04389; settings from the authors' code.

    Args:
        prediction: λ_p.
        sparseness: λ_sp.
        smoothness: λ_sm; None for .03, and .15 for pictures under 64 pixels and what is no picture.
        limit: τ, where W is drawn to, and the range of a random start.
        temperature: T; None for .3, and 1 for small pictures and what is no picture.
        kernel: width of the Laplacian, which weighs a value against its neighbours; None for 5, and 3 for small ones.
        bends: whether a bend in W costs its "square" or its "absolute" size.
        infill: what stands where the mask is 0.
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
        if self.limit <= 0 or (self.temperature is not None and self.temperature <= 0):
            raise InputError(f"limit and temperature are positive, not {self.limit}, {self.temperature}")
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
        smoothness = self.smoothness if self.smoothness is not None else (0.15 if small else 0.03)
        laplacian = _laplacian(len(axes), self.kernel or (3 if small else 5), x)
        filled = task.everything().fill(self.infill)
        assert isinstance(filled, Tensor)
        of_class = type(task.target) in (Logit, Probability, LogProbability)
        target: Target = LogProbability(task.target.index) if of_class else task.target  # type: ignore[attr-defined]

        def mask(weights: Tensor) -> Tensor:
            return torch.sigmoid(weights / temperature)

        def masked(masks: Tensor, sample: Tensor) -> Tensor:
            here = sample.to(x.device)
            return torch.lerp(filled[here], x[here], masks.view(-1, *shape))

        def penalty(weights: Tensor) -> Tensor:
            everything = tuple(range(1, weights.ndim))
            sparse = (weights + self.limit).abs().mean(everything)
            bent = _bends(weights, laplacian)
            cost = bent.square() if self.bends == "square" else bent.abs()
            return self.sparseness * sparse + smoothness * cost.mean(everything)

        objective = Objective(mask, masked, lambda score: -self.prediction * score, penalty)
        found = minimise(
            _for(task, target), objective, self._start(task, x, grid), self._stages(grid), self._descent(),
            film=self.film,
            satisfied=None if not of_class else lambda score, _: score.exp() > 0,
        )  # fmt: skip
        return _answer(found, mask(found.weights).view(-1, *shape), of_class, self.film)

    def _start(self, task: Task, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        if self.search == "coarse_to_fine":
            return x.new_zeros((len(x), 1, *grid))
        generators = task.everything().generators(x.device)
        draws = [torch.rand((1, *grid), dtype=x.dtype, device=x.device, generator=one) for one in generators]
        return self.limit * (2 * torch.stack(draws) - 1)

    def _descent(self) -> Descent:
        return Adam() if self.search == "coarse_to_fine" else RMSProp()

    def _stages(self, grid: tuple[int, ...]) -> tuple[Stage, ...]:
        """A quarter, a half and the whole of the resolution, with 7, 8 and 9 of 24 steps; coarser for large pictures."""
        if self.search == "plain" or self.steps < 3 or min(grid) < 8:
            return (Stage(grid, self.steps),)
        first, second = round(self.steps * 7 / 24), round(self.steps * 8 / 24)
        parts = (4, 2, 1) if max(grid) < SMALL else (16, 8, 4, 1)
        steps = (first, second, self.steps - first - second)
        if len(parts) == 4:
            steps = (first, second, second // 2, self.steps - first - second - second // 2)
        return tuple(
            Stage(tuple(-(-edge // part) for edge in grid), count) for part, count in zip(parts, steps, strict=True)
        )
