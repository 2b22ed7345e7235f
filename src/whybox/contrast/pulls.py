"""Pulls: how hard each constraint pulls on a step, from a dual of so few variables that it is solved exactly."""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

# What keeps parallel constraints solvable, as a share of the size of the matrix.
_RIDGE = 1e-12


def pulls(
    gram: Float[Tensor, "n k k"], levels: Float[Tensor, "n k"], most: Float[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """ν = argmax levels·ν − ½ νᵀ gram ν with −most ≤ ν₀ ≤ most and 0 ≤ ν_i ≤ most for i ≥ 1.

    The first constraint is an equation, the others are inequalities. Every choice of which ν are at which of their
    bounds is tried, each a small linear system; the best is exact, also where constraints contradict each other.
    Cost: 3^k systems of size k for each sample.
    """
    k = levels.shape[1]
    free, bound = (part.to(gram) for part in _choices(k))
    fixed = bound * most[:, None, None]
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(torch.finfo(gram.dtype).tiny)
    diagonal = torch.diag_embed(1 - free) + ridge[:, None, None, None] * torch.eye(k).to(gram)
    systems = gram[:, None] * free[:, :, None] * free[:, None, :] + diagonal
    found = torch.linalg.solve(systems, (levels[:, None] - fixed @ gram) * free) * free + fixed
    highest = most[:, None, None].expand_as(found)
    lowest = torch.zeros_like(highest)
    lowest = torch.cat((-highest[:, :, :1], lowest[:, :, 1:]), 2)
    found = found.clamp(lowest, highest)
    worth = (levels[:, None] * found).sum(2) - (found @ gram * found).sum(2) / 2
    best: Tensor = found[torch.arange(len(found)), worth.nan_to_num(-torch.inf).argmax(1)]
    return best


def _choices(k: int) -> tuple[Tensor, Tensor]:
    """All ways to fix some of k multipliers: which are free, and the multiple of the bound that the others are."""
    equation, inequality = ((1, 0), (0, 1), (0, -1)), ((1, 0), (0, 1), (0, 0))
    ways = torch.tensor(list(product(equation, *[inequality] * (k - 1))), dtype=torch.float64)
    return ways[:, :, 0], ways[:, :, 1]
