"""Writing into a tensor: what is overwritten gets nothing, what is written passes through."""

from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.interception import Interception
from whybox.attribution.backprop.provenance import forget, provenance
from whybox.attribution.backprop.refusal import circumstance
from whybox.attribution.backprop.table import getter, handles

T = Tensor
_PLACE = {T.__setitem__: 2, T.copy_: 1, T.fill_: 1, T.masked_fill_: 2, T.index_copy_: 3, T.index_fill_: 3,
          T.masked_scatter_: 2, T.index_put_: 2, T.scatter_: 3}  # fmt: skip
_NAMES = ("src", "source", "value", "values")


@handles(*_PLACE)
def written(engine: Interception, function: Any, args: Any, kwargs: Any) -> Any:
    """A value put into a part of a tensor."""
    place = _PLACE[function]
    named = next((name for name in _NAMES if name in kwargs), None)
    value = args[place] if len(args) > place else kwargs[named or "value"]
    if not isinstance(args[0], Tensor) or "reduce" in kwargs:
        return engine._without_rule(function, args, kwargs)

    def put(x: Tensor, value: Any) -> Any:
        if named is not None:
            return function(x, *args[1:], **{**kwargs, named: value})
        return function(x, *args[1:place], value, *args[place + 1 :], **kwargs)

    output = engine.put(args[0], put, value)
    return None if function is T.__setitem__ else output


@handles(T.zero_)
def zeroed(engine: Interception, _function: Any, args: Any, _kwargs: Any) -> Any:
    """All overwritten by zeros."""
    return engine.put(args[0], lambda x, value: x.fill_(value), 0.0)


@handles(T.t_, T.transpose_, T.squeeze_, T.unsqueeze_, T.swapaxes_, T.swapdims_, T.resize_, T.set_, T.as_strided_,
         getter("data", "__set__"))  # fmt: skip
def reshaped(engine: Interception, function: Any, _args: Any, _kwargs: Any) -> Any:
    """A change of shape in place, which would have to be undone for the backward pass."""
    name = getattr(function, "__name__", "").replace("__set__", "data = …")
    raise circumstance(f"{name}, a change of shape or memory in place,", engine.where, "make a new tensor instead")


@handles("detach", getter("data"))
def cut(engine: Interception, function: Any, args: Any, kwargs: Any) -> Any:
    """What is detached counts as a constant; where this happens is noted."""
    engine.blocked.append(engine.where)
    return function(*args, **kwargs)


@handles(T.detach_, torch.detach_)
def cut_in_place(engine: Interception, function: Any, args: Any, kwargs: Any) -> Any:
    """The same in place."""
    engine.blocked.append(engine.where)
    output: Tensor = function(*args, **kwargs)
    if provenance(output) is not None:
        forget(output)
    return output
