"""The picture that the model sees, for showing."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from whybox.core.model import Domain


def picture(
    x: Float[Tensor, "c h w"], domain: Domain, preprocess: Callable[..., Any] | None = None
) -> Float[np.ndarray, "h w 3"]:
    """One input as colours from 0 to 1.

    With a preprocessing that has `display`, as that says; else each channel's domain becomes 0 to 1. One channel is
    shown as grey, three as red, green and blue, any other number as the grey of their mean.
    """
    display = getattr(preprocess, "display", None)
    if display is not None:
        return np.clip(np.asarray(display(x), dtype=np.float32), 0, 1)
    low, high = domain.bounds(x.detach().cpu().float()[None])
    span = (high - low).masked_fill(high == low, 1)
    shown = ((x.detach().cpu().float()[None] - low) / span)[0].clamp(0, 1)
    if len(shown) != 3:
        shown = shown.mean(0, keepdim=True).expand(3, -1, -1)
    return shown.permute(1, 2, 0).numpy()
