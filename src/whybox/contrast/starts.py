"""Starts: where a search begins besides z0, so that it does not end in the first hollow."""

import torch
from torch import Tensor

from whybox.contrast.problem import Problem
from whybox.core.block import Block, mix
from whybox.core.target import class_scores
from whybox.core.tree import Inputs, as_tuple

# The standard deviation of the noise, and how far towards a point of the probe class the other starts are.
NOISE, TOWARDS = 0.3, 0.8
# So many points are drawn from N(0, I) to find some of every class.
POOL = 128


def starts(problem: Problem, count: int) -> Tensor:
    """`count` starts for each sample (n, count, size).

    The first is z0. Every third of the others is z0 with noise; the rest lie on the way to the nearest, the next, …
    drawn point that the model takes for the probe class, or have noise too, where there are not so many.
    """
    origin, task = problem.origin, problem.task
    n, size = origin.shape
    sample, draw = torch.arange(n).repeat_interleave(count), torch.arange(count).repeat(n)
    noise = [torch.randn(size, dtype=torch.float64, generator=one) for one in Block(task, sample, draw).generators()]
    found = origin[:, None] + NOISE * torch.stack(noise).view(n, count, size)
    found[:, 0] = origin
    places = [number for number in range(count) if number % 3][:POOL]
    if places:
        draws = torch.Generator().manual_seed(mix(task.keys[0], -1))
        pool = torch.randn(POOL, size, dtype=torch.float64, generator=draws)
        away = torch.cdist(origin, pool).where(_classes(problem, pool) == problem.pair[:, 1:], torch.inf)
        distance, nearest = away.topk(len(places), dim=1, largest=False)
        there = torch.lerp(origin[:, None], pool[nearest], TOWARDS)
        found[:, places] = torch.where(distance.isfinite()[:, :, None], there, found[:, places])
    return found


def _classes(problem: Problem, points: Tensor) -> Tensor:
    """The class that the model predicts for G at each point (k,)."""

    def ask(z: Inputs, sample: Tensor) -> Tensor:
        with torch.no_grad():
            return class_scores(problem.task.output(problem.decode(as_tuple(z)[0]), sample)).argmax(1)

    found: Tensor = problem.task.map(ask, points, torch.zeros(len(points), dtype=torch.long), gradient=False)
    return found.cpu()
