"""Shape and index operations: autograd's own backward is right. Questions carry no relevance."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.provenance import Entry, entry_of, facts, mapped, provenance, remember, tensors
from whybox.attribution.backprop.table import getter

T = Tensor


def rearranged(engine: Engine, function: Any, args: Any, kwargs: Any, filled: Any = None) -> Any:
    """Each output is one of the inputs, or the constant `filled`."""
    known = facts(args, kwargs)
    if filled is not None and not (isinstance(filled, (int, float)) and filled >= 0):
        known["nonnegative"] = False
    output = engine.native(function, args, kwargs, **known)
    _entries(engine, function, args, kwargs, output)
    return output


def _entries(engine: Engine, function: Any, args: Any, kwargs: Any, output: Any) -> None:
    """Take the explained input's slot and bounds through the same operation, so that they stay beside it."""
    signals = [x for x in tensors((args, kwargs)) if provenance(x) is not None]
    entries = [entry for x in signals if (entry := entry_of(x)) is not None]
    if len(entries) < len(signals):
        return

    def beside(of: Callable[[Entry], Any], constant: Callable[[Tensor], Tensor]) -> list[Any]:
        def put(x: Tensor) -> Any:
            entry = entry_of(x)
            return constant(x) if entry is None else of(entry)

        return list(tensors(function(*mapped(args, put), **mapped(kwargs, put))))

    slots = beside(lambda entry: entry.slot, _zero)
    known = all(entry.low is not None and entry.high is not None for entry in entries)
    lows = beside(lambda entry: entry.low, Tensor.detach) if known else [None] * len(slots)
    highs = beside(lambda entry: entry.high, Tensor.detach) if known else [None] * len(slots)
    for i, (x, slot, low, high) in enumerate(zip(tensors(output), slots, lows, highs, strict=True)):
        record = provenance(x)
        if record is not None and record.entry is None:
            remember(x, replace(record, entry=replace(entries[0], slot=slot, low=low, high=high)))
            engine.filled(slot, partial(_own, beside, i))


def _own(beside: Callable[..., list[Any]], i: int) -> Tensor:
    """One where an output holds values of the explained input, zero where it holds constants."""
    ones = beside(lambda entry: torch.ones_like(entry.slot), _zero)
    zeros = beside(lambda entry: torch.zeros_like(entry.slot), _zero)
    own: Tensor = ones[i] - zeros[i]
    return own


def _zero(x: Tensor) -> Tensor:
    """A constant that goes into an operation beside the explained input has no slot; indices and masks stay."""
    return torch.zeros_like(x) if x.is_floating_point() else x


@handles(
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", getter("T"), getter("mT"), getter("real"),
    "contiguous", "clone", "squeeze", "unsqueeze", "expand", "expand_as", "view_as", "reshape_as", "chunk", "split",
    "split_with_sizes", "tensor_split", "hsplit", "vsplit", "dsplit", "unbind", "select", "narrow", "__getitem__",
    "index_select", "gather", "take_along_dim", "masked_select", "flip", "fliplr", "flipud", "rot90", "roll", "movedim",
    "moveaxis", "swapaxes", "swapdims", "repeat", "repeat_interleave", "cat", "concat", "concatenate", "stack",
    "hstack", "vstack", "dstack", "column_stack", "tile", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "native_channel_shuffle", "to", "float", "double", "type_as", "cpu", "cuda", "unfold", "tril", "triu", "diagonal",
    "diag", "broadcast_to", "atleast_1d", "atleast_2d", "atleast_3d", "adjoint", "ravel", "as_strided", "alias_copy",
    "broadcast_tensors", "meshgrid", "block_diag",
)  # fmt: skip
def rearrangement(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """As autograd does."""
    return rearranged(engine, function, args, kwargs)


@handles("pad", "constant_pad_nd")
def pad(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """A border of constants, or of copies."""
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    value = kwargs.get("value", args[3] if len(args) > 3 else None)
    if isinstance(mode, (int, float)):  # torch.constant_pad_nd(x, pad, value)
        value = mode
    return rearranged(engine, function, args, kwargs, filled=0 if value is None else value)


@handles("where", "masked_fill", "index_fill")
def selection(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The tensor's own value, or another tensor's, or a constant."""
    values = (*args[1:], *(kwargs[name] for name in ("other", "value") if name in kwargs))
    numbers = [x for x in values if isinstance(x, (int, float)) and not isinstance(x, bool)]
    filled = numbers[:-1] if function in (torch.index_fill, T.index_fill) and len(numbers) > 1 else numbers
    return rearranged(engine, function, args, kwargs, filled=min(numbers) if filled else None)


_QUESTIONS = (
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like", "new_zeros",
    "new_ones", "new_empty", "new_full", "new_tensor", "bernoulli", "multinomial", "requires_grad_", "retain_grad",
)  # fmt: skip


@handles(*_QUESTIONS)
def question(_engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """New tensors shaped like it carry no relevance; what gives no numbers at all needs no place in the table."""
    return function(*args, **kwargs)
