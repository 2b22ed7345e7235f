"""Linear maps without weights and winners that take all: autograd's own backward is right."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.provenance import facts, provenance


@handles(
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "mean", "sum", "cumsum", "lp_pool1d", "lp_pool2d", "lp_pool3d", "fold",
)  # fmt: skip
def average(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Shared in proportion to the inputs; what comes out is no longer at the input."""
    return engine.native(function, args, kwargs, **facts(args, kwargs))


@handles("interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "grid_sample")
def resampling(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Every output is a weighted sum of inputs; the weights of bicubic ones may be negative."""
    if function is F.grid_sample and provenance(args[0]) is None:
        return engine._without_rule(function, args, kwargs)
    known = facts(args[:1] or (kwargs["input"],), {})
    rounds = "bicubic" in (*args, *kwargs.values())
    return engine.native(function, args, kwargs, gate=False, nonnegative=known["nonnegative"] and not rounds)


@handles(
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices", "adaptive_max_pool3d_with_indices",
    "max_unpool1d", "max_unpool2d", "max_unpool3d", "max", "amax", "min", "amin", "median", "topk", "sort", "kthvalue",
)  # fmt: skip
def winner(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The winner takes all, as autograd does."""
    if any(isinstance(x, Tensor) and x.is_floating_point() for x in (*args[1:], *kwargs.values())):  # torch.max(a, b)
        return chosen(engine, function, args, kwargs)
    known = facts(args[:1] or (kwargs["input"],), {})
    return engine.native(function, args, kwargs, **known)


@handles("maximum", "minimum", "fmax", "fmin")
def chosen(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """The greater or the smaller of two."""
    return engine.native(function, args, kwargs, **facts(args, kwargs))


@handles("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout")
def dropout(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Nothing, in eval mode; a factor that counts as a constant where a model drops out in spite of it."""
    known = facts(args[:1] or (kwargs["input"],), {})
    if "alpha" in getattr(function, "__name__", ""):
        known = {"gate": False, "nonnegative": False}
    return engine.native(function, args, kwargs, **known)
