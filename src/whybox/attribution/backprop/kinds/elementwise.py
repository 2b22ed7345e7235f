"""Sums and products of tensors."""

from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.kinds.activations import is_gate
from whybox.attribution.backprop.kinds.linear import halved
from whybox.attribution.backprop.provenance import provenance

T = Tensor
_PLAIN = {T.add_: torch.add, T.__iadd__: torch.add, T.sub_: torch.sub, T.__isub__: torch.sub, T.mul_: torch.mul,
          T.__imul__: torch.mul, T.div_: torch.div, T.__itruediv__: torch.div, T.__rsub__: torch.rsub}  # fmt: skip
_INPLACE = {T.add_, T.__iadd__, T.sub_, T.__isub__, T.mul_, T.__imul__, T.div_, T.__itruediv__}


@handles(
    torch.add, T.add, T.__add__, T.__radd__, T.add_, T.__iadd__, torch.sub, T.sub, T.__sub__, T.__rsub__, T.sub_,
    T.__isub__, torch.neg, T.neg, T.__neg__, torch.rsub, torch.subtract,
)  # fmt: skip
def addition(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Branches share in proportion to their parts, as autograd does; a constant part's share is absorbed."""
    records = [record for x in args if (record := provenance(x)) is not None]
    alone = len(records) == 1
    both = len(records) == len(args) and function not in (torch.sub, T.sub, T.__sub__, T.sub_, T.__isub__, T.neg, torch.neg, T.__neg__)
    output = engine.native(
        _PLAIN.get(function, function), args, kwargs,
        nonnegative=both and all(record.nonnegative for record in records),
        at_input=alone and records[0].at_input,
    )  # fmt: skip
    return engine.replace(args[0], output) if function in _INPLACE else output


@handles(torch.mul, T.mul, T.__mul__, T.__rmul__, T.mul_, T.__imul__, torch.multiply)
def product(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """By a constant: relevance passes. By a gate: the signal takes all. Of two signals: half and half."""
    a, b = args[:2]
    signals = [x for x in (a, b) if provenance(x) is not None]
    plain = _PLAIN.get(function, function)
    if len(signals) == 2 and is_gate(a) != is_gate(b):
        output = engine.native(plain, (a.detach(), b) if is_gate(a) else (a, b.detach()), kwargs)
    elif len(signals) == 2:
        output = halved(engine, engine.native(plain, (a, b), kwargs))
    else:
        record = provenance(signals[0])
        assert record is not None
        output = engine.native(plain, (a, b), kwargs, gate=record.gate, at_input=record.at_input)
    return engine.replace(a, output) if function in _INPLACE else output


@handles(torch.div, T.div, T.__truediv__, T.div_, T.__itruediv__, torch.true_divide, T.__rtruediv__)
def quotient(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The denominator counts as a constant."""
    a, b = args[:2]
    if function is T.__rtruediv__:
        return function(a.detach(), b)
    record = provenance(a)
    plain = _PLAIN.get(function, function)
    if record is None:
        return plain(a, b.detach(), **kwargs)
    below = b.detach() if isinstance(b, Tensor) else b
    output = engine.native(plain, (a, below), kwargs, gate=record.gate, at_input=record.at_input)
    return engine.replace(a, output) if function in _INPLACE else output
