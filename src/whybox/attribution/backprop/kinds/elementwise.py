"""Sums and products of tensors."""

from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.kinds.products import halved
from whybox.attribution.backprop.provenance import Provenance, detached, entry_of, provenance
from whybox.attribution.backprop.refusal import circumstance

_MINUS = {
    torch.sub, torch.subtract, torch.rsub, Tensor.sub, Tensor.subtract, Tensor.__sub__, Tensor.__rsub__,
    torch.neg, torch.negative, Tensor.neg, Tensor.negative, Tensor.__neg__,
}  # fmt: skip


@handles("add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "subtract", "rsub", "neg", "negative", "__neg__")
def addition(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Branches share in proportion to their parts, as autograd does; a constant part's share is absorbed."""
    parts = [*args[:2], *(kwargs[name] for name in ("input", "other") if name in kwargs)]
    signals = [x for x in parts if provenance(x) is not None]
    if len(signals) == 1 and entry_of(signals[0]) is not None:
        return _at_input(engine, function, args, kwargs)
    gate = len(signals) == 1 and (is_gate(signals[0]) or _opens(parts))  # 1 − z of a gate z is one too
    positive = function not in _MINUS and not kwargs.get("alpha", 1) < 0 and len(args) < 3
    engine.made = engine.native(
        function, args, kwargs, gate=gate, nonnegative=positive and all(map(_nonnegative, parts))
    )
    return engine.made


def _opens(parts: list[Any]) -> bool:
    """Whether this is 1 ± tanh or 1 ± erf: twice a sigmoid, twice a normal distribution."""
    records = [record for x in parts if (record := provenance(x)) is not None]
    return records[0].squashed and any(not isinstance(x, Tensor) and x == 1 for x in parts)


@handles("index_add", "scatter_add")
def addition_at_places(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Parts added up where an index says, in proportion as in any sum."""
    return engine.native(function, args, kwargs)


@handles("mul", "__mul__", "__rmul__", "multiply")
def product(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """By a constant: relevance passes. By a gate: the signal takes all. Of two signals: half and half."""
    a, b, kwargs = two(args, kwargs)
    signals = [x for x in (a, b) if provenance(x) is not None]
    nonnegative = _nonnegative(a) and _nonnegative(b)
    if len(signals) == 2:
        if is_gate(a) == is_gate(b):
            return halved(engine, engine.native(function, (a, b), kwargs), nonnegative)
        gated = (a.detach(), b) if is_gate(a) else (a, b.detach())
        return engine.native(function, gated, kwargs, nonnegative=nonnegative)
    if entry_of(signals[0]) is not None:
        return _at_input(engine, function, (a, b), kwargs)
    return engine.native(function, (a, b), kwargs, gate=is_gate(signals[0]), nonnegative=nonnegative)


@handles("glu")
def gated_linear_unit(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The first half of the channels times the sigmoid of the second, a gate: the first half takes all."""
    given = {"dim": -1, **dict(zip(("input", "dim"), args, strict=False)), **kwargs}
    x, dim = given["input"], given["dim"]

    def stand_in(x: Tensor) -> Tensor:
        signal, gate = x.chunk(2, dim)
        return signal * gate.detach().sigmoid()

    output = engine.surrogate(lambda: function(x, dim), stand_in, x)
    return engine.signal(output, Provenance(output.grad_fn))


@handles("div", "__truediv__", "__rtruediv__", "divide", "true_divide", "__rdiv__", "__div__")
def quotient(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The denominator counts as a constant."""
    if function in (Tensor.__rtruediv__, Tensor.__rdiv__):
        below, above = args
        if provenance(above) is None:
            return function(below.detach(), above)
        return quotient(engine, torch.div, (above, below), {})
    a, b, kwargs = two(args, kwargs)
    if kwargs.get("rounding_mode") is not None:
        raise circumstance("a division that rounds", engine.where, "it has no derivative")
    below = detached(b)
    if provenance(a) is None:
        return function(a, below, **kwargs)
    if entry_of(a) is not None:
        return _at_input(engine, function, (a, below), kwargs)
    nonnegative = _nonnegative(a) and (_nonnegative(b) if provenance(b) is not None else _nonnegative(below))
    return engine.native(function, (a, below), kwargs, gate=is_gate(a), nonnegative=nonnegative)


@handles("addcmul", "addcdiv")
def multiplied_and_added(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """x + value · a · b or x + value · a / b: a sum with a part that is scaled by a constant."""
    names = ("input", "tensor1", "tensor2")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x, a, b = (given.pop(name) for name in names)
    if function in (torch.addcdiv, Tensor.addcdiv):
        b = b.detach()
    if provenance(a) is not None and provenance(b) is not None:
        if is_gate(a) == is_gate(b):
            raise circumstance("addcmul of two parts that depend on the input", engine.where, "write x + a * b")
        a, b = (a.detach(), b) if is_gate(a) else (a, b.detach())
    return engine.native(function, (x, a, b), given)


def two(args: Any, kwargs: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Both operands, by position or by name, and the other keywords."""
    rest = {name: value for name, value in kwargs.items() if name not in ("input", "other")}
    a, *more = args if args else (kwargs["input"],)
    return a, more[0] if more else kwargs["other"], rest


def is_gate(x: Any) -> bool:
    """Whether the tensor decides, as a factor, but gets no relevance."""
    record = provenance(x)
    return record is not None and record.gate


def _nonnegative(x: Any) -> bool:
    """Whether it is sure that none of these values is below zero; constant tensors are not searched."""
    record = provenance(x)
    return record.nonnegative if record is not None else not isinstance(x, Tensor) and x >= 0


def _at_input(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The model's own rescaling of its input by constants: a map with one input per output."""
    (x,) = (x for x in (*args, *kwargs.values()) if provenance(x) is not None)

    def run(value: Tensor) -> Tensor:
        named = {name: value if part is x else detached(part) for name, part in kwargs.items()}
        result: Tensor = function(*(value if part is x else detached(part) for part in args), **named)
        return result

    record = provenance(x)
    assert record is not None
    assert record.entry is not None
    if engine.rule("scale", record).kind == "pass":
        return engine.passed(lambda: run(x), x, run)
    output = engine.native(function, args, kwargs, gate=record.gate)
    with torch.no_grad():
        y = output.detach()
        # what of y is due to x, not to a constant added to it
        part = run(x.detach()) - run(torch.zeros_like(x))
        share = torch.where(y == 0, 0, part / torch.where(y == 0, 1, y))
    entry = engine.diluted(record.entry, run, share)
    return engine.signal(output, Provenance(output.grad_fn, gate=record.gate, entry=entry))
