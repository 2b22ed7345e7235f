"""How alike two maps, or two rows of numbers, are."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from whybox.core.errors import InputError
from whybox.evaluation.places import among_highest

Similarity = Literal["spearman", "pearson"]

# Numbers that differ by less than this share of the largest differ by rounding.
ROUNDING = 1e-12


def correlation(
    first: Float[Tensor, "n k"],
    second: Float[Tensor, "n k"],
    kind: Similarity = "spearman",
    present: Bool[Tensor, "n k"] | None = None,
) -> Float[Tensor, " n"]:
    """The correlation of each row with the same row of the other, over the places that are `present`.

    Pearson's is r = Σ (a − ā)(b − b̄) / √(Σ (a − ā)² Σ (b − b̄)²), Spearman's that of the ranks, ties sharing their mean
    rank. NaN where either row is constant, but for rounding, or not finite.
    """
    return (direction(first, kind, present) * direction(second, kind, present)).sum(1)


def direction(
    values: Float[Tensor, "n k"], kind: Similarity = "spearman", present: Bool[Tensor, "n k"] | None = None
) -> Float[Tensor, "n k"]:
    """(a − ā) / ‖a − ā‖ of each row of values, or of their ranks: two rows' correlation is the product of theirs.

    Only places that are present count, the others are 0. NaN where a row is constant, but for rounding.
    """
    counted = torch.ones_like(values, dtype=torch.bool) if present is None else present
    undefined = constant(values, counted)
    if kind == "spearman":  # what is not counted comes last, and so changes no other rank
        values = torch.as_tensor(rankdata(values.where(counted, torch.inf).numpy(), axis=1))
    centred = torch.where(undefined[:, None], torch.nan, _centred(values, counted))
    scaled = centred / centred.abs().amax(1, keepdim=True)  # so that no square is too large or too small
    return scaled / scaled.square().sum(1, keepdim=True).sqrt()


def constant(rows: Float[Tensor, "n k"], present: Bool[Tensor, "n k"] | None = None) -> Bool[Tensor, " n"]:
    """Whether all the numbers of a row (that are present) are the same, but for rounding."""
    counted = torch.ones_like(rows, dtype=torch.bool) if present is None else present
    spread = _centred(rows, counted).abs().amax(1)
    return spread <= ROUNDING * rows.where(counted, 0.0).abs().amax(1)


def _centred(rows: Tensor, counted: Tensor) -> Tensor:
    """The rows less their means, zero where not counted."""
    mean = rows.where(counted, 0.0).sum(1, keepdim=True) / counted.sum(1, keepdim=True)
    return (rows - mean).where(counted, 0.0)


def rank_correlation(first: Float[Tensor, "n ..."], second: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of two maps of the same places, one value per sample, on the CPU in float64.

    ρ = Pearson's correlation of the ranks, ties sharing their mean rank; channels are summed first, so that maps
    with and without a channel axis compare. A constant map has no order: it agrees with no other (0), and of two
    such nothing can be said (NaN).
    """
    x, y = _side_by_side(first, second)
    return torch.where(constant(x) != constant(y), 0.0, correlation(x, y))


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
    a, b = _side_by_side(first, second)
    count = torch.full((len(a),), max(round(share * a.shape[1]), 1))
    return (among_highest(a, count) * among_highest(b, count)).sum(1) / count


def as_rows(values: Float[Tensor, "n ..."]) -> Float[Tensor, "n values"]:
    """The values of each sample in a row, float64 on the CPU."""
    return values.detach().cpu().double().reshape(len(values), -1)


def _side_by_side(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps of the same places as rows, summed over the channels."""
    a, b = torch.broadcast_tensors(over_positions(first), over_positions(second))
    return as_rows(a), as_rows(b)


def over_positions(relevance: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """One value per position: the sum over the channels (axis 1) where there are positions (axes 2 and on)."""
    return relevance.sum(1, keepdim=True) if relevance.ndim > 2 else relevance
