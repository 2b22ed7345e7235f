"""Operations that are linear, or a product of two things that are: their multipliers are gradients."""

from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop import refusal
from whybox.attribution.backprop.lift.curves import elementwise, pointwise
from whybox.attribution.backprop.lift.pairs import Pairs
from whybox.attribution.backprop.provenance import detached, mapped, provenance, tensors
from whybox.attribution.backprop.table import KINDS


def affine(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """An operation that is linear in all that depends on the input, taken together."""
    if any(pairs.varies(x) and provenance(x) is None for x in tensors((args, kwargs))):
        if function in pointwise():
            return elementwise(pairs, function, args, kwargs)
        pairs.chosen.append(pairs.where)
    return pairs.affine(function, args, kwargs)


def quadratic(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """A product: of two that depend on the input, each takes what it adds beside the mean of the other.

    This is the Shapley value, and the gradient halfway between the baseline and the input, which is exact for all
    that is quadratic.
    """
    varying = {id(x): x for x in tensors((args, kwargs)) if pairs.varies(x)}
    signals = [x for x in varying.values() if provenance(x) is not None]
    if len(varying) == len(signals) == 1 and _once(signals[0], (args, kwargs)):
        return affine(pairs, function, args, kwargs)
    if len(signals) < len(varying) and function in pointwise():
        return elementwise(pairs, function, args, kwargs)
    with torch.no_grad():
        value = function(*mapped(args, detached), **mapped(kwargs, detached))
        other = pairs.at_baseline(function, args, kwargs)
        middle = {key: (x.detach() + pairs.baseline(x)) / 2 for key, x in varying.items()}
    for x in signals:
        middle[id(x)] = pairs.stand_in(x, middle[id(x)], middle[id(x)])

    def halfway(x: Tensor) -> Any:
        return middle.get(id(x), x.detach())

    return pairs.stand_in(function(*mapped(args, halfway), **mapped(kwargs, halfway)), value, other)


def written(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """A value put into a part of a tensor."""
    if any(pairs.varies(x) and provenance(x) is None for x in tensors((args[1:], kwargs))):
        chosen = _by_mask(function, args, kwargs)
        if chosen is not None:
            output = pairs.write(args[0], elementwise(pairs, torch.where, chosen, {}))
            return None if function is Tensor.__setitem__ else output
        pairs.chosen.append(pairs.where)
    pairs.own(args[0])
    pairs.at_baseline(function, args, kwargs)
    return KINDS[function](pairs, function, args, kwargs)


def _by_mask(function: Any, args: Any, kwargs: Any) -> tuple[Any, ...] | None:
    """What `torch.where` is to be given in the place of one value written where a mask says so."""
    if function not in (Tensor.__setitem__, Tensor.masked_fill_):
        return None
    given: list[Any] = [*args, *kwargs.values()]
    x, mask, value = given
    single = not isinstance(value, Tensor) or value.ndim == 0
    if not (single and isinstance(mask, Tensor) and mask.dtype == torch.bool and provenance(x) is not None):
        return None
    if function is Tensor.__setitem__:
        mask = mask.view(*mask.shape, *(1,) * (x.ndim - mask.ndim))
    return mask, value, x


def kept(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """What the model detaches changes with the input like anything else: multipliers are no derivatives."""
    return pairs.affine(Tensor.view_as, (args[0], args[0]), {})


def kept_in_place(_pairs: Pairs, _function: Any, args: Any, _kwargs: Any) -> Any:
    """The same in place."""
    return args[0]


def question(_pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """A new tensor that has no more than the shape in common."""
    return function(*args, **kwargs)


def dropout(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """Nothing, in eval mode; where a model drops out in spite of it, the same in both runs."""
    given = {"p": 0.5, "training": True, **dict(zip(("input", "p", "training"), args, strict=False)), **kwargs}
    x, p = given["input"], given["p"]
    if not given.get("train", given["training"]):
        return pairs.affine(Tensor.view_as, (x, x), {})
    if "alpha" in getattr(function, "__name__", ""):
        raise refusal.circumstance("alpha dropout in training", pairs.where, "put the model into eval mode")
    return pairs.affine(torch.mul, (x, function(torch.ones_like(x.detach()), p, True)), {})


def _once(x: Tensor, values: Any) -> bool:
    return sum(part is x for part in tensors(values)) == 1
