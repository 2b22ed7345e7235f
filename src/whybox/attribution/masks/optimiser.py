"""The mask optimiser: gradient descent on a mask for each input, all inputs at once.

    loss(W) = data(m(W)) + penalty(W)

The losses of the samples are separate, so one descent serves for all; a sample that is finished leaves the batch. The
weights W may be coarse at first and are refined from stage to stage, but every loss is that of the full resolution.
What the model is asked, once a step and sample or more often, is up to `data`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whybox.attribution.masks.descent import Descent
from whybox.core.active import Active
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple

# A sample is finished where its loss has changed by less than this share over so many steps of the last stage.
STALLED, OVER = 1e-3, 50
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        mask: the mask in [0, 1] of weights (k, 1, *grid of the last stage).
        data: what the model makes of masks (k, …), of these samples, in this step of all, as a loss (k,); a step of
            `task.map`, differentiable.
        penalty: what the weights cost besides (k,).
        box: the weights are kept within these two bounds, where there are any.
    """

    mask: Callable[[Tensor], Tensor]
    data: Callable[[Tensor, Tensor, int], Tensor]
    penalty: Callable[[Tensor], Tensor]
    box: tuple[float, float] | None = None


@dataclass(frozen=True)
class Stage:
    """Some steps with weights of one grid."""

    grid: tuple[int, ...]
    steps: int


@dataclass(frozen=True)
class Found:
    """What the descent has found, per sample.

    Attributes:
        weights: those chosen (n, 1, *grid of the last stage); the start where no loss was finite.
        losses: of every step (n, steps), NaN behind a sample's last.
        steps: how many each sample took (n,).
        film: masks on the way (n, frames, *grid), where they were asked for.
    """

    weights: Tensor
    losses: Tensor
    steps: Tensor
    film: Tensor | None


def minimise(
    task: Task,
    objective: Objective,
    weights: Tensor,
    stages: Sequence[Stage],
    descent: Descent,
    *,
    settles: bool = True,
    choose: Literal["lowest", "last"] = "lowest",
    film: int = 0,
) -> Found:
    """Descend from these weights (n, 1, *grid of the last stage) through the stages.

    Args:
        task: whose model `data` asks.
        objective: what is minimised.
        weights: the start.
        stages: from coarse to fine; the last has the full resolution.
        descent: how steps are made.
        settles: whether a sample is finished where its loss has settled in the last stage.
        choose: the weights of the lowest loss, or the last whose loss was finite: where losses are drawn by chance,
            the lowest is that of a lucky draw.
        film: keep so many masks on the way.
    """
    total = sum(stage.steps for stage in stages)
    frames = set(torch.linspace(0, total - 1, film).round().long().tolist()) if film else set()
    count, full = len(weights), stages[-1].grid
    active = Active(
        count,
        weights=weights,
        best=weights.clone(),
        loss=torch.full((count,), torch.inf, dtype=torch.float64),
        steps=torch.zeros(count, dtype=torch.long),
    )
    losses, kept = [], []
    done = 0
    with task.bar(total) as bar:
        for stage in stages:
            active["weights"] = resized(active["weights"], stage.grid)
            for name, value in descent.start(active["weights"]).items():
                active[f"descent.{name}"] = value
            for number in range(1, stage.steps + 1):
                if not len(active):
                    break
                loss, gradient, whole = _evaluate(task, objective, active, full, done)
                _remember(active, loss, whole, torch.isfinite(loss) if choose == "last" else loss < active["loss"])
                row = torch.full((count,), torch.nan, dtype=torch.float64)
                row[active.sample] = loss
                losses.append(row)
                if done in frames:
                    kept.append(objective.mask(active.gathered("best"))[:, 0].detach())
                step = _step(descent, active, gradient, number, done / total)
                active["weights"] = active["weights"] - step
                if objective.box is not None:
                    active["weights"] = active["weights"].clamp(*objective.box)
                done += 1
                bar.update(1)
                over = ~torch.isfinite(loss)
                if settles and stage is stages[-1] and number > OVER:
                    before = losses[-1 - OVER][active.sample]
                    over |= (before - loss).abs() < STALLED * before.abs()
                active.finish(over)
    best, steps = map(active.gathered, ("best", "steps"))
    whole_losses = torch.stack(losses, 1)
    kept += [objective.mask(best)[:, 0]] * (len(frames) - len(kept))  # where all samples have left before the last one
    return Found(best, whole_losses, steps, torch.stack(kept, 1) if kept else None)


def resized(weights: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The weights on another grid, interpolated linearly."""
    if tuple(weights.shape[2:]) == grid:
        return weights
    return torch.nn.functional.interpolate(weights, grid, mode=_MODES[len(grid)], align_corners=False)


def _evaluate(
    task: Task, objective: Objective, active: Active, full: tuple[int, ...], step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (k,), its gradient for the weights, and the weights on the grid of the last stage."""
    weights = leaf(active["weights"])
    whole = resized(weights, full)
    mask = objective.mask(whole)

    def ask(masks: Inputs, sample: Tensor) -> tuple[Tensor, Tensor]:
        given = leaf(as_tuple(masks)[0])
        loss = objective.data(given, sample, step)
        return loss.detach(), task.backward(loss, (given,))[0]

    data, slope = task.map(ask, mask.detach(), active.sample, gradient=True)
    penalty = objective.penalty(whole)
    (gradient,) = torch.autograd.grad(penalty.sum() + (mask * slope).sum(), weights)
    return (data + penalty.detach()).cpu().double(), gradient, whole.detach()


def _remember(active: Active, loss: Tensor, whole: Tensor, better: Tensor) -> None:
    here = better.to(whole.device).view(-1, *(1,) * (whole.ndim - 1))
    active["best"] = torch.where(here, whole, active["best"])
    active["loss"] = torch.where(better, loss, active["loss"])
    active["steps"] = active["steps"] + 1


def _step(descent: Descent, active: Active, gradient: Tensor, number: int, share: float) -> Tensor:
    names = [name for name in active.state if name.startswith("descent.")]
    state = {name.removeprefix("descent."): active[name] for name in names}
    step = descent.step(gradient, state, number, share)
    for name in names:
        active[name] = state[name.removeprefix("descent.")]
    return step
