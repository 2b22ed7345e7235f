"""How alike two maps, or two rows of numbers, are."""

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from whybox.core.errors import InputError
from whybox.evaluation.places import among_highest

# Numbers that differ by less than this share of the largest differ by rounding.
ROUNDING = 1e-12


def pearson(
    first: Float[Tensor, "n k"], second: Float[Tensor, "n k"], present: Bool[Tensor, "n k"] | None = None
) -> Float[Tensor, " n"]:
    """Pearson's correlation of each row with the same row of the other, over the places that are `present`.

    NaN where one of the two is constant, but for rounding.
    """
    present = torch.ones_like(first, dtype=torch.bool) if present is None else present
    x, y = (_centred(row, present) for row in (first, second))
    correlation = (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(constant(first, present) | constant(second, present), torch.nan, correlation)


def spearman(
    first: Float[Tensor, "n k"], second: Float[Tensor, "n k"], present: Bool[Tensor, "n k"] | None = None
) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of each row with the same row of the other: Pearson's of the ranks.

    Ties share their mean rank. NaN where one of the two is constant, but for rounding.
    """
    present = torch.ones_like(first, dtype=torch.bool) if present is None else present
    undefined = constant(first, present) | constant(second, present)
    # What is absent ranks last, behind all that counts.
    a, b = (torch.as_tensor(rankdata(x.where(present, torch.inf).numpy(), axis=1)) for x in (first, second))
    return torch.where(undefined, torch.nan, pearson(a, b, present))


def constant(rows: Float[Tensor, "n k"], present: Bool[Tensor, "n k"] | None = None) -> Bool[Tensor, " n"]:
    """Whether all the numbers of a row (that are present) are the same, but for rounding."""
    present = torch.ones_like(rows, dtype=torch.bool) if present is None else present
    spread = _centred(rows, present).abs().amax(1)
    return spread <= ROUNDING * rows.where(present, 0.0).abs().amax(1)


def rank_correlation(first: Float[Tensor, "n ..."], second: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of two maps of the same places, one value per sample, on the CPU in float64.

    ρ = Pearson's correlation of the ranks, ties sharing their mean rank; channels are summed first, so that maps
    with and without a channel axis compare. A constant map has no order: it agrees with no other (0), and of two
    such nothing can be said (NaN).
    """
    maps = torch.broadcast_tensors(over_positions(first), over_positions(second))
    x, y = (part.detach().cpu().double().reshape(len(part), -1) for part in maps)
    return torch.where(constant(x) != constant(y), 0.0, spearman(x, y))


def top_overlap(
    first: Float[Tensor, "n ..."], second: Float[Tensor, "n ..."], share: float = 0.1
) -> Float[Tensor, " n"]:
    """|A ∩ B| / k, A and B the k highest places of two maps of the same places; one value per sample, float64.

    k is that share of the places, at least one. Of places that tie for the last rank each counts in part, as if the
    tie were broken at random in each map by itself. Maps that have nothing to do with each other, and those of which
    one is constant, overlap by k of all places. Channels are summed first, as in `rank_correlation`.
    """
    if not 0 < share <= 1:
        raise InputError(f"the share of the places that count is above 0 and at most 1, not {share}")
    a, b = (
        x.detach().cpu().double().reshape(len(x), -1)
        for x in torch.broadcast_tensors(over_positions(first), over_positions(second))
    )
    count = torch.full((len(a),), max(round(share * a.shape[1]), 1))
    return (among_highest(a, count) * among_highest(b, count)).sum(1) / count


def over_positions(relevance: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """One value per position: the sum over the channels (axis 1) where there are positions (axes 2 and on)."""
    return relevance.sum(1, keepdim=True) if relevance.ndim > 2 else relevance


def _centred(rows: Tensor, present: Tensor) -> Tensor:
    """The rows less their means, zero where absent."""
    mean = rows.where(present, 0.0).sum(1, keepdim=True) / present.sum(1, keepdim=True)
    return (rows - mean).where(present, 0.0)
