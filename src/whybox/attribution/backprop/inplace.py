"""Operations in place. They run out of place, so that what has been saved for the backward pass stays as it was; then
the tensor that the model holds is given the new value and history."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.provenance import (
    Entry,
    Provenance,
    detached,
    entry_of,
    forget,
    provenance,
    remember,
    tensors,
)
from whybox.core.errors import ModelError


class Memory:
    """What shares memory with what: the views of each tensor that are still held."""

    def __init__(self) -> None:
        self._views: dict[int, list[weakref.ref[Tensor]]] = {}

    def note(self, view: Tensor) -> None:
        """Note a view that has come into being."""
        base = view._base
        if base is not None:
            known = self._views.setdefault(id(base), [])
            known[:] = [ref for ref in known if ref() is not None]
            known.append(weakref.ref(view))

    def views(self, base: Tensor) -> list[Tensor]:
        """The noted views of this tensor."""
        held = [view for ref in self._views.get(id(base), ()) if (view := ref()) is not None]
        return [view for view in held if view._base is base]

    def clear(self) -> None:
        """Forget all."""
        self._views.clear()


def become(x: Tensor, value: Tensor) -> None:
    """Let the Python object x be this value, with its history and record; what autograd has saved of x is untouched.

    Python attributes that the model has put on x stay.
    """
    if value.dtype != x.dtype:
        value = _like(value.to(x.dtype), value)
    if value.stride() != x.stride():
        same = torch.empty_like(x.detach())
        same.copy_(value)
        value = _like(same, value)
    old, new = provenance(x), provenance(value)
    torch._C._swap_tensor_impl(x, value)
    for tensor, record in ((x, new), (value, old)):
        if record is None:
            forget(tensor)
        else:
            remember(tensor, record)


def _like(value: Tensor, source: Tensor) -> Tensor:
    record = provenance(source)
    return value if record is None else remember(value, replace(record, node=value.grad_fn, produced=None))


def private_among(values: Any) -> list[tuple[Tensor, Provenance]]:
    """The tensors whose memory nothing has saved for the backward pass, among these or behind these views."""
    bases = (x if x._base is None else x._base for x in tensors(values))
    return [(base, record) for base in bases if (record := provenance(base)) is not None and record.private]


def renew(base: Tensor, views: list[Tensor]) -> None:
    """Move a tensor and its views into memory of their own, of which autograd has saved nothing."""
    fresh = base.clone()
    if fresh.stride() != base.stride():
        raise ModelError(
            "a view of a tensor whose entries overlap in memory is changed in place; replace `x += y` by `x = x + y`"
        )
    start = fresh.storage_offset() - base.storage_offset()
    again = [fresh.as_strided(v.size(), v.stride(), v.storage_offset() + start) for v in views]
    for tensor, value in zip((base, *views), (fresh, *again), strict=True):
        torch._C._swap_tensor_impl(tensor, value)


def written(base: Tensor, part: Tensor, put: Callable[[Tensor, Any], Any], value: Any) -> Entry | None:
    """The explained input's entry after `put(part, value)`, where part is the tensor itself or a view of it."""
    whole, new = entry_of(base), entry_of(value)
    if whole is None or not base.is_contiguous() or (provenance(value) is not None and new is None):
        return None

    def changed(old: Tensor, value: Any) -> Tensor:
        copy = old.clone(memory_format=torch.contiguous_format)
        put(same_view(copy, base, part), value)
        return copy

    zero = torch.zeros((), dtype=base.dtype, device=base.device)
    slot = changed(whole.slot, zero if new is None else new.slot)
    if whole.low is None or whole.high is None or (new is not None and (new.low is None or new.high is None)):
        return replace(whole, slot=slot, low=None, high=None)
    low, high = (value, value) if new is None else (new.low, new.high)
    return replace(whole, slot=slot, low=changed(whole.low, detached(low)), high=changed(whole.high, detached(high)))


def through(entry: Entry | None, base: Tensor, view: Tensor) -> Entry | None:
    """What goes along with a view of a tensor that has this entry."""
    if entry is None or not base.is_contiguous():
        return None
    slot, low, high = (x if x is None else same_view(x, base, view) for x in (entry.slot, entry.low, entry.high))
    assert slot is not None
    return replace(entry, slot=slot, low=low, high=high)


def same_view(x: Tensor, base: Tensor, view: Tensor) -> Tensor:
    """The view of x that `view` is of `base`."""
    if view is base:
        return x
    x = x.contiguous()
    start = x.storage_offset() - base.storage_offset()
    return x.as_strided(view.size(), view.stride(), view.storage_offset() + start)
