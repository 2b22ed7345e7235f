"""What the engine remembers of a tensor that depends on the explained input. It dies with the tensor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from whybox.attribution.backprop.rules import LinearMap

_NAME = "_whybox_provenance"


@dataclass(frozen=True)
class Provenance:
    """How a tensor came about.

    Attributes:
        node: the autograd node that made it; another one means that something unseen has happened to the tensor.
        gate: it came out of a sigmoid, hard sigmoid or softmax: as a factor it decides, but gets no relevance.
        nonnegative: none of its values is below zero.
        at_input: only operations with one input per output lie between it and the explained input.
        produced: the linear map that produced it, for a batch norm behind it to be folded into.
    """

    node: Node | None
    gate: bool = False
    nonnegative: bool = False
    at_input: bool = False
    produced: "Produced | None" = None


@dataclass(frozen=True)
class Produced:
    """The linear map that produced a tensor: its input, its plain output and where it ran."""

    linear: LinearMap
    x: Tensor
    raw: Tensor
    channel: int
    transposed: bool


def provenance(value: Any) -> Provenance | None:
    """What is remembered of this tensor, or None if it does not depend on the explained input."""
    return getattr(value, _NAME, None) if isinstance(value, Tensor) else None


def remember(tensor: Tensor, record: Provenance) -> Tensor:
    """Attach the record to the tensor."""
    setattr(tensor, _NAME, record)
    return tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def mapped(value: Any, function: Any) -> Any:
    """The same structure with every tensor replaced by `function(tensor)`."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(part, function) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(part, function) for part in value)
    return {key: mapped(part, function) for key, part in value.items()} if isinstance(value, dict) else value
