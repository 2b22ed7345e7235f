"""Which operation is of which kind to DeepLIFT: mostly as the table of relevance has it."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from whybox.attribution.backprop import kinds
from whybox.attribution.backprop.kinds import attention, averages, elementwise, linear, norms, products, shapes, writing
from whybox.attribution.backprop.lift import curves, maps, ratios, recurrence
from whybox.attribution.backprop.lift.winners import greatest, pooled
from whybox.attribution.backprop.table import KINDS, Handler, named

# What has a handler for relevance → the handler that it has here.
_ALIKE: dict[Handler, Handler] = {
    **dict.fromkeys(
        (shapes.rearrangement, shapes.pad, shapes.selection, averages.average, averages.resampling,
         elementwise.addition, elementwise.addition_at_places), maps.affine),
    **dict.fromkeys(
        (linear.convolution, linear.transposed_convolution, linear.dense, products.matmul, products.einsum,
         products.matmul_and_sum, elementwise.product), maps.quadratic),
    **dict.fromkeys(
        (kinds.activations.activation, averages.chosen, elementwise.multiplied_and_added), curves.elementwise
    ),
    elementwise.quotient: curves.quotient,
    **dict.fromkeys((kinds.activations.softmax, kinds.activations.logarithm_of_softmax), ratios.softmax),
    **dict.fromkeys((writing.written, writing.zeroed), maps.written),
    kinds.activations.relu: curves.relu,
    kinds.activations.spread_and_mean: ratios.spread,
    elementwise.gated_linear_unit: ratios.glu,
    norms.layer_norm: ratios.layer_norm,
    norms.rms_norm: ratios.rms_norm,
    norms.group_norm: ratios.group_norm,
    norms.instance_norm: ratios.instance_norm,
    linear.batch_norm: ratios.batch_norm,
    averages.dropout: maps.dropout,
    shapes.question: maps.question,
    writing.cut: maps.kept,
    writing.cut_in_place: maps.kept_in_place,
    writing.reshaped: writing.reshaped,
    attention.attention: attention.attention,
    attention.multi_head_attention: attention.multi_head_attention,
    kinds.recurrence.packing: maps.affine,
    kinds.recurrence.recurrent_net: recurrence.recurrent_net,
    kinds.recurrence.recurrent_cell: recurrence.recurrent_cell,
}  # fmt: skip


def _all(*names: str) -> list[Any]:
    return [function for name in names for function in named(name)]


_POOLS = ("", "_with_indices")

# What is of another kind here.
OWN: dict[Any, Handler | None] = {
    **dict.fromkeys(curves.CURVES, curves.elementwise),
    **dict.fromkeys(_all("std", "var"), ratios.spread),
    **dict.fromkeys(_all("norm", "vector_norm"), ratios.norm),
    **dict.fromkeys(_all("max", "amax", "min", "amin"), greatest),
    **dict.fromkeys(
        _all(
            *(
                f"{kind}max_pool{n}d{more}"
                for kind in ("", "adaptive_")
                for n in "123"
                for more in ("", "_with_indices")
            )
        ),
        pooled,
    ),
    **dict.fromkeys(_all("lp_pool1d", "lp_pool2d", "lp_pool3d"), None),
    **dict.fromkeys(_all("lerp"), maps.quadratic),
    F.local_response_norm: ratios.lrn,
    F.normalize: ratios.normalize,
}


def handler(function: Any) -> Handler | None:
    """What answers a torch function."""
    known = KINDS.get(function)
    return OWN[function] if function in OWN else None if known is None else _ALIKE.get(known)


@cache
def rowwise() -> set[Any]:
    """Operations on batches whose rows do not meet, in so far as they are dear or lie between such."""
    maps = {linear.convolution, linear.transposed_convolution, linear.dense, linear.batch_norm, averages.resampling}
    known = {function for function, kind in KINDS.items() if kind in maps}
    pools = _all(*(f"{kind}_pool{n}d" for kind in ("avg", "adaptive_avg") for n in "123"))
    winners = {function for function, kind in OWN.items() if kind is pooled}
    copies = _all("clone", "contiguous")  # the model's input is one; views keep a repeated row by themselves
    return known | curves.pointwise() | {*pools, *winners, *copies, torch.cat}
