"""Methods that add up gradients along a path from a baseline to the input."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.model import Model
from whybox.core.reference import Infill, UniformNoise, Zero
from whybox.core.start import check_inputs
from whybox.core.task import BLOCK_ROWS, Block, Task
from whybox.core.tree import Inputs, as_tuple, each

# With a tolerance: gradients per sample between two looks at the gap, and at the most.
ROUND = 4
MOST_STEPS = 256
GOLDEN = 0.6180339887498949

COMPLETENESS = (
    "Relative difference between the sum of the relevance and what it should explain, the score of the input minus "
    "that of the baseline. A large gap means too few steps: part of the score is not accounted for."
)


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Relevance R = (x − x′) ⊙ ∫₀¹ ∂f(x′ + α(x − x′))/∂x dα: the mean gradient from a baseline x′ to x, times x − x′.

    Signed, in the shape of the input; sums to f(x) − f(x′) up to the error of the quadrature, which is reported as
    the check "completeness gap" and never hidden by rescaling. With a number of `steps`: a Gauss–Legendre or a
    (midpoint) Riemann sum. Without: until the relative gap of a sample is within `tolerance`, at α = t², t from the
    golden-ratio sequence, which can be extended by any number of points, with weights ∝ 2t that add up to 1; t²
    because a net with biases bends most close to the baseline.
    Cost: `steps` forward and backward passes and two forward ones; memory does not grow with `steps`. With a
    tolerance usually some ten passes a sample, at most 256.
    Limits: depends on the baseline, whose own features can get no relevance; a small gap says nothing about the
    choice of baseline.
    Source: Sundararajan, Taly & Yan 2017, arXiv 1703.01365.

    Args:
        steps: gradients per sample, or None for as many as the tolerance asks for.
        tolerance: the largest relative completeness gap that is accepted, |Σ R − Δf| / |Δf|.
        rule: the quadrature, where `steps` are given.
        baseline: where the path begins.
    """

    steps: int | None = None
    tolerance: float = 0.01
    rule: Literal["gauss-legendre", "riemann"] = "gauss-legendre"
    baseline: Infill = field(default_factory=Zero)

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def __post_init__(self) -> None:
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise InputError(f"IntegratedGradients needs whole steps ≥ 1, or None for a tolerance, not {self.steps}")
        if not self.tolerance > 0:
            raise InputError(f"IntegratedGradients needs a tolerance above 0, not {self.tolerance}")
        if self.rule not in ("gauss-legendre", "riemann"):
            raise InputError(f"the rule is 'gauss-legendre' or 'riemann', not {self.rule!r}")

    def attribute(self, task: Task) -> Attribution:
        baseline = task.everything().fill(self.baseline)
        goal = task.score(task.inputs) - task.score(baseline)
        integral = _PathIntegral(task, baseline)
        if self.steps is None:
            self._until_complete(integral, goal)
        else:
            nodes, weights = quadrature(self.rule, self.steps)
            for block in task.blocks(self.steps):
                integral.add(block.sample, nodes[block.draw], weights[block.draw])
        relevance = integral.relevance()
        return Attribution(
            relevance,
            details={"baseline": baseline, "steps": integral.steps},
            checks=(Check("completeness gap", relative_gap(integral.total, goal), self.tolerance, COMPLETENESS),),
        )

    def _until_complete(self, integral: "_PathIntegral", goal: Tensor) -> None:
        """Rounds of points for the samples whose gap is still too large; the weights are divided by their sum."""
        open = torch.arange(len(goal))
        with integral.task.bar(len(goal)) as bar:
            for begin in range(0, MOST_STEPS, ROUND):
                t = (torch.arange(begin, begin + ROUND, dtype=torch.float64) + 0.5).mul(GOLDEN).remainder(1)
                for some in torch.split(open, max(1, BLOCK_ROWS // ROUND)):
                    points = t.repeat(len(some))
                    integral.add(some.repeat_interleave(ROUND), points**2, 2 * points)
                gap = relative_gap(integral.total / integral.weight, goal)
                left = open[(gap > self.tolerance).cpu()[open]]
                bar.update(len(open) - len(left))
                open = left
                if not len(open):
                    break
        integral.divide()


@dataclass(frozen=True)
class ExpectedGradients(Method):
    """Relevance R = E over x′ and α of (x − x′) ⊙ ∂f(x′ + α(x − x′))/∂x: integrated gradients, averaged over baselines.

    x′ is drawn from `baseline`, or after `fit(model, data)` from the data; α is uniform on (0, 1), one draw in each
    of `samples` equal strata. Signed, in the shape of the input; sums in expectation to f(x) − E f(x′), whose gap
    is reported as a check, never hidden.
    Cost: `samples` forward and backward passes, and as many forward ones for the check; memory does not grow.
    Limits: noisy, with an error that falls as 1/√samples; the baselines are a choice that shapes the map.
    Source: Erion, Janizek, Sturmfels, Lundberg & Lee 2021, arXiv 1906.10670.

    Args:
        samples: draws per input.
        baseline: the law of the baselines, where the method is not fitted to data.
        tolerance: the largest relative gap at which the check passes.
    """

    samples: int = 32
    baseline: Infill = field(default_factory=UniformNoise)
    tolerance: float = 0.1

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1 or not self.tolerance > 0:
            raise InputError(
                f"ExpectedGradients needs whole samples ≥ 1 and tolerance > 0, not {self.samples}, {self.tolerance}"
            )

    def learn(self, model: Model, data: Any, *, seed: int, progress: bool) -> dict[str, Tensor]:
        """Keep the samples in `data`, a tensor with the batch first, as baselines."""
        check_inputs(data, model, differentiable=True)
        if isinstance(data, tuple):
            raise InputError("ExpectedGradients can be fitted for models with a single input only")
        return {"baselines": data.detach().cpu().clone()}

    def attribute(self, task: Task) -> Attribution:
        total = each(torch.zeros_like, task.inputs)
        reached = torch.zeros(task.size, dtype=torch.float64)
        begin = torch.zeros(task.size, dtype=torch.float64)
        for block in task.blocks(self.samples):
            relevance, scores = self._draw(task, block)
            sample = block.sample
            total = each(lambda sum, r, rows=sample: sum.index_add(0, rows.to(r.device), r), total, relevance)
            reached.index_add_(0, sample, _sum(relevance))
            begin.index_add_(0, sample, scores / self.samples)
        gap = relative_gap(reached, task.score(task.inputs).double().cpu() - begin)
        return Attribution(total, checks=(Check("completeness gap", gap, self.tolerance, COMPLETENESS),))

    def _draw(self, task: Task, block: Block) -> tuple[Inputs, Tensor]:
        """Each draw's share of the relevance, and the score of its baseline."""
        baseline = self._baselines(task, block)
        inside = torch.tensor([torch.rand((), generator=g, dtype=torch.float64) for g in block.generators()])
        alpha = (block.draw + inside) / self.samples
        point = each(lambda b, x: b + _column(alpha, x) * (x - b), baseline, block.inputs)
        gradient = task.gradient(point, block.sample)
        relevance = each(lambda x, b, g: (x - b) * g / self.samples, block.inputs, baseline, gradient)
        return relevance, task.score(baseline, block.sample).double().cpu()

    def _baselines(self, task: Task, block: Block) -> Inputs:
        if task.state is None:
            return block.fill(self.baseline, salt=1)
        data = task.state["baselines"]
        x = as_tuple(task.inputs)[0]
        if task.at is not None or data.shape[1:] != x.shape[1:]:
            raise InputError(
                f"fitted to inputs of shape {tuple(data.shape[1:])}, but asked to explain {tuple(x.shape[1:])}"
            )
        return data[[int(torch.randint(len(data), (), generator=g)) for g in block.generators(salt=1)]].to(x)


class _PathIntegral:
    """The weighted sum of gradients along each sample's path, and the relevance that it amounts to."""

    def __init__(self, task: Task, baseline: Inputs) -> None:
        self.task = task
        self.baseline = baseline
        self.sum = each(torch.zeros_like, task.inputs)
        self.total = torch.zeros(task.size, dtype=torch.float64)
        self.weight = torch.zeros(task.size, dtype=torch.float64)
        self.steps = torch.zeros(task.size, dtype=torch.long)

    def add(self, sample: Tensor, alpha: Tensor, weight: Tensor) -> None:
        """Add weight[j] times the gradient at the point alpha[j] of the path of sample[j]."""
        x = each(lambda x: x[sample.to(x.device)], self.task.inputs)
        start = each(lambda b: b[sample.to(b.device)], self.baseline)
        point = each(lambda b, x: b + _column(alpha, x) * (x - b), start, x)
        gradient = each(lambda g: _column(weight, g) * g, self.task.gradient(point, sample))
        each(lambda sum, g: sum.index_add_(0, sample.to(g.device), g), self.sum, gradient)
        self.total.index_add_(0, sample, _sum(each(lambda x, b, g: (x - b) * g, x, start, gradient)))
        self.weight.index_add_(0, sample, weight)
        self.steps += sample.bincount(minlength=len(self.steps))

    def divide(self) -> None:
        """Divide by the sum of the weights, so that a constant gradient is integrated exactly."""
        self.sum = each(lambda sum: sum / _column(self.weight, sum), self.sum)
        self.total = self.total / self.weight

    def relevance(self) -> Inputs:
        """(x − x′) times the sum."""
        return each(lambda x, b, sum: (x - b) * sum, self.task.inputs, self.baseline, self.sum)


def quadrature(rule: str, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] (float64): Gauss–Legendre, or the Riemann sum at the middle of equal parts."""
    if rule == "riemann":
        return (torch.arange(steps, dtype=torch.float64) + 0.5) / steps, torch.ones(steps, dtype=torch.float64) / steps
    nodes, weights = numpy.polynomial.legendre.leggauss(steps)
    return torch.as_tensor((nodes + 1) / 2), torch.as_tensor(weights / 2)


def relative_gap(reached: Tensor, goal: Tensor) -> Tensor:
    """|reached − goal| / |goal|, and 0 where both are 0, on the CPU in float64."""
    reached, goal = reached.double().cpu(), goal.double().cpu()
    difference = (reached - goal).abs()
    return torch.where(difference == 0, difference, difference / goal.abs())


def _column(values: Tensor, like: Tensor) -> Tensor:
    """One value per row, on the device and in the dtype of `like`, broadcastable to it."""
    return values.to(like).view(-1, *(1,) * (like.ndim - 1))


def _sum(relevance: Inputs) -> Tensor:
    """The sum over everything in each row and input, on the CPU in float64."""
    return torch.stack([r.reshape(len(r), -1).double().sum(1).cpu() for r in as_tuple(relevance)]).sum(0)
