"""Truth: where the evidence lies, as metrics of localisation are told. The one place that says in which forms.

`truth=` is a tensor with one row per sample, in one of two forms:

- masks, boolean, true where the evidence lies: (n, *places) or (n, 1, *places), with the places of the input: (n, h, w)
  for pictures (n, c, h, w), (n, t) for series (n, c, t), and the input's own shape for tables (n, d) and tokens (n, t).
- boxes, integers, for pictures: (n, 4), or (n, k, 4) for k of them in each, as x0, y0, x1, y1 in pixels: the columns
  x0 ≤ x < x1 of the rows y0 ≤ y < y1. What lies beyond the picture is cut off. A sample of fewer than k boxes is filled
  up with such as hold nothing: 0, 0, 0, 0.

A sample whose truth marks no place has no score: it counts neither as a hit nor as a miss.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.tree import Inputs, as_tuple


def inside(truth: Tensor | None, inputs: Inputs) -> Bool[Tensor, "n ..."]:
    """The truth as masks over the places of the input, on the CPU.

    Raises: InputError where it has none of the forms, or the model has several inputs.
    """
    if len(as_tuple(inputs)) > 1:
        raise InputError("localisation is measured for models with one input; this one has several")
    x = as_tuple(inputs)[0]
    places = tuple(x.shape[2:] if x.ndim > 2 else x.shape[1:])
    if truth is not None and truth.dtype == torch.bool:
        if truth.shape in ((len(x), *places), (len(x), 1, *places)):
            return truth.detach().cpu().reshape(len(x), *(places or (1,)))
    elif truth is not None and is_boxes(truth) and len(places) == 2 and truth.shape[:1] == x.shape[:1]:
        return _filled(truth.detach().cpu().reshape(len(x), -1, 4), *places)
    what = "nothing" if truth is None else f"{truth.dtype} of shape {tuple(truth.shape)}"
    boxes = f" or integer boxes x0, y0, x1, y1 ({len(x)}, 4) or ({len(x)}, k, 4)" if len(places) == 2 else ""
    raise InputError(f"truth is a boolean mask of shape {(len(x), *places)}{boxes}, not {what}")


def is_boxes(truth: Tensor) -> bool:
    """Whether the truth is given as boxes."""
    return truth.dtype in (torch.int64, torch.int32, torch.int16) and truth.ndim in (2, 3) and truth.shape[-1] == 4


def box_around(masks: Bool[Tensor, "n ..."]) -> Bool[Tensor, "n ..."]:
    """The smallest box around all that each mask marks."""
    box = torch.ones_like(masks)
    for axis in range(1, masks.ndim):
        line = masks.movedim(axis, -1).reshape(len(masks), -1, masks.shape[axis]).any(1).long()
        between = (line.cumsum(1) > 0) & (line.flip(1).cumsum(1).flip(1) > 0)
        shape = [len(masks)] + [1] * (masks.ndim - 1)
        shape[axis] = -1
        box &= between.view(shape)
    return box


def _filled(boxes: Tensor, height: int, width: int) -> Tensor:
    """What the boxes (n, k, 4) of each sample cover together (n, height, width)."""
    left, top, right, bottom = (edge[..., None] for edge in boxes.unbind(2))
    if bool((right < left).any()) or bool((bottom < top).any()):
        raise InputError("a box ends before it begins: boxes are x0, y0, x1, y1, not x, y, width, height")
    columns, rows = torch.arange(width), torch.arange(height)
    across, down = (columns >= left) & (columns < right), (rows >= top) & (rows < bottom)
    return (down[..., :, None] & across[..., None, :]).any(1)
