"""Attention: softmax(q kᵀ · scale + mask) v, whose two products give each side half (the uniform rule of AttnLRP)."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import handles
from whybox.attribution.backprop.kinds.products import halved
from whybox.attribution.backprop.provenance import provenance

# The engine of these handlers is that of LRP or that of DeepLIFT, which takes all in single steps.
_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


@handles(F.scaled_dot_product_attention)
def attention(engine: Any, function: Any, args: Any, kwargs: Any) -> Any:
    """By torch's own kernel: half of the relevance goes to v; the scores hand on a quarter each to q and k.

    The other quarter is what softmax's rule lets pass to the scores and from there to either side. Where one of the
    three is a constant its product is a dense layer with the composite's rule, so that all is done in single steps.
    """
    given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    query, key, value = (given.pop(name) for name in _NAMES[:3])
    record = provenance(value)
    if engine.stepwise or record is None or provenance(query) is None or provenance(key) is None:
        return engine.decomposed(in_steps, query, key, value, **given)
    half = halved(engine, query), halved(engine, key), value
    return halved(engine, engine.native(function, half, given), record.nonnegative)


def in_steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    seen: Callable[[Tensor], Tensor] = lambda probabilities: probabilities,
) -> Tensor:
    """What `F.scaled_dot_product_attention` computes, one operation after the other.

    `seen` is handed the probabilities (…, l, s), and gives those that the values are multiplied by.
    """
    if enable_gqa:
        heads = query.shape[-3]
        key, value = (x.repeat_interleave(heads // x.shape[-3], -3) for x in (key, value))
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _as_scores(~attn_mask, query.dtype)
    weights = torch._safe_softmax(_scores(query, key, attn_mask, scale), -1)  # zero where all of a row is masked
    return F.dropout(seen(weights), dropout_p) @ value


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """q kᵀ · scale + mask."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return scores if mask is None else scores + mask


def _as_scores(masked: Tensor, dtype: torch.dtype) -> Tensor:
    """−∞ where masked, else 0."""
    return torch.zeros_like(masked, dtype=dtype).masked_fill(masked, -torch.inf)


@handles(F.multi_head_attention_forward)
def multi_head_attention(engine: Any, _function: Any, args: Any, kwargs: Any) -> Any:
    """Its projections are dense layers, between which there is attention."""
    given = _MULTI_HEAD.bind(*args, **kwargs)
    given.apply_defaults()
    return engine.decomposed(_multi_head, SimpleNamespace(**given.arguments))


def _multi_head(given: Any) -> tuple[Tensor, Tensor | None]:
    """What torch computes, for sequences of tokens (l, n, e), or (l, e) of a single sample."""
    single = given.query.ndim == 2
    query, key, value = _projected(given)
    length, batch, width = query.shape

    def split(x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (given.num_heads, -1))
        return heads.permute(1, 2, 0, 3)

    mask, causal = _mask(given, batch, query.dtype)
    if given.bias_k is not None:
        key, value = (torch.cat([x, b.repeat(1, batch, 1)]) for x, b in ((key, given.bias_k), (value, given.bias_v)))
    query, key, value = split(query), split(key), split(value)
    key, value = (
        x if static is None else static.unflatten(0, (batch, given.num_heads))
        for x, static in ((key, given.static_k), (value, given.static_v))
    )
    if given.add_zero_attn:
        key, value = (F.pad(x, (0, 0, 0, 1)) for x in (key, value))
    dropout = given.dropout_p if given.training else 0.0
    weights = None
    if given.need_weights:
        weights = F.dropout(_scores(query, key, mask).softmax(-1), dropout)  # NaN where all of a row is masked
        mixed = weights @ value
        weights = weights.mean(1) if given.average_attn_weights else weights
        weights = weights.squeeze(0) if single else weights
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout, causal)
    mixed = mixed.permute(2, 0, 1, 3).reshape(length, batch, width)
    output = F.linear(mixed, given.out_proj_weight, given.out_proj_bias)
    return output.squeeze(1) if single else output, weights


def _projected(given: Any) -> list[Tensor]:
    """Queries, keys and values before they are split into heads."""
    tokens = [x.unsqueeze(1) if given.query.ndim == 2 else x for x in (given.query, given.key, given.value)]
    if given.query is given.key is given.value and not given.use_separate_proj_weight:
        return list(F.linear(tokens[0], given.in_proj_weight, given.in_proj_bias).chunk(3, -1))
    weights = (
        (given.q_proj_weight, given.k_proj_weight, given.v_proj_weight)
        if given.use_separate_proj_weight
        else given.in_proj_weight.chunk(3)
    )
    biases = (None,) * 3 if given.in_proj_bias is None else given.in_proj_bias.chunk(3)
    return [F.linear(*each) for each in zip(tokens, weights, biases, strict=True)]


def _mask(given: Any, batch: int, dtype: torch.dtype) -> tuple[Tensor | None, bool]:
    """What is added to the scores (n, heads, l, s), and whether they are causal instead."""
    mask, padding, causal = given.attn_mask, given.key_padding_mask, given.is_causal
    if causal and padding is None and not given.need_weights:
        return None, True
    mask, padding = (_as_scores(x, dtype) if x is not None and x.dtype == torch.bool else x for x in (mask, padding))
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (batch, given.num_heads))
    added = int(given.bias_k is not None) + int(given.add_zero_attn)
    parts = [mask, None if padding is None else padding.reshape(batch, 1, 1, -1)]
    parts = [F.pad(part, (0, added)) for part in parts if part is not None]
    return (sum(parts[1:], parts[0]) if parts else None), False
