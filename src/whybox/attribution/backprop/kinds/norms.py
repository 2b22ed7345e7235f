"""Normalisation by statistics of the sample: the denominator counts as a constant."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.provenance import Provenance


def _surrogate(engine: Engine, run: Any, stand_in: Any, x: Tensor) -> Tensor:
    output = engine.surrogate(run, stand_in, x)
    return engine.signal(output, Provenance(output.grad_fn))


@handles(F.layer_norm, torch.layer_norm)
def layer_norm(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """(x − mean) / σ · γ + β with σ constant: the mean's subtraction is a linear map."""
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    given = {"weight": None, "bias": None, "eps": 1e-5, **dict(zip(names, args, strict=False)), **kwargs}
    x = given["input"]
    axes = tuple(range(-len(given["normalized_shape"]), 0))

    def stand_in(x: Tensor) -> Tensor:
        return _scaled(x, axes, given["eps"], given["weight"])

    return _surrogate(engine, lambda: function(*args, **kwargs), stand_in, x)


@handles(F.group_norm, torch.group_norm)
def group_norm(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """As layer norm, over each group of channels."""
    names = ("input", "num_groups", "weight", "bias", "eps")
    given = {"weight": None, "bias": None, "eps": 1e-5, **dict(zip(names, args, strict=False)), **kwargs}
    x, weight = given["input"], given["weight"]

    def stand_in(x: Tensor) -> Tensor:
        grouped = x.reshape(len(x), given["num_groups"], -1)
        return _affine(_scaled(grouped, (2,), given["eps"], None).view_as(x), weight)

    return _surrogate(engine, lambda: function(*args, **kwargs), stand_in, x)


@handles(F.instance_norm, torch.instance_norm)
def instance_norm(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """As layer norm, over the positions of each channel; with running statistics a constant scaling."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = {"weight": None, "running_var": None, "use_input_stats": True, "eps": 1e-5,
             **dict(zip(names, args, strict=False)), **kwargs}  # fmt: skip
    x = given["input"]

    def stand_in(x: Tensor) -> Tensor:
        if given["use_input_stats"]:
            scaled = _scaled(x, tuple(range(2, x.ndim)), given["eps"], None)
        else:
            scaled = _affine(x, (given["running_var"] + given["eps"]).rsqrt())
        return _affine(scaled, given["weight"])

    return _surrogate(engine, lambda: function(*args, **kwargs), stand_in, x)


@handles(F.rms_norm, torch.rms_norm)
def rms_norm(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """x / root mean square · γ with the root mean square constant."""
    names = ("input", "normalized_shape", "weight", "eps")
    given = {"weight": None, "eps": None, **dict(zip(names, args, strict=False)), **kwargs}
    axes = tuple(range(-len(given["normalized_shape"]), 0))

    def stand_in(x: Tensor) -> Tensor:
        eps = torch.finfo(x.dtype).eps if given["eps"] is None else given["eps"]
        scaled = x * (x.detach().square().mean(axes, keepdim=True) + eps).rsqrt()
        return scaled if given["weight"] is None else scaled * given["weight"].detach()

    return _surrogate(engine, lambda: function(*args, **kwargs), stand_in, given["input"])


@handles(F.local_response_norm, F.normalize)
def quotient_norm(engine: Engine, function: Any, args: Any, kwargs: Any) -> Tensor:
    """x divided by a statistic of its neighbourhood: relevance passes, c times f(x) / x."""
    x = args[0]

    def stand_in(x: Tensor) -> Tensor:
        value = function(x.detach(), *args[1:], **kwargs)
        return x * torch.where(x == 0, 0, value / torch.where(x == 0, 1, x)).detach()

    return _surrogate(engine, lambda: function(*args, **kwargs), stand_in, x)


def _scaled(x: Tensor, axes: tuple[int, ...], eps: float, weight: Tensor | None) -> Tensor:
    deviation = (x.detach().var(axes, keepdim=True, correction=0) + eps).rsqrt()
    scaled = (x - x.mean(axes, keepdim=True)) * deviation
    return scaled if weight is None else scaled * weight.detach()


def _affine(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * weight.detach().view(1, -1, *(1,) * (x.ndim - 2))
