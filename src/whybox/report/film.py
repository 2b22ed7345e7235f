"""Film: the masks of a search on its way, as one picture."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.core.tree import as_tuple
from whybox.plot import picture
from whybox.plot.film import film_of
from whybox.plot.scale import MASK
from whybox.report.images import as_bytes, data_uri, webp
from whybox.report.maps import CRISP, composed


@dataclass(frozen=True)
class FilmView:
    """The strip of one method's masks.

    Attributes:
        title: what to call the method.
        uri: the masks side by side, over the picture in pale grey.
        width, height: of the strip, in positions.
        crisp: whether its positions are few enough to be drawn as squares.
        frames: how many masks there are.
        says: the scale in words.
    """

    title: str
    uri: str
    width: int
    height: int
    crisp: bool
    frames: int
    says: str


def film_view(explanation: Explanation, sample: int, title: str) -> FilmView | None:
    """The masks on the way to the last, where the method has kept them and they lie over a picture; else None."""
    frames, inputs = film_of(explanation, sample), as_tuple(explanation.inputs)[0]
    if frames is None or frames.ndim != 3 or inputs.ndim != 4:
        return None
    strip = _strip(frames, as_bytes(picture(inputs[sample], explanation.domains[0])))
    height, width = strip.shape[:2]
    crisp = height <= CRISP
    uri = data_uri(webp(strip, None if crisp else 85))
    return FilmView(title, uri, width, height, crisp, len(frames), MASK.says())


def _strip(frames: Tensor, pixels: np.ndarray) -> np.ndarray:
    """The frames side by side with a gap between them, which shows what is behind."""
    gap = max(1, pixels.shape[1] // 32)
    parts = [np.pad(composed(pixels, frame, MASK), ((0, 0), (0, gap), (0, 0))) for frame in frames]
    clear = [np.pad(np.full((*pixels.shape[:2], 1), 255, np.uint8), ((0, 0), (0, gap), (0, 0))) for _ in frames]
    return np.concatenate((np.concatenate(parts, 1), np.concatenate(clear, 1)), 2)[:, :-gap]
