"""Scale: how raw relevance is turned into colour, as a value that can be stated beside the picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whybox.core.explanation import Explanation

PERCENTILE = 99.5

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Scale:
    """Relevance ±`limit` and beyond has the full colour, zero has none, and between them the colour is linear.

    Attributes:
        limit: the 99.5th percentile of |R| over the positions; 0 where all relevance is zero; 1 for a mask.
        signed: whether there is relevance below zero, so that two colours are needed.
        absolute: whether the limit is the same for all maps, and not a percentile of this one.
    """

    limit: float
    signed: bool
    absolute: bool = False

    def says(self) -> str:
        """The scale in words."""
        if not self.limit:
            return "all relevance is zero: nothing is drawn"
        value = number(self.limit)
        if self.absolute:
            return f"full colour at R = {value}"
        return f"full colour at |R| ≥ {value}" if self.signed else f"full colour at R ≥ {value}"


# That of masks: on a scale of its own an almost empty one would look full.
MASK = Scale(1.0, signed=False, absolute=True)


def number(value: float) -> str:
    """A number with three significant digits as people write it: 0.0215, 11 142, −3.4 × 10⁻⁷; — where there is none."""
    if not math.isfinite(value):
        return "—" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0 or 1e-4 <= abs(value) < 999.5:
        text = f"{value:.3g}"
    elif 999.5 <= abs(value) < 1e6:
        text = f"{value:,.0f}".replace(",", "\u202f")
    else:
        digits, _, exponent = f"{value:.2e}".partition("e")
        text = f"{float(digits):g} × 10{str(int(exponent)).translate(_RAISED)}"
    return text.replace("-", "−")


def scale_of(maps: Tensor | Sequence[Tensor], *, signed: bool | None = None) -> Scale:
    """The scale of one map, or of several that share it.

    The limit is the 99.5th percentile of |R| over all values, or the largest where that percentile is zero (a map
    of a few points). Values that are not finite are left out.

    Args:
        maps: relevance by position, of any shape.
        signed: whether two colours are needed; None to see for itself.
    """
    parts = [maps] if isinstance(maps, Tensor) else list(maps)
    values = torch.cat([part.detach().cpu().double().flatten() for part in parts]).numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        return Scale(0.0, bool(signed))
    limit = float(np.percentile(np.abs(values), PERCENTILE)) or float(np.abs(values).max())
    return Scale(limit, bool((values < 0).any()) if signed is None else signed)


def scale_for(explanation: Explanation, sample: int, *, signed: bool | None = None) -> Scale:
    """The scale of one sample's map: its own, in two colours if it is `signed`, or that of all masks."""
    return MASK if explanation.shows == "mask" else scale_of(explanation.by_position()[sample], signed=signed)
