"""The mask optimiser: gradient descent on a mask for each input, all inputs at once.

    loss(W) = data(m(W)) + penalty(W)

The losses of the samples are separate, so one descent serves for all; a sample that is finished leaves the batch. What
the model is asked, once a step and sample or more often, is up to `data`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whybox.attribution.masks.descent import Descent
from whybox.core.active import Active
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple

# A sample is finished where its loss has changed by less than this share over so many steps.
STALLED, OVER = 1e-3, 50


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        mask: the mask in [0, 1] of weights (k, 1, *grid).
        data: what the model makes of masks (k, …), of these samples, in this step of all, as a loss (k,); a step of
            `task.map`, differentiable.
        penalty: what the weights cost besides (k,).
        box: the weights are kept within these two bounds, where there are any.
        enough: a sample is not finished before what `data` says is below this.
    """

    mask: Callable[[Tensor], Tensor]
    data: Callable[[Tensor, Tensor, int], Tensor]
    penalty: Callable[[Tensor], Tensor]
    box: tuple[float, float] | None = None
    enough: float = math.inf


@dataclass(frozen=True)
class Found:
    """What the descent has found, per sample.

    Attributes:
        weights: those chosen (n, 1, *grid); the start where no loss was finite.
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
    steps: int,
    descent: Descent,
    *,
    settles: bool = True,
    choose: Literal["lowest", "last"] = "lowest",
    film: int = 0,
) -> Found:
    """Descend from these weights (n, 1, *grid).

    Args:
        task: whose model `data` asks.
        objective: what is minimised.
        weights: the start.
        steps: how many at most.
        descent: how steps are made.
        settles: whether a sample is finished where its loss has settled.
        choose: the weights of the lowest loss, or the last whose loss was finite: where losses are drawn by chance,
            the lowest is that of a lucky draw.
        film: keep so many masks on the way, the last among them, and the first if there are more.
    """
    frames = set(torch.linspace(steps - 1, 0, film).round().long().tolist()) if film else set()
    count = len(weights)
    active = Active(
        count,
        weights=weights,
        best=weights.clone(),
        loss=torch.full((count,), torch.inf, dtype=torch.float64),
        steps=torch.zeros(count, dtype=torch.long),
        **{f"descent.{name}": value for name, value in descent.start(weights).items()},
    )
    losses, kept = [], []
    with task.bar(steps) as bar:
        for step in range(steps):
            data, loss, gradient = _evaluate(task, objective, active, step)
            _remember(active, loss, torch.isfinite(loss) if choose == "last" else loss < active["loss"])
            row = torch.full((count,), torch.nan, dtype=torch.float64)
            row[active.sample] = loss
            losses.append(row)
            if step in frames:
                kept.append(objective.mask(active.gathered("best"))[:, 0].detach())
            active["weights"] = active["weights"] - _step(descent, active, gradient, step + 1, step / steps)
            if objective.box is not None:
                active["weights"] = active["weights"].clamp(*objective.box)
            bar.update(1)
            over = ~torch.isfinite(loss)
            if settles and step >= OVER:
                before = losses[-1 - OVER][active.sample]
                over |= (data < objective.enough) & ((before - loss).abs() < STALLED * before.abs())
            active.finish(over)
            if not len(active):
                break
    best, taken = map(active.gathered, ("best", "steps"))
    kept += [objective.mask(best)[:, 0]] * (len(frames) - len(kept))  # where all samples have left before the last one
    return Found(best, torch.stack(losses, 1), taken, torch.stack(kept, 1) if kept else None)


def _evaluate(task: Task, objective: Objective, active: Active, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the model makes of the masks (k,), the whole loss (k,) and its gradient for the weights."""
    weights = leaf(active["weights"])
    mask = objective.mask(weights)

    def ask(masks: Inputs, sample: Tensor) -> tuple[Tensor, Tensor]:
        given = leaf(as_tuple(masks)[0])
        loss = objective.data(given, sample, step)
        return loss.detach(), task.backward(loss, (given,))[0]

    data, slope = task.map(ask, mask.detach(), active.sample, gradient=True)
    penalty = objective.penalty(weights)
    (gradient,) = torch.autograd.grad(penalty.sum() + (mask * slope).sum(), weights)
    return data.cpu().double(), (data + penalty.detach()).cpu().double(), gradient


def _remember(active: Active, loss: Tensor, better: Tensor) -> None:
    weights = active["weights"]
    here = better.to(weights.device).view(-1, *(1,) * (weights.ndim - 1))
    active["best"] = torch.where(here, weights, active["best"])
    active["loss"] = torch.where(better, loss, active["loss"])
    active["steps"] = active["steps"] + 1


def _step(descent: Descent, active: Active, gradient: Tensor, number: int, share: float) -> Tensor:
    names = [name for name in active.state if name.startswith("descent.")]
    state = {name.removeprefix("descent."): active[name] for name in names}
    step = descent.step(gradient, state, number, share)
    for name in names:
        active[name] = state[name.removeprefix("descent.")]
    return step
