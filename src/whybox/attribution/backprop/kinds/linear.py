"""Linear maps with weights, and batch norm, which is one or becomes part of the one before it."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.provenance import Produced, Provenance, provenance
from whybox.attribution.backprop.rules import LinearMap
from whybox.core.errors import ModelError

T = Tensor


def _constant(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x


def _weighted(engine: Engine, function: Any, args: Any, kwargs: Any, kind: str, transposed: bool = False) -> Tensor:
    x, weight, *rest = (*args, kwargs.pop("weight")) if len(args) == 1 else args
    bias = rest.pop(0) if rest else kwargs.pop("bias", None)
    if provenance(x) is None or provenance(weight) is not None:
        raise ModelError(f"in module {engine.where!r} the weights depend on the input; no rule is known for that")
    weight, bias = _constant(weight), _constant(bias)
    record = provenance(x)
    assert record is not None
    linear = LinearMap(
        lambda x, weight, bias: function(x, weight, bias, *rest, **kwargs),
        weight,
        bias,
        record.nonnegative,
        "dense" if kind == "dense" else "transposed" if transposed else "convolution",
    )
    channel = x.ndim - 1 if kind == "dense" else 1
    return engine.linear(kind, linear, x, lambda: linear.apply(x, weight, bias), channel)


@handles(F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d)
def convolution(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """A convolution."""
    return _weighted(engine, function, args, dict(kwargs), "convolution")


@handles(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def transposed_convolution(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """A transposed convolution."""
    return _weighted(engine, function, args, dict(kwargs), "convolution", transposed=True)


@handles(F.linear)
def dense(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """A dense layer."""
    return _weighted(engine, function, args, dict(kwargs), "dense")


@handles(T.matmul, torch.matmul, T.__matmul__, T.__rmatmul__, torch.mm, T.mm, torch.bmm, T.bmm)
def matmul(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """A matrix product with a constant is a dense layer; of two signals, each takes half."""
    left, right = (args[1], args[0]) if function is T.__rmatmul__ else args[:2]
    if provenance(left) is not None and provenance(right) is not None:
        product = engine.native(torch.matmul, (left, right), {})
        return halved(engine, product)
    x, weight = (left, right) if provenance(left) is not None else (right, left)
    record = provenance(x)
    assert record is not None
    weight = weight.detach()
    if x is left:
        linear = LinearMap(lambda x, weight, _bias: torch.matmul(x, weight), weight, None, record.nonnegative)
    else:
        linear = LinearMap(lambda x, weight, _bias: torch.matmul(weight, x), weight, None, record.nonnegative)
    return engine.linear("dense", linear, x, lambda: linear.apply(x, weight, None), channel=-1)


def halved(engine: Engine, product: Tensor) -> Tensor:
    """The product of two signals, of whose relevance each takes half: c · ½ behind it."""
    output = Half.apply(product)  # type: ignore[no-untyped-call]
    return engine.signal(output, Provenance(output.grad_fn))


class Half(torch.autograd.Function):
    """Forward: nothing. Backward: half."""

    @staticmethod
    def forward(ctx: Any, product: Tensor) -> Tensor:
        return product.view_as(product)

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        return c[0] / 2


@handles(F.batch_norm, torch.batch_norm)
def batch_norm(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """Batch norm in eval mode: folded into the linear map before it, else a map with one input per output."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    if function is torch.batch_norm:
        names = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = {"weight": None, "bias": None, "training": False, "eps": 1e-5, **dict(zip(names, args, strict=False)), **kwargs}
    x, mean, var = given["input"], given["running_mean"], given["running_var"]
    if mean is None or given["training"]:
        raise ModelError(f"the batch norm in module {engine.where!r} uses the batch's own statistics; no rule is known")
    shape = [1, -1, *(1,) * (x.ndim - 2)]
    scale = (var + given["eps"]).rsqrt()
    scale = scale if given["weight"] is None else scale * given["weight"].detach()
    shift = -mean * scale if given["bias"] is None else given["bias"].detach() - mean * scale
    record = provenance(x)
    assert record is not None
    produced = record.produced
    if produced is not None and produced.channel == 1:
        return _folded(engine, produced, scale, shift, lambda raw: function(*_with(args, raw), **_constants(kwargs)))
    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return x * weight if bias is None else x * weight + bias

    def run(x: Tensor) -> Tensor:
        value: Tensor = function(*_with(args, x), **_constants(kwargs))
        return value

    linear = LinearMap(apply, scale.view(shape), shift.view(shape), record.nonnegative)
    return engine.scale(linear, x, run)


def _with(args: Any, first: Tensor) -> tuple[Any, ...]:
    return (first, *map(_constant, args[1:]))


def _constants(kwargs: Any) -> dict[str, Any]:
    return {name: _constant(value) for name, value in kwargs.items()}


def _folded(engine: Engine, produced: Produced, scale: Tensor, shift: Tensor, run: Any) -> Tensor:
    """The linear map before, with w′ = w·scale and b′ = b·scale + shift, from that map's own input."""
    linear = produced.linear
    if linear.layout == "transposed":
        groups = scale.numel() // linear.weight.shape[1]
        factor = scale.view(groups, 1, -1).expand(groups, linear.weight.shape[0] // groups, -1)
        weight = linear.weight * factor.reshape(linear.weight.shape[0], -1, *(1,) * (linear.weight.ndim - 2))
    else:
        weight = linear.weight * scale.view(-1, *(1,) * (linear.weight.ndim - 1))
    bias = shift if linear.bias is None else linear.bias * scale + shift
    folded = replace(linear, weight=weight, bias=bias)
    kind = "dense" if linear.layout == "dense" else "convolution"
    return engine.linear(kind, folded, produced.x, lambda: run(produced.raw), produced.channel)
