"""Operations whose own backward is right: shape and index operations, winners that take all, averages."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.provenance import Provenance, entry_of, mapped, provenance, remember, tensors

T = Tensor
_CHOOSING = {
    F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
    F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    T.max, torch.max, T.amax, torch.amax, T.min, torch.min, T.amin, torch.amin, torch.maximum, T.maximum,
    torch.minimum, T.minimum, F.fold, T.requires_grad_,
}  # fmt: skip


def _facts(args: Any, kwargs: Any) -> dict[str, bool]:
    """What is true of all the inputs that depend on the explained one is true of the output."""
    records = [record for x in tensors((args, kwargs)) if (record := provenance(x)) is not None]
    return {name: all(getattr(record, name) for record in records) for name in ("gate", "nonnegative")}


def _entries(function: Any, args: Any, kwargs: Any, output: Any) -> None:
    """Take the explained input's slot and bounds through the same operation, so that they stay beside it."""
    signals = [x for x in tensors((args, kwargs)) if provenance(x) is not None]
    entries = [entry for x in signals if (entry := entry_of(x)) is not None]
    if len(entries) < len(signals) or function in _CHOOSING:
        return

    def beside(name: str) -> Any:
        def put(x: Tensor) -> Any:
            entry = entry_of(x)
            return x if entry is None else getattr(entry, name)

        return list(tensors(function(*mapped(args, put), **mapped(kwargs, put))))

    slots = beside("slot")
    known = all(entry.low is not None and entry.high is not None for entry in entries)
    lows, highs = (beside("low"), beside("high")) if known else ([None] * len(slots), [None] * len(slots))
    for x, slot, low, high in zip(tensors(output), slots, lows, highs, strict=True):
        record = provenance(x)
        if record is not None:
            remember(x, replace(record, entry=replace(entries[0], slot=slot, low=low, high=high)))


@handles(
    T.view, T.reshape, torch.reshape, T.flatten, torch.flatten, T.unflatten, torch.unflatten, T.permute, torch.permute,
    T.transpose, torch.transpose, T.t, torch.t, T.T.__get__, T.mT.__get__, T.contiguous, T.clone, torch.clone,
    T.squeeze, torch.squeeze, T.unsqueeze, torch.unsqueeze, T.expand, T.expand_as, T.view_as, T.reshape_as,
    T.chunk, torch.chunk, T.split, torch.split, T.unbind, torch.unbind, T.select, torch.select, T.narrow, torch.narrow,
    T.__getitem__, T.index_select, torch.index_select, T.gather, torch.gather, T.flip, torch.flip, T.roll, torch.roll,
    T.movedim, torch.movedim, T.swapaxes, T.repeat, torch.cat, torch.concat, torch.stack, torch.tile,
    F.pad, F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle, torch.channel_shuffle, T.to, T.float, T.double,
    F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
    F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    T.max, torch.max, T.amax, torch.amax, T.min, torch.min, T.amin, torch.amin, torch.maximum, T.maximum,
    torch.minimum, T.minimum, torch.where, T.where, T.masked_fill, F.unfold, F.fold,
    T.tril, torch.tril, T.triu, torch.triu, T.diagonal, T.type_as, T.requires_grad_,
)  # fmt: skip
def native(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """As autograd does."""
    output = engine.native(function, args, kwargs, **_facts(args, kwargs))
    _entries(function, args, kwargs, output)
    return output


@handles(
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, torch.avg_pool1d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d, torch.adaptive_avg_pool1d, T.mean, torch.mean, T.sum, torch.sum, F.interpolate, F.upsample,
    F.lp_pool2d,
)  # fmt: skip
def average(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Linear maps without weights: shared in proportion to the inputs, as autograd does; no longer at the input."""
    return engine.native(function, args, kwargs, **_facts(args, kwargs))


@handles(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout)
def dropout(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Nothing, in eval mode; a factor that counts as a constant where a model drops out in spite of it."""
    kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
    if len(args) > 3:
        args = args[:3]
    output = engine.native(function, args, kwargs, **_facts(args, kwargs))
    if not (args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))):
        _entries(function, args, kwargs, output)
    return output


@handles(T.detach, torch.detach, T.data.__get__)
def cut(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """What is detached counts as a constant; where this happens is noted."""
    engine.blocked.append(engine.where)
    output: Tensor = function(*args, **kwargs)
    if hasattr(output, "_whybox_provenance"):
        del output._whybox_provenance
    return output


_QUESTIONS = (
    T.size, T.dim, T.numel, T.is_contiguous, T.is_floating_point, torch.is_floating_point, T.__len__, T.element_size,
    T.stride, T.shape.__get__, T.device.__get__, T.dtype.__get__, T.ndim.__get__, T.requires_grad.__get__,
    T.is_cuda.__get__, T.grad_fn.__get__, T.layout.__get__, T.is_sparse.__get__, T.is_quantized.__get__, T.is_leaf.__get__,
    T.is_meta.__get__, T.is_mps.__get__, T.get_device, T.storage_offset, T.data_ptr, T.__repr__, T.__hash__, T.type,
    T.argmax, torch.argmax, T.argmin, torch.argmin, T.argsort, torch.argsort, torch.zeros_like, torch.ones_like,
    torch.empty_like, torch.full_like, torch.rand_like, torch.randn_like, T.new_zeros, T.new_ones, T.new_empty,
    T.new_full, T.new_tensor, T.item, T.tolist, T.__bool__, T.__float__, T.__int__, T.eq, T.ne, T.lt, T.le, T.gt, T.ge,
    T.__eq__, T.__ne__, T.__lt__, T.__le__, T.__gt__, T.__ge__, torch.isnan, torch.isinf, torch.isfinite, torch.equal,
    torch.allclose, torch.is_tensor, torch.numel, T.is_complex, torch.is_complex, T.nelement, T.is_same_size,
)  # fmt: skip


@handles(*_QUESTIONS)
def question(_engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Questions about a tensor, comparisons and new tensors shaped like it carry no relevance."""
    return function(*args, **kwargs)


@handles(T.__setitem__, T.copy_, T.index_copy_, T.zero_, T.fill_, T.masked_fill_)
def written(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Writing in place is run natively: what is overwritten gets nothing, what is written passes through."""
    target = args[0]
    record = provenance(target)
    before = target.grad_fn
    with torch.enable_grad():
        output = function(*args, **kwargs)
    if target.grad_fn is not None:
        engine._learn(target.grad_fn, {before, *(x.grad_fn for x in tensors(args))})
        facts = record or Provenance(None)
        remember(target, Provenance(target.grad_fn, facts.gate))
    return output
