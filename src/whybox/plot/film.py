"""Film: the masks of a search on its way to the last one, as a strip."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.plot.change import is_change
from whybox.plot.colour import heat
from whybox.plot.scale import MASK

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase


def film_of(explanation: Explanation, sample: int) -> Float[Tensor, "frames ..."] | None:
    """The masks of one sample from the start of the search to its end; None where the method has kept none.

    Methods keep them in `details["film"]`, (n, frames, *grid), where they are asked to, as by `NeuroMask(film=8)`: at
    steps equally far apart, the first and the last among them. The film of a contrast shows inputs, not masks.
    """
    if is_change(explanation):
        return None
    frames = explanation.details.get("film")
    return frames[sample].detach().cpu() if isinstance(frames, Tensor) else None


def draw_film(figure: "FigureBase", frames: Float[Tensor, "frames ..."]) -> None:
    """Draw the strip, with how much of the search is done: masks of pictures side by side, of a series as rows."""
    done = [f"{share:.0%}" for share in reversed(torch.linspace(1, 0, len(frames)).tolist())]
    if frames.ndim == 3:
        axes = figure.subplots(1, len(frames), squeeze=False)[0]
        for ax, frame, share in zip(axes, frames, done, strict=True):
            ax.imshow(heat(frame, MASK), interpolation="nearest")
            ax.set_title(share, fontsize="small")
    else:
        axes = [figure.subplots()]
        axes[0].imshow(heat(frames, MASK), interpolation="nearest", aspect="auto")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color="0.8", linewidth=0.5)
    if frames.ndim == 2:
        axes[0].set_yticks(range(len(frames)), done, fontsize="x-small")
    figure.suptitle("how it was found: the search from its start to its end", fontsize="small")
