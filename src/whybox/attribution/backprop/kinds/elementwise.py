"""Sums and products of tensors."""

from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.kinds.activations import is_gate
from whybox.attribution.backprop.kinds.linear import halved
from whybox.attribution.backprop.provenance import Provenance, entry_of, provenance

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
    if len(records) == 1 and records[0].at_input:
        return _at_input(engine, _PLAIN.get(function, function), function in _INPLACE, args, kwargs)
    both = len(records) == len(args) and function not in (torch.sub, T.sub, T.__sub__, T.sub_, T.__isub__, T.neg, torch.neg, T.__neg__)
    output = engine.native(
        _PLAIN.get(function, function), args, kwargs,
        nonnegative=both and all(record.nonnegative for record in records),
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
    elif entry_of(signals[0]) is not None:
        return _at_input(engine, plain, function in _INPLACE, args, kwargs)
    else:
        record = provenance(signals[0])
        assert record is not None
        output = engine.native(plain, (a, b), kwargs, gate=record.gate)
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
    if record.at_input:
        return _at_input(engine, plain, function in _INPLACE, (a, below), kwargs)
    output = engine.native(plain, (a, below), kwargs, gate=record.gate)
    return engine.replace(a, output) if function in _INPLACE else output


def _at_input(engine: Engine, function: Any, inplace: bool, args: Any, kwargs: Any) -> Any:
    """The model's own rescaling of its input by constants: a map with one input per output."""
    (x,) = (x for x in args if provenance(x) is not None)

    def run(value: Tensor) -> Tensor:
        result: Tensor = function(*(value if part is x else _constant(part) for part in args), **kwargs)
        return result

    record = provenance(x)
    assert record is not None
    assert record.entry is not None
    if engine.rule("scale", record).kind == "pass":
        output = engine.passed(lambda: run(x), x, run)
    else:
        output = engine.native(function, args, kwargs, gate=record.gate)
        with torch.no_grad():
            y = output.detach()
            # what of y is due to x, not to a constant added to it
            part = run(x.detach()) - run(torch.zeros_like(x))
            share = torch.where(y == 0, 0, part / torch.where(y == 0, 1, y))
        entry = record.entry.through(run, record.entry.slot * share)
        engine.signal(output, Provenance(output.grad_fn, gate=record.gate, entry=entry))
    return engine.replace(args[0], output) if inplace else output


def _constant(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x
