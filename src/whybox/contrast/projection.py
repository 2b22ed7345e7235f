"""Projection: the shortest vector under one linear equation and a few linear inequalities, for many samples at once."""

import torch
from jaxtyping import Float
from torch import Tensor

# What counts as fulfilled, and what keeps parallel rows solvable, as shares of the sizes at hand.
_FULFILLED, _RIDGE = 1e-9, 1e-13


def shortest(
    rows: Float[Tensor, "n k d"], bounds: Float[Tensor, "n k"], inverse: Float[Tensor, "n d d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
    """argmin yᵀBy with A₀·y = b₀ and A_i·y ≤ b_i for i ≥ 1; and the multipliers, B y = −Aᵀν.

    B is positive definite, and given by its inverse. The dual has so few variables that every set of active
    inequalities is tried, each a small linear system; the shortest y that fulfils them all is the answer, and exact.
    Where none does (they contradict each other, or a row is zero) it is the one that misses by least.
    Cost: 2^(k−1) systems of size k for each sample.
    """
    k = rows.shape[1]
    sets = torch.arange(2 ** (k - 1))[:, None].bitwise_right_shift(torch.arange(k - 1)) % 2 == 1
    active = torch.cat((torch.ones(len(sets), 1, dtype=torch.bool), sets), 1).to(rows)  # the equation always is
    images = rows @ inverse
    gram = images @ rows.mT
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(torch.finfo(rows.dtype).tiny)
    diagonal = torch.diag_embed(1 - active) + ridge[:, None, None, None] * torch.eye(k).to(rows)
    systems = gram[:, None] * active[:, :, None] * active[:, None, :] + diagonal
    weights = torch.linalg.solve(systems, bounds[:, None] * active) * active
    against = weights @ gram
    missed = miss(against - bounds[:, None])
    fulfilled = missed <= _FULFILLED * (1 + bounds.abs().sum(1, keepdim=True))
    # Lengths decide among those that fulfil everything, else the miss alone.
    order = torch.where(fulfilled, (against * weights).sum(2), torch.inf)
    order = torch.where(fulfilled.any(1, keepdim=True), order, missed.nan_to_num(torch.inf))
    best = weights[torch.arange(len(rows)), order.argmin(1)]
    return (best[:, None] @ images)[:, 0], -best


def miss(gaps: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """By how much an equation and inequalities are missed in total: |gap₀| + Σ max(0, gap_i)."""
    return gaps[..., 0].abs() + gaps[..., 1:].clamp_min(0).sum(-1)
