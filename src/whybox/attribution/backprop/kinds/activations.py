"""Elementwise operations with one input: relevance passes through them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.nodes import Backward, Surrogate
from whybox.attribution.backprop.provenance import Provenance, entry_of, provenance

T = Tensor
_INPLACE = {
    torch.relu_: torch.relu, T.relu_: torch.relu, T.sigmoid_: torch.sigmoid, T.tanh_: torch.tanh,
    F.hardtanh_: F.hardtanh, F.elu_: F.elu, F.leaky_relu_: F.leaky_relu, T.clamp_: torch.clamp, T.clamp_min_: torch.clamp_min,
}  # fmt: skip
_NONNEGATIVE = {F.relu, torch.relu, T.relu, F.relu6, F.softplus, torch.exp, T.exp, T.abs, torch.abs, T.square, torch.square}
_MONOTONE = {
    F.elu, F.elu_, F.selu, F.celu, F.leaky_relu, F.leaky_relu_, F.softplus, F.softsign, F.hardsigmoid, F.hardtanh,
    F.hardtanh_, F.relu6, F.logsigmoid, torch.sigmoid, T.sigmoid, T.sigmoid_, F.sigmoid, torch.tanh, T.tanh, T.tanh_,
    F.tanh, torch.exp, T.exp, torch.log, T.log, torch.log1p, T.log1p, torch.sqrt, T.sqrt, torch.clamp, T.clamp, T.clamp_,
    torch.clamp_min, T.clamp_min, T.clamp_min_, torch.clamp_max, T.clamp_max, torch.erf, T.erf,
}  # fmt: skip
_GATES = {torch.sigmoid, T.sigmoid, F.sigmoid, F.hardsigmoid}


@handles(F.relu, torch.relu, T.relu, torch.relu_, T.relu_)
def relu(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """ReLU's own backward is the pass rule; composites for gradient-like methods put another in its place."""
    x = args[0] if args else kwargs["input"]
    rule = engine.composite.relu
    record = provenance(x)
    if record is not None and record.at_input and rule is None:
        output = engine.passed(lambda: torch.relu(x), x, torch.relu)
        engine.signal(output, Provenance(output.grad_fn, nonnegative=True, entry=entry_of(output)))
    elif rule is None:
        output = engine.native(torch.relu, (x,), {}, nonnegative=True)
    else:
        output = Backward.apply(lambda: torch.relu(x), rule, x)  # type: ignore[no-untyped-call]
        engine.signal(output, Provenance(output.grad_fn, nonnegative=True))
    inplace = function in _INPLACE or kwargs.get("inplace") or (len(args) > 1 and args[1])
    return engine.replace(x, output) if inplace else output


@handles(
    F.gelu, F.silu, F.mish, F.elu, F.elu_, F.selu, F.celu, F.leaky_relu, F.leaky_relu_, F.rrelu, F.prelu, F.softplus,
    F.softsign, F.tanhshrink, F.hardswish, F.hardsigmoid, F.hardtanh, F.hardtanh_, F.relu6, F.logsigmoid, F.softshrink,
    F.hardshrink, F.threshold, torch.sigmoid, T.sigmoid, T.sigmoid_, F.sigmoid, torch.tanh, T.tanh, T.tanh_, F.tanh,
    torch.exp, T.exp, torch.log, T.log, torch.log1p, T.log1p, torch.sqrt, T.sqrt, torch.abs, T.abs, T.__abs__,
    torch.clamp, T.clamp, T.clamp_, torch.clamp_min, T.clamp_min, T.clamp_min_, torch.clamp_max, T.clamp_max,
    torch.erf, T.erf, torch.square, T.square, torch.pow, T.pow, T.__pow__, torch.sin, T.sin, torch.cos, T.cos,
)  # fmt: skip
def activation(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Any other elementwise operation: R passes, so c is multiplied by f(x) / x."""
    x, *rest = args
    rest = [part.detach() if isinstance(part, Tensor) else part for part in rest]
    if function in (torch.pow, T.pow, T.__pow__) and not isinstance(rest[0], Tensor) and rest[0] < 0:
        return function(x.detach(), *rest)  # a denominator: a constant
    plain = _INPLACE.get(function, function)
    kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}

    def run(x: Tensor) -> Tensor:
        value: Tensor = plain(x, *rest, **kwargs)
        return value

    record = provenance(x)
    entry = None
    if record is not None and record.at_input:
        output = engine.passed(lambda: run(x), x, run if function in _MONOTONE else None)
        entry = entry_of(output)
    else:
        output = Surrogate.apply(lambda: run(x), _secant(run), x)  # type: ignore[no-untyped-call]
    nonnegative = function in _NONNEGATIVE | _GATES
    engine.signal(output, Provenance(output.grad_fn, gate=function in _GATES, nonnegative=nonnegative, entry=entry))
    inplace = plain is not function
    return engine.replace(x, output) if inplace else output


def _secant(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """x times the slope of the line from the origin, which counts as a constant."""

    def stand_in(x: Tensor) -> Tensor:
        a = x.detach()
        with torch.no_grad():
            tiny = torch.full((), 1e-4, dtype=a.dtype, device=a.device)
            at_zero = function(torch.zeros_like(tiny))
            limit = function(tiny) / tiny if bool(at_zero == 0) else torch.zeros_like(tiny)
            slope = torch.where(a == 0, limit, function(a) / torch.where(a == 0, 1, a))
        return x * slope

    return stand_in


@handles(F.softmax, torch.softmax, T.softmax)
def softmax(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """R_i = x_i (R_i′ − s_i Σ_j R_j′): the Taylor rule of AttnLRP (Achtibat et al. 2024)."""
    x, *rest = args
    dim = kwargs.get("dim", rest[0] if rest else None)

    def back(_x: Tensor, s: Tensor, c: Tensor) -> Tensor:
        relevance = c * s
        return relevance - s * relevance.sum(dim, keepdim=True)

    output = Backward.apply(lambda: function(x, *rest, **kwargs), back, x)  # type: ignore[no-untyped-call]
    return engine.signal(output, Provenance(output.grad_fn, gate=True, nonnegative=True))


@handles(torch.rsqrt, T.rsqrt, torch.std, T.std, torch.var, T.var, torch.norm, T.norm, torch.linalg.norm, torch.linalg.vector_norm,
         torch.reciprocal, T.reciprocal)  # fmt: skip
def constant(_engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """What is made to be divided by counts as a constant."""
    return function(*(x.detach() if isinstance(x, Tensor) else x for x in args), **kwargs)


def is_gate(x: Any) -> bool:
    """Whether the tensor decides, as a factor, but gets no relevance."""
    record = provenance(x)
    return record is not None and record.gate
