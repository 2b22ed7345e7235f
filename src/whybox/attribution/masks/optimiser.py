"""The mask optimiser: gradient descent on a mask for each input, all inputs at once.

    loss(W) = data(f(x̄)) + penalty(W),  x̄ = x m(W) + infill (1 − m(W))

The losses of the samples are separate, so one descent serves for all; a sample that is finished leaves the batch. The
weights W may be coarse at first and are refined from stage to stage, but every loss is that of the full resolution.
The model is asked once a step and sample, forward and backward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.attribution.masks.descent import Descent
from whybox.core.active import Active
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple

# A sample is finished where its loss has changed by less than this share over so many steps of the last stage.
STALLED, OVER = 1e-3, 50
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _always(score: Tensor) -> Tensor:
    return torch.ones_like(score, dtype=torch.bool)


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        mask: the mask in [0, 1] of weights (k, 1, *grid), at full resolution.
        masked: the inputs under masks, for these samples.
        data: the loss of each score (k,), differentiable.
        penalty: what the weights cost besides (k,), at full resolution.
        kept: from the scores, which samples may be finished (k,), because the mask keeps what it is for.
    """

    mask: Callable[[Tensor], Tensor]
    masked: Callable[[Tensor, Tensor], Inputs]
    data: Callable[[Tensor], Tensor]
    penalty: Callable[[Tensor], Tensor]
    kept: Callable[[Tensor], Tensor] = _always


@dataclass(frozen=True)
class Stage:
    """Some steps with weights of one grid."""

    grid: tuple[int, ...]
    steps: int


@dataclass(frozen=True)
class Found:
    """What the descent has found, per sample.

    Attributes:
        weights: those of the lowest loss, at full resolution (n, 1, *grid).
        loss: that loss (n,); infinite where none was finite.
        score: the target's score under the mask then (n,).
        losses: of every step (n, steps), NaN behind a sample's last.
        steps: how many each sample took (n,).
        film: masks on the way (n, frames, *grid), where they were asked for.
    """

    weights: Tensor
    loss: Tensor
    score: Tensor
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
    film: int = 0,
) -> Found:
    """Descend from these weights (n, 1, *grid of the last stage) through the stages.

    Args:
        task: its target is what `data` sees the score of.
        objective: what is minimised.
        weights: the start.
        stages: from coarse to fine; the last has the full resolution.
        descent: how steps are made.
        settles: whether a sample is finished where its loss has settled in the last stage.
        film: keep so many masks on the way.
    """
    total = sum(stage.steps for stage in stages)
    frames = set(torch.linspace(0, total - 1, film).round().long().tolist()) if film else set()
    count, full = len(weights), stages[-1].grid
    nothing = torch.full((count,), torch.inf, dtype=torch.float64)
    active = Active(
        count,
        weights=weights,
        best=weights.clone(),
        loss=nothing,
        score=nothing.clone(),
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
                loss, score, gradient, whole = _evaluate(task, objective, active, full)
                _remember(active, loss, score, whole)
                row = torch.full((count,), torch.nan, dtype=torch.float64)
                row[active.sample] = loss
                losses.append(row)
                if done in frames:
                    kept.append(objective.mask(active.gathered("best"))[:, 0].detach())
                step = _step(descent, active, gradient, number, done / total)
                active["weights"] = active["weights"] - step
                done += 1
                bar.update(1)
                over = ~torch.isfinite(loss)
                if settles and stage is stages[-1] and number > OVER:
                    before = losses[-1 - OVER][active.sample]
                    over |= objective.kept(score) & ((before - loss).abs() < STALLED * before.abs())
                active.finish(over)
    best, loss, score, steps = map(active.gathered, ("best", "loss", "score", "steps"))
    whole_losses = torch.stack(losses, 1)
    kept += [objective.mask(best)[:, 0]] * (len(frames) - len(kept))  # where all samples have left before the last one
    return Found(best, loss, score, whole_losses, steps, torch.stack(kept, 1) if kept else None)


def resized(weights: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The weights on another grid, interpolated linearly."""
    if tuple(weights.shape[2:]) == grid:
        return weights
    return torch.nn.functional.interpolate(weights, grid, mode=_MODES[len(grid)], align_corners=False)


def _evaluate(
    task: Task, objective: Objective, active: Active, full: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and score (k,), the gradient of the loss for the weights, and the weights at full resolution."""
    weights = leaf(active["weights"])
    whole = resized(weights, full)
    mask = objective.mask(whole)

    def ask(masks: Inputs, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given = leaf(as_tuple(masks)[0])
        score = task.forward(objective.masked(given, sample), sample)
        loss = objective.data(score)
        return loss.detach(), score.detach(), task.backward(loss, (given,))[0]

    data, score, slope = task.map(ask, mask.detach(), active.sample, gradient=True)
    penalty = objective.penalty(whole)
    (gradient,) = torch.autograd.grad(penalty.sum() + (mask * slope).sum(), weights)
    loss = (data + penalty.detach()).cpu().double()
    return loss, score.cpu().double(), gradient, whole.detach()


def _remember(active: Active, loss: Tensor, score: Tensor, whole: Tensor) -> None:
    better = loss < active["loss"]
    here = better.to(whole.device).view(-1, *(1,) * (whole.ndim - 1))
    active["best"] = torch.where(here, whole, active["best"])
    active["loss"] = torch.where(better, loss, active["loss"])
    active["score"] = torch.where(better, score, active["score"])
    active["steps"] = active["steps"] + 1


def _step(descent: Descent, active: Active, gradient: Tensor, number: int, share: float) -> Tensor:
    names = [name for name in active.state if name.startswith("descent.")]
    state = {name.removeprefix("descent."): active[name] for name in names}
    step = descent.step(gradient, state, number, share)
    for name in names:
        active[name] = state[name.removeprefix("descent.")]
    return step
