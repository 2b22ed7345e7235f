"""Linear maps with weights, and batch norm, which is one or becomes part of the one before it."""

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.provenance import Produced, detached, provenance
from whybox.attribution.backprop.refusal import circumstance
from whybox.attribution.backprop.sharing import LinearMap
from whybox.core.errors import ModelError


def _weighted(engine: Engine, function: Any, args: Any, kwargs: Any, kind: str, transposed: bool = False) -> Tensor:
    if not args:
        args = (kwargs.pop("input"),)
    x, weight, *rest = (*args, kwargs.pop("weight")) if len(args) == 1 else args
    bias = rest.pop(0) if rest else kwargs.pop("bias", None)
    if provenance(x) is None or provenance(weight) is not None:
        raise circumstance("an operation whose weights depend on the input", engine.where, "no rule is known for that")
    weight, bias = detached(weight), detached(bias)
    record = provenance(x)
    assert record is not None
    layout: Literal["convolution", "transposed", "dense"] = "transposed" if transposed else "convolution"
    linear = LinearMap(
        lambda x, weight, bias: function(x, weight, bias, *rest, **kwargs),
        weight,
        bias,
        record.nonnegative,
        layout if kind != "dense" else "dense" if weight.ndim == 2 else None,
    )
    channel = x.ndim - 1 if kind == "dense" else 1
    return engine.linear(kind, linear, x, lambda: linear.apply(x, weight, bias), channel)


@handles("conv1d", "conv2d", "conv3d")
def convolution(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """A convolution."""
    return _weighted(engine, function, args, dict(kwargs), "convolution")


@handles("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """A transposed convolution."""
    return _weighted(engine, function, args, dict(kwargs), "convolution", transposed=True)


@handles(F.linear)
def dense(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """A dense layer."""
    return _weighted(engine, function, args, dict(kwargs), "dense")


@handles("batch_norm")
def batch_norm(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """Batch norm in eval mode: folded into the linear map before it, else a map with one input per output."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    if function is torch.batch_norm:
        names = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = {
        "weight": None,
        "bias": None,
        "training": False,
        "eps": 1e-5,
        **dict(zip(names, args, strict=False)),
        **kwargs,
    }
    x, mean, var = given["input"], given["running_mean"], given["running_var"]
    if mean is None or given["training"]:
        raise circumstance("a batch norm", engine.where, "it uses the batch's own statistics, so that samples mix")
    shape = [1, -1, *(1,) * (x.ndim - 2)]
    scale = (var + given["eps"]).rsqrt()
    scale = scale if given["weight"] is None else scale * given["weight"].detach()
    shift = -mean * scale if given["bias"] is None else given["bias"].detach() - mean * scale
    record = provenance(x)
    assert record is not None
    produced = record.produced

    def run(x: Tensor) -> Tensor:
        value: Tensor = function(*_with(args, x), **_constants(kwargs))
        return value

    if produced is not None and produced.channel == 1 and produced.current:
        raw = x if produced.raw is None else produced.raw
        return _folded(engine, produced, scale, shift, lambda: run(raw))

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return x * weight if bias is None else x * weight + bias

    linear = LinearMap(apply, scale.view(shape), shift.view(shape), record.nonnegative)
    return engine.scale(linear, x, run)


def _with(args: Any, first: Tensor) -> tuple[Any, ...]:
    if not args:
        raise ModelError("call batch norm with its input by position")
    return (first, *map(detached, args[1:]))


def _constants(kwargs: Any) -> dict[str, Any]:
    return {name: detached(value) for name, value in kwargs.items()}


def _folded(engine: Engine, produced: Produced, scale: Tensor, shift: Tensor, run: Any) -> Tensor:
    """The linear map before, with w′ = w·scale and b′ = b·scale + shift, from that map's own input."""
    linear = produced.linear
    factor = linear.per_output(scale)
    bias = shift if linear.bias is None else linear.bias * scale + shift
    folded = replace(linear, scale=factor if linear.scale is None else linear.scale * factor, bias=bias)
    kind = "dense" if linear.layout == "dense" else "convolution"
    return engine.linear(kind, folded, produced.x, run, produced.channel, produced.rule)
