"""Colours: red speaks for the target, blue against it, green is strength without direction.

Red and blue differ to every kind of colour vision (they are the ends of ColorBrewer's RdBu). The colour itself is
constant and the strength is its opacity, so that a map can lie over a picture or on paper with the same meaning.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from whybox.plot.scale import Scale

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap

FOR = (178, 24, 43)
AGAINST = (33, 102, 172)
STRENGTH = (0, 109, 82)

# Steps between no colour and full colour. Few enough for a palette, which keeps the files small.
LEVELS = 127


def heat(values: Float[Tensor, "h w"], scale: Scale) -> UInt8[np.ndarray, "h w 4"]:
    """The map as colours (red, green, blue, opacity), each 0 to 255.

    The opacity is |R| / limit, at most 1, in 127 steps; what is not finite is transparent.
    """
    raw = values.detach().cpu().double().numpy()
    finite = np.isfinite(raw)
    share = np.where(finite, raw, 0.0) / (scale.limit or 1.0)
    level = np.rint(np.clip(np.abs(share), 0, 1) * LEVELS) * bool(scale.limit)
    colours = np.zeros((*raw.shape, 4), np.uint8)
    if scale.signed:
        colours[share > 0, :3], colours[share < 0, :3] = FOR, AGAINST
    else:
        colours[..., :3] = STRENGTH
    colours[..., 3] = np.rint(level * 255 / LEVELS)
    colours[level == 0] = 0
    return colours


def colour_map(*, signed: bool) -> "LinearSegmentedColormap":
    """The same colours on white, for matplotlib: from −limit to limit if signed, else from 0 to limit."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = [AGAINST, (255, 255, 255), FOR] if signed else [(255, 255, 255), STRENGTH]
    name = "whybox signed" if signed else "whybox strength"
    return LinearSegmentedColormap.from_list(name, [tuple(part / 255 for part in colour) for colour in ends])
