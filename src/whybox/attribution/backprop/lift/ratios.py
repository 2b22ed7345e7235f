"""Softmax and normalisation: made of operations of which each keeps the sum of its contributions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop import refusal
from whybox.attribution.backprop.lift.multipliers import logarithmic_mean
from whybox.attribution.backprop.lift.pairs import Pairs
from whybox.attribution.backprop.provenance import detached


def softmax(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Tensor:
    """softmax, log_softmax, logsumexp.

    With L = logsumexp(x), s = softmax(x) = exp(x − L), and the logarithmic mean m_i = (s_i − s′_i) / Δ(x_i − L), which
    is the Rescale rule of the exponential: Δs_i = m_i (Δx_i − ΔL). Both softmaxes sum to one, so that Σ_i Δs_i = 0 and
    ΔL = Σ_i m_i Δx_i / Σ_i m_i. For a small Δx these are the gradients; a shift of all x gets nothing.
    """
    x = args[0] if args else kwargs["input"]
    with torch.no_grad():
        value = function(detached(x), *args[1:], **{**kwargs, **({} if args else {"input": detached(x)})})
        other = pairs.at_baseline(function, args, kwargs)
        dim = _axis(function, x, args, kwargs)
        here, there = (run.log_softmax(dim) for run in (x.detach(), pairs.baseline(x)))
        mean = logarithmic_mean(here.exp(), there.exp(), here - there)
        weight = mean / mean.sum(dim, keepdim=True)
    rest = (x * weight).sum(dim, keepdim=True)
    name = function.__name__
    if name == "logsumexp":
        carrier = rest.sum_to_size(other.shape) if rest.ndim == other.ndim else rest.squeeze(dim)
    else:
        carrier = x - rest if name == "log_softmax" else mean * (x - rest)
    return pairs.stand_in(carrier, value, other)


def _axis(function: Any, x: Tensor, args: Any, kwargs: Any) -> int:
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if isinstance(dim, (tuple, list)):
        (dim,) = dim
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1  # torch's own choice
    return int(dim)


def layer_norm(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Tensor:
    """(x − mean) / σ · γ + β."""
    given = _given(("input", "normalized_shape", "weight", "bias", "eps"), args, kwargs)
    x, axes = given["input"], list(range(-len(given["normalized_shape"]), 0))
    with pairs:
        return _scaled(_standard(x, axes, given["eps"]), given["weight"], given["bias"])


def rms_norm(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Tensor:
    """x / root mean square · γ."""
    given = _given(("input", "normalized_shape", "weight", "eps"), args, {"eps": None, **kwargs})
    x, axes = given["input"], list(range(-len(given["normalized_shape"]), 0))
    eps = torch.finfo(x.dtype).eps if given["eps"] is None else given["eps"]
    with pairs:
        return _scaled(x / (x.square().mean(axes, keepdim=True) + eps).sqrt(), given["weight"], None)


def group_norm(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Tensor:
    """As layer norm, over each group of channels."""
    given = _given(("input", "num_groups", "weight", "bias", "eps"), args, kwargs)
    x = given["input"]
    with pairs:
        grouped = _standard(x.reshape(len(x), given["num_groups"], -1), [2], given["eps"])
        return _scaled(grouped.reshape(x.shape), *_by_channel(x, given))


def instance_norm(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Tensor:
    """As layer norm, over the positions of each channel; with running statistics a linear map."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = _given(names, args, {"use_input_stats": True, **kwargs})
    x = given["input"]
    with pairs:
        if given["use_input_stats"]:
            normal = _standard(x, list(range(2, x.ndim)), given["eps"])
        else:
            mean, scale = given["running_mean"], (given["running_var"] + given["eps"]).rsqrt()
            shape = (1, -1, *(1,) * (x.ndim - 2))
            normal = (x - mean.view(shape)) * scale.view(shape)
        return _scaled(normal, *_by_channel(x, given))


def batch_norm(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """In eval mode a linear map."""
    names = ["input", "running_mean", "running_var", "weight", "bias", "training"]
    if function is torch.batch_norm:
        names = ["input", "weight", "bias", "running_mean", "running_var", "training"]
    given = {"training": False, **dict(zip(names, args, strict=False)), **kwargs}
    if given["running_mean"] is None or given["training"]:
        raise refusal.circumstance(
            "a batch norm", pairs.where, "it uses the batch's own statistics, so that samples mix"
        )
    return pairs.affine(function, args, kwargs)


def lrn(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Any:
    """Local response normalisation: x / (k + α · mean of x² over neighbouring channels)^β."""
    names = ("input", "size", "alpha", "beta", "k")
    given = {"alpha": 1e-4, "beta": 0.75, "k": 1.0, **dict(zip(names, args, strict=False)), **kwargs}
    x, size = given["input"], given["size"]
    with pairs:
        squares = x.square().flatten(2) if x.ndim > 2 else x.square()[..., None]
        columns = F.pad(squares.transpose(1, 2), (size // 2, (size - 1) // 2)).flatten(0, 1)[:, None]
        mean = F.avg_pool1d(columns, size, stride=1).reshape(len(x), -1, x.shape[1]).transpose(1, 2).reshape(x.shape)
        return x / (mean * given["alpha"] + given["k"]) ** given["beta"]


def normalize(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Any:
    """x / norm."""
    names = ("input", "p", "dim", "eps")
    given = {"p": 2.0, "dim": 1, "eps": 1e-12, **dict(zip(names, args, strict=False)), **kwargs}
    x = given["input"]
    with pairs:
        return x / torch.linalg.vector_norm(x, given["p"], given["dim"], True).clamp_min(given["eps"])


def norm(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Any:
    """(Σ |x|^p)^(1/p)."""
    given = dict(zip(("input", "p", "dim", "keepdim"), args, strict=False)) | kwargs
    x, dim, keepdim = given.get("input", given.get("x")), given.get("dim"), given.get("keepdim", False)
    p = given.get("p", given.get("ord", 2))
    p = 2 if p is None or p == "fro" else p
    if not isinstance(p, (int, float)) or not 0 < p < float("inf"):
        raise refusal.circumstance(f"a norm of order {p}", pairs.where, "write it out")
    axes = list(range(x.ndim)) if dim is None else dim
    with pairs:
        powers = x.square() if p == 2 else x.abs() ** p
        total = powers.sum(axes, keepdim=keepdim)
        return total.sqrt() if p == 2 else total ** (1 / p)


def spread(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """std, var, std_mean, var_mean."""
    given = dict(zip(("input", "dim", "unbiased", "keepdim"), args, strict=False)) | kwargs
    x, dim = given["input"], given.get("dim")
    if isinstance(dim, bool):  # std(x, unbiased)
        dim, given["unbiased"] = None, dim
    axes = list(range(x.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    correction = given.get("correction", int(given.get("unbiased", True)))
    correction = 1 if correction is None else correction
    count = max(0, torch.Size(x.shape[axis] for axis in axes).numel() - correction)
    keepdim = given.get("keepdim", False)
    with pairs:
        mean = x.mean(axes, keepdim=True)
        variance = (x - mean).square().sum(axes, keepdim=keepdim) / count
        value = variance.sqrt() if "std" in function.__name__ else variance
        return (value, mean.reshape(value.shape)) if "mean" in function.__name__ else value


def glu(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Any:
    """The first half of the channels times the sigmoid of the second."""
    given = {"dim": -1, **dict(zip(("input", "dim"), args, strict=False)), **kwargs}
    with pairs:
        signal, gate = given["input"].chunk(2, given["dim"])
        return signal * gate.sigmoid()


def _given(names: tuple[str, ...], args: Any, kwargs: Any) -> dict[str, Any]:
    return {"weight": None, "bias": None, "eps": 1e-5, **dict(zip(names, args, strict=False)), **kwargs}


def _standard(x: Tensor, axes: list[int], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _by_channel(x: Tensor, given: dict[str, Any]) -> list[Tensor | None]:
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return [None if given[name] is None else given[name].view(shape) for name in ("weight", "bias")]
