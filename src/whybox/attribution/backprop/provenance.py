"""What the engine remembers of a tensor that depends on the explained input. It dies with the tensor."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.graph import Node
from whybox.attribution.backprop.rules import Rule
from whybox.attribution.backprop.sharing import LinearMap

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
        private: its memory has been made for writing into it, and no operation has read it since.
        squashed: it came out of tanh or erf: one plus it is a gate, as in a GELU spelled out.
    """

    node: Node
    gate: bool = False
    nonnegative: bool = False
    entry: "Entry | None" = None
    produced: "Produced | None" = None
    private: bool = False
    squashed: bool = False

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
    """The linear map that produced a tensor.

    Attributes:
        linear: the map.
        x: its input.
        node: the autograd node of the input when the map ran; since then the model may have worked on it in place.
        raw: its plain output, where this is not the tensor itself.
        channel: the axis of its output channels.
        rule: the rule that it was given.
    """

    linear: LinearMap
    x: Tensor
    node: Node
    raw: Tensor | None
    channel: int
    rule: Rule

    @property
    def current(self) -> bool:
        """Whether the map's input still is what it was."""
        return self.x.grad_fn is self.node


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


def forget(tensor: Tensor) -> None:
    """Remove the record."""
    tensor.__dict__.pop(_NAME, None)


def detached(value: Any) -> Any:
    """The same value as a constant; what is no tensor as it is."""
    return value.detach() if isinstance(value, Tensor) else value


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)


def mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same structure with every tensor replaced by `function(tensor)`."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [mapped(part, function) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list):
        return [mapped(part, function) for part in value]
    return {key: mapped(part, function) for key, part in value.items()} if isinstance(value, dict) else value


def facts(args: Any, kwargs: Any) -> dict[str, bool]:
    """What is true of all that goes into an operation, and so of what it picks or averages from that.

    A constant tensor may be negative, for all that is known, and is no gate.
    """
    nonnegative = gate = True
    for x in tensors((args, kwargs)):
        record = provenance(x)
        if record is not None:
            nonnegative, gate = nonnegative and record.nonnegative, gate and record.gate
        elif x.is_floating_point():
            nonnegative = gate = False
        if not (nonnegative or gate):
            break
    return {"gate": gate, "nonnegative": nonnegative}
