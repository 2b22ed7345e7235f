"""What the engine remembers of a tensor that depends on the explained input. It dies with the tensor."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
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
        entry: what goes along with it, if only operations with one input per output lie between it and the explained
            input; else None.
        produced: the linear map that produced it, for a batch norm behind it to be folded into.
    """

    node: Node | None
    gate: bool = False
    nonnegative: bool = False
    entry: "Entry | None" = None
    produced: "Produced | None" = None

    @property
    def at_input(self) -> bool:
        """Whether only operations with one input per output lie between it and the explained input."""
        return self.entry is not None


@dataclass(frozen=True)
class Entry:
    """What goes along with the explained input as far as the first linear map.

    Attributes:
        slot: zeros in the tensor's shape, connected to the explained input's slot as the tensor is to the input: its
            gradient is relevance itself.
        low, high: the lowest and highest valid values, in the tensor's shape; None where an operation has lost them.
        first: whether a linear map that it reaches is a first one; not so where a layer inside the model is explained.
        pixels: whether the domain of the values is bounded and known.
    """

    slot: Tensor
    low: Tensor | None
    high: Tensor | None
    first: bool = True
    pixels: bool = True

    def through(self, monotone: Callable[[Tensor], Tensor] | None, slot: Tensor) -> "Entry":
        """The entry behind an elementwise function, None if it is not monotone, given the slot there."""
        if self.low is None or self.high is None or monotone is None:
            return replace(self, slot=slot, low=None, high=None)
        with torch.no_grad():
            ends = monotone(self.low), monotone(self.high)
        return replace(self, slot=slot, low=torch.minimum(*ends), high=torch.maximum(*ends))


@dataclass(frozen=True)
class Produced:
    """The linear map that produced a tensor: its input, its plain output and where it ran."""

    linear: LinearMap
    x: Tensor
    raw: Tensor
    channel: int


def provenance(value: Any) -> Provenance | None:
    """What is remembered of this tensor, or None if it does not depend on the explained input."""
    return getattr(value, _NAME, None) if isinstance(value, Tensor) else None


def entry_of(value: Any) -> Entry | None:
    """What goes along with this tensor, if it is the explained input or one with one input per output from it."""
    record = provenance(value)
    return None if record is None else record.entry


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
