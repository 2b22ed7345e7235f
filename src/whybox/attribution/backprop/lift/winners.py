"""Operations that pick the greatest or the least."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.lift.curves import elementwise
from whybox.attribution.backprop.lift.multipliers import negligible
from whybox.attribution.backprop.lift.pairs import Pairs


def pooled(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """Max pooling."""
    name = function.__name__.removeprefix("_").removesuffix("_with_indices")
    axes = int(name[-2])
    full = getattr(F, f"{name}_with_indices")
    x = args[0] if args else kwargs["input"]
    asked = "with_indices" in function.__name__ or kwargs.get("return_indices", False)
    given = {key: value for key, value in kwargs.items() if key not in ("input", "return_indices")}
    with torch.no_grad():
        here, there = full(x.detach(), *args[1:], **given), pairs.at_baseline(full, (x, *args[1:]), given)
    value = _picked(pairs, pairs.affine(Tensor.flatten, (x, -axes), {}), here, there, axes, 1)
    if not asked:
        return value
    return value, pairs.pair(here[1], there[1])


def greatest(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """max, amax, min and amin along axes, or of all."""
    x, *rest = args if args else (kwargs["input"],)
    second = rest[0] if rest else kwargs.get("other")
    if isinstance(second, Tensor):
        return elementwise(pairs, function, args, kwargs)
    dims = rest[0] if rest else kwargs.get("dim", ())
    keepdim = rest[1] if len(rest) > 1 else kwargs.get("keepdim", False)
    sign = -1 if "min" in function.__name__ else 1
    axes = [dim % x.ndim for dim in ((dims,) if isinstance(dims, int) else dims)] or list(range(x.ndim))
    count = len(axes)
    last = pairs.affine(torch.movedim, (x, axes, list(range(-count, 0))), {})
    flat = pairs.affine(Tensor.flatten, (last, -count), {})
    with torch.no_grad():
        here, there = ((sign * run).max(-1) for run in (flat.detach(), pairs.baseline(flat)))
        here, there = ((sign * values, indices) for values, indices in (here, there))
    value = _picked(pairs, flat, tuple(v[..., None] for v in here), tuple(v[..., None] for v in there), 1, sign)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdim or i not in axes]
    value = pairs.affine(Tensor.reshape, (value, shape), {})
    plain = function(x.detach(), *rest, **{key: v for key, v in kwargs.items() if key != "input"})
    if isinstance(plain, Tensor):
        return value
    indices = pairs.pair(here[1].reshape(shape), there[1].reshape(shape))
    return type(plain)((value, indices))


def _picked(pairs: Pairs, flat: Tensor, here: Any, there: Any, axes: int, sign: int) -> Tensor:
    """Which input carries the difference: the winner here if it has gained, or was a winner there as well; else the
    winner there. Either has changed by as much as the maximum or by more, in the same direction."""
    (value, index), (other, other_index) = here, there
    shape, before = value.shape, pairs.baseline(flat)
    a, b, i, j = (x.flatten(-axes) for x in (value, other, index, other_index))
    was = before.gather(-1, i)
    gained = (sign * (a - b) >= 0) | negligible(was - b, was, b)
    winner = flat.gather(-1, torch.where(gained, i, j))
    x, there = winner.detach(), torch.where(gained, was, b)
    share = torch.where(negligible(x - there, x, there), 1, (a - b) / (x - there))
    carrier = winner * share
    return pairs.stand_in(carrier.view(shape), value, other)
