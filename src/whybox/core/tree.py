"""Inputs are a tensor, or a tuple of tensors for models with several; these few functions treat both alike."""

from collections.abc import Callable

from torch import Tensor

Inputs = Tensor | tuple[Tensor, ...]


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """The inputs as a tuple, of one where there is a single tensor."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def like(inputs: Inputs, parts: tuple[Tensor, ...]) -> Inputs:
    """`parts` in the form of `inputs`: a tuple for a tuple, the single tensor for a tensor."""
    return parts if isinstance(inputs, tuple) else parts[0]


def each(function: Callable[..., Tensor], first: Inputs, *others: Inputs) -> Inputs:
    """Apply a function of tensors to every part of the inputs, side by side with the same part of the others."""
    parts = tuple(function(*row) for row in zip(as_tuple(first), *map(as_tuple, others), strict=True))
    return like(first, parts)
