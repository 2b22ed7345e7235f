"""How alike two maps are."""

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from whybox.core.errors import InputError
from whybox.evaluation.places import among_highest


def rank_correlation(first: Float[Tensor, "n ..."], second: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of two maps of the same places, one value per sample, on the CPU in float64.

    ρ = Pearson's correlation of the ranks, ties sharing their mean rank; channels are summed first, so that maps
    with and without a channel axis compare. A constant map has no order: it agrees with no other (0), and of two
    such nothing can be said (NaN).
    """
    a, b = torch.broadcast_tensors(over_positions(first), over_positions(second))
    ranks = [torch.as_tensor(rankdata(x.detach().cpu().double().reshape(len(x), -1).numpy(), axis=1)) for x in (a, b)]
    x, y = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    correlation = (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where((x == 0).all(1) != (y == 0).all(1), 0.0, correlation)


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
