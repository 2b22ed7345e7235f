"""How alike two maps are."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from whybox.core.tree import Inputs, as_tuple

Similarity = Literal["spearman", "pearson"]


def rank_correlation(first: Float[Tensor, "n ..."], second: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of two maps of the same places, one value per sample, on the CPU in float64.

    ρ = Pearson's correlation of the ranks, ties sharing their mean rank; channels are summed first, so that maps
    with and without a channel axis compare. A constant map has no order: it agrees with no other (0), and of two
    such nothing can be said (NaN).
    """
    a, b = torch.broadcast_tensors(over_positions(first), over_positions(second))
    x, y = (as_rows(part) for part in (a, b))
    alone = (x == x[:, :1]).all(1) != (y == y[:, :1]).all(1)
    return torch.where(alone, 0.0, correlation(x, y))


def correlation(
    first: Float[Tensor, "n places"], second: Float[Tensor, "n places"], kind: Similarity = "spearman"
) -> Float[Tensor, " n"]:
    """The correlation of two rows of values, or of their ranks: ρ = Σ (a − ā)(b − b̄) / √(Σ (a − ā)² Σ (b − b̄)²).

    NaN where either row is the same everywhere, or not finite.
    """
    return (direction(first, kind) * direction(second, kind)).sum(1)


def direction(
    values: Float[Tensor, "n places"], kind: Similarity = "spearman", where: Bool[Tensor, "n places"] | None = None
) -> Float[Tensor, "n places"]:
    """(a − ā) / ‖a − ā‖ of each row of values, or of their ranks: what is left is two rows' correlation, their product.

    Only places asked for count, the others are 0; ties share their mean rank. NaN where a row is the same everywhere.
    """
    counted = torch.ones_like(values, dtype=torch.bool) if where is None else where
    if kind == "spearman":  # what is not counted comes last, and so changes no other rank
        values = torch.as_tensor(rankdata(values.where(counted, torch.inf).numpy(), axis=1))
    low, high = values.where(counted, torch.inf).amin(1), values.where(counted, -torch.inf).amax(1)
    mean = values.where(counted, 0.0).sum(1) / counted.sum(1)
    # Rounding in the mean must not give a constant row a direction.
    centred = torch.where((low < high)[:, None], (values - mean[:, None]).where(counted, 0.0), torch.nan)
    scaled = centred / centred.abs().amax(1, keepdim=True)  # so that no square is too large or too small
    return scaled / scaled.square().sum(1, keepdim=True).sqrt()


def by_place(relevance: Inputs, inputs: Inputs) -> Float[Tensor, "n places"]:
    """One value per position of all the inputs, float64 on the CPU: the channels summed, the parts side by side."""

    def row(part: Tensor, x: Tensor) -> Tensor:
        shape = (len(x), 1, *x.shape[2:]) if x.ndim > 2 else x.shape
        return as_rows(over_positions(part).expand(shape))

    return torch.cat([row(r, x) for r, x in zip(as_tuple(relevance), as_tuple(inputs), strict=True)], 1)


def over_positions(relevance: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """One value per position: the sum over the channels (axis 1) where there are positions (axes 2 and on)."""
    return relevance.sum(1, keepdim=True) if relevance.ndim > 2 else relevance


def as_rows(values: Float[Tensor, "n ..."]) -> Float[Tensor, "n values"]:
    """The values of each sample in a row, float64 on the CPU."""
    return values.detach().cpu().double().reshape(len(values), -1)
