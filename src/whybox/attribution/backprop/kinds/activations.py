"""Elementwise operations with one input: relevance passes through them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.nodes import Overwriting
from whybox.attribution.backprop.provenance import Provenance, detached, entry_of, provenance
from whybox.attribution.backprop.table import named

_NONNEGATIVE_NAMES = ("sigmoid", "expit", "hardsigmoid", "relu6", "softplus", "exp", "exp2", "abs", "__abs__", "square",
                      "sqrt")  # fmt: skip
_MONOTONE_NAMES = (
    "elu", "selu", "celu", "leaky_relu", "softplus", "softsign", "hardsigmoid", "hardtanh", "relu6", "logsigmoid",
    "sigmoid", "expit", "tanh", "exp", "exp2", "log", "log1p", "sqrt", "clamp", "clip", "clamp_min", "clamp_max", "erf",
    "atan", "arctan", "asinh",
)  # fmt: skip
_OTHER_NAMES = (
    "gelu", "silu", "mish", "rrelu", "prelu", "tanhshrink", "hardswish", "softshrink", "hardshrink", "threshold",
    "abs", "__abs__", "square", "pow", "__pow__", "sin", "cos", "expm1", "sinc", "log2", "log10",
)  # fmt: skip


def _all(names: tuple[str, ...]) -> set[Any]:
    return {function for name in names for function in named(name)}


_NONNEGATIVE, _MONOTONE = _all(_NONNEGATIVE_NAMES), _all(_MONOTONE_NAMES)
_GATES, _POWERS = _all(("sigmoid", "expit", "hardsigmoid")), _all(("pow", "__pow__"))
_SQUASHES = _all(("tanh", "erf"))
_CLAMPS = _all(("clamp", "clip", "clamp_min", "hardtanh"))


@handles("relu")
def relu(engine: Engine, _function: Any, args: Any, kwargs: Any) -> Any:
    """ReLU's own backward is the pass rule."""
    x = args[0] if args else kwargs["input"]
    if x is engine.overwritable and entry_of(x) is None:
        output = Overwriting.apply(x)  # type: ignore[no-untyped-call]
        return engine.signal(output, Provenance(output.grad_fn, nonnegative=True))
    if entry_of(x) is None:
        return engine.native(torch.relu, (x,), {}, nonnegative=True)
    output = engine.passed(lambda: torch.relu(x), x, torch.relu)
    return engine.signal(output, Provenance(output.grad_fn, nonnegative=True, entry=entry_of(output)))


@handles(*dict.fromkeys(_OTHER_NAMES + _MONOTONE_NAMES))
def activation(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Any other elementwise operation: R passes, so c is multiplied by f(x) / x."""
    given = dict(kwargs)
    x, *rest = args if args else (given.pop("input"),)
    if provenance(x) is None:  # a constant to the power of a signal, a threshold that depends on the input
        return engine._without_rule(function, args, kwargs)
    rest = list(map(detached, rest))
    given = {name: detached(part) for name, part in given.items()}
    exponent = (rest[0] if rest else given.get("exponent")) if function in _POWERS else None
    if isinstance(exponent, (int, float)) and exponent < 0:
        return function(x.detach(), *rest, **given)  # a denominator: a constant

    def run(x: Tensor) -> Tensor:
        value: Tensor = function(x, *rest, **given)
        return value

    entry = None
    if entry_of(x) is not None:
        output = engine.passed(lambda: run(x), x, run if function in _MONOTONE else None)
        entry = entry_of(output)
    else:
        output = engine.surrogate(lambda: run(x), _secant(run), x)
    nonnegative = _nonnegative(function, x, exponent, rest, given)
    record = Provenance(output.grad_fn, function in _GATES, nonnegative, entry, squashed=function in _SQUASHES)
    return engine.signal(output, record)


def _nonnegative(function: Any, x: Tensor, exponent: Any, rest: list[Any], given: dict[str, Any]) -> bool:
    """Whether none of the function's values is below zero."""
    record = provenance(x)
    already = record is not None and record.nonnegative
    if function in _NONNEGATIVE:
        return True
    if function in _POWERS:
        return (isinstance(exponent, (int, float)) and exponent % 2 == 0) or (
            already and not isinstance(exponent, Tensor)
        )
    if function in _CLAMPS:
        lowest = rest[0] if rest else given.get("min", given.get("min_val"))
        highest = rest[1] if len(rest) > 1 else given.get("max", given.get("max_val"))
        return (
            isinstance(lowest, (int, float)) and lowest >= 0 and (not isinstance(highest, (int, float)) or highest >= 0)
        )
    return False


def slope(function: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """That of the line from the origin, f(a) / a; at zero that of the tangent where f(0) = 0, else 0."""
    value, zero = function(a), a == 0
    found = value / torch.where(zero, 1, a)
    if bool(zero.any()):
        tiny = torch.full_like(a, 1e-4)
        found = torch.where(zero, torch.where(value == 0, function(tiny) / tiny, 0), found)
    return found


def _secant(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """x times the slope of the line from the origin, which counts as a constant."""

    def stand_in(x: Tensor) -> Tensor:
        with torch.no_grad():
            constant = slope(function, x.detach())
        return x * constant

    return stand_in


@handles("softmax", "_safe_softmax")
def softmax(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """R_i = x_i (R_i′ − s_i Σ_j R_j′), the Taylor rule of AttnLRP (Achtibat et al. 2024): in c autograd's own."""
    return engine.native(function, args, kwargs, gate=True, nonnegative=True)


@handles("log_softmax", "logsumexp")
def logarithm_of_softmax(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The same rule for the logarithm: first-order Taylor."""
    return engine.native(function, args, kwargs)


@handles("rsqrt", "std", "var", "norm", "vector_norm", "reciprocal")
def constant(_engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """What is made to be divided by counts as a constant."""
    return function(*map(detached, args), **{name: detached(value) for name, value in kwargs.items()})


@handles("var_mean", "std_mean")
def spread_and_mean(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The spread counts as a constant, the mean is a linear map."""
    spread, mean = engine.native(function, args, kwargs)
    return spread.detach(), mean
