"""Places: a map as one number a place, which part of it counts, and which places are its highest."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.tree import Inputs, as_tuple

Part = Literal["positive", "negative", "absolute", "signed"]


def by_place(relevance: Tensor, inputs: Tensor) -> Tensor:
    """The relevance of each place, float64 (n, *places) on the CPU: summed over the channels of inputs that have some.

    The places are the axes behind the channels: the pixels of pictures (n, c, h, w), the steps of series (n, c, t);
    in tables (n, d) and rows of tokens (n, t) every column is one.
    """
    values = relevance.detach().cpu().double()
    if inputs.ndim > 2:
        return values.sum(1).expand(len(inputs), *inputs.shape[2:])
    return values.expand(inputs.shape)


def all_places(relevance: Inputs, inputs: Inputs) -> Float[Tensor, "n p"]:
    """The relevance of the places of all inputs, side by side."""
    parts = zip(as_tuple(relevance), as_tuple(inputs), strict=True)
    return torch.cat([by_place(r, x).reshape(len(x), -1) for r, x in parts], 1)


def part_of(values: Tensor, part: Part) -> Tensor:
    """What counts of signed values: those above zero, those below (as positive numbers), their size, or as they are."""
    if part == "positive":
        return values.clamp_min(0)
    if part == "negative":
        return (-values).clamp_min(0)
    if part == "absolute":
        return values.abs()
    if part == "signed":
        return values
    raise InputError(f"the part that counts is 'positive', 'negative', 'absolute' or 'signed', not {part!r}")


def share_inside(values: Float[Tensor, "n ..."], inside: Bool[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """The sum over the places inside as a share of the sum over all."""
    return (values * inside).flatten(1).sum(1) / values.flatten(1).sum(1)


def among_highest(values: Float[Tensor, "n p"], count: Tensor) -> Float[Tensor, "n p"]:
    """How likely each place is among a sample's `count` (n,) highest, where ties are broken at random.

    1 above the value of the last one, 0 below it, and in between what is left, shared among the ties. So what is
    counted over the highest places is an expectation, and does not depend on the order in which they are stored.
    """
    last = values.sort(1, descending=True).values.gather(1, (count - 1).clamp_min(0)[:, None])
    above, tied = values > last, values == last
    left = (count - above.sum(1)).double() / tied.sum(1).clamp_min(1)
    return above + tied * left[:, None]
