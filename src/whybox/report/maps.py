"""Maps: the relevance of one sample, ready to be shown."""

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.core.tree import as_tuple
from whybox.plot import Scale, heat, number, scale_for, words
from whybox.plot import explanation as draw
from whybox.report.images import as_bytes, data_uri, webp
from whybox.report.passage import PassageView, passage_view

# Below this many positions a side, every position is drawn as a crisp square.
CRISP = 64
# What relevance is made of where its sum over the positions says nothing: a place has its region's value, or a mask's.
SUMLESS = ("regions", "mask")


@dataclass(frozen=True)
class MapView:
    """One map, ready to be shown.

    Attributes:
        uri: the map as a picture: colours with opacity to lie over the input, or a finished figure.
        overlay: whether it is to lie over the input.
        alt: the map in words.
        says: the scale in words.
        limit: |R| at full colour.
        signed: whether it has two colours.
        crisp: whether its positions are few enough to be drawn as squares.
        total: the sum of the relevance; "" where it says nothing: of a mask, and where a place has its region's value.
        passage: the text in colour, which takes the picture's place.
    """

    uri: str
    overlay: bool
    alt: str
    says: str
    limit: float
    signed: bool
    crisp: bool
    total: str
    passage: PassageView | None = None


def is_signed(explanation: Explanation) -> bool:
    """Whether there is relevance below zero anywhere in the batch."""
    return bool((explanation.by_position() < 0).any())


def map_view(explanation: Explanation, sample: int, title: str, *, signed: bool) -> MapView:
    """The map of one sample, on a scale of its own, in two colours if it is `signed`."""
    if explanation.passages is not None:
        return _text(explanation, sample, title)
    values = explanation.by_position()[sample]
    sumless = explanation.shows in SUMLESS
    scale = scale_for(explanation, sample, signed=signed)
    if as_tuple(explanation.inputs)[0].ndim == 4 and values.ndim == 2:
        view = overlay(values, scale, title)
        size = tuple(as_tuple(explanation.inputs)[0].shape[2:])
        coarse = "" if tuple(values.shape) == size else f"{values.shape[1]} × {values.shape[0]} positions; "
        return replace(view, says=coarse + view.says, total="" if sumless else view.total)
    return MapView(
        uri=_figure(explanation, sample),
        overlay=False,
        alt=f"{title}: relevance drawn as bars",
        says="raw relevance",
        limit=scale.limit,
        signed=scale.signed,
        crisp=False,
        total="" if sumless else number(float(values.double().sum())),
    )


def _text(explanation: Explanation, sample: int, title: str) -> MapView:
    """A text, each token on the colour of its relevance."""
    found, scale = words(explanation, sample)
    passage = passage_view(explanation, sample)
    return MapView(
        uri="",
        overlay=False,
        alt=f"{title}: the text in colour",
        says=f"{scale.says()}; blue words are underlined" if scale.signed else scale.says(),
        limit=scale.limit,
        signed=scale.signed,
        crisp=False,
        total="" if explanation.shows == "mask" else number(sum(word.value for word in found)),
        passage=passage,
    )


def overlay(values: Tensor, scale: Scale, title: str) -> MapView:
    """A map of a picture (h, w) on a given scale."""
    return MapView(
        uri=data_uri(webp(heat(values, scale))),
        overlay=True,
        alt=f"{title}: {_where(values, scale)}",
        says=scale.says(),
        limit=scale.limit,
        signed=scale.signed,
        crisp=max(values.shape) <= CRISP,
        total=number(float(values.double().sum())),
    )


def composed(pixels: UInt8[np.ndarray, "h w 3"], values: Tensor, scale: Scale) -> UInt8[np.ndarray, "h w 3"]:
    """A map (of any size) over a picture in pale grey, in the picture's size."""
    colours = heat(values, scale).astype(np.float32) / 255
    rows = np.arange(pixels.shape[0]) * colours.shape[0] // pixels.shape[0]
    columns = np.arange(pixels.shape[1]) * colours.shape[1] // pixels.shape[1]
    colours = colours[rows][:, columns]
    grey = 0.45 + 0.55 * (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] / 255
    return as_bytes(grey * (1 - colours[..., 3:]) + colours[..., :3] * colours[..., 3:])


def _figure(explanation: Explanation, sample: int) -> str:
    """Whatever is not a picture, as a finished figure."""
    file = io.BytesIO()
    draw(explanation, sample).savefig(file, format="png", dpi=110, facecolor="white")
    with Image.open(file) as image:
        return data_uri(webp(np.asarray(image.convert("RGB"))))


def _where(values: Tensor, scale: Scale) -> str:
    """In words, how much speaks for and against, and where the middle of the strength lies."""
    values = torch.nan_to_num(values.double(), posinf=0.0, neginf=0.0)
    strength = values.abs()
    total = float(strength.sum())
    if not scale.limit or not total:
        return "no relevance anywhere"
    height, width = values.shape
    row = float((strength.sum(1) * torch.arange(height)).sum() / total) / max(height - 1, 1)
    column = float((strength.sum(0) * torch.arange(width)).sum() / total) / max(width - 1, 1)
    down = "upper" if row < 0.4 else "lower" if row > 0.6 else ""
    right = "left" if column < 0.4 else "right" if column > 0.6 else ""
    place = f"in the {down} {right} part".replace("  ", " ") if down or right else "around the centre"
    weight = (
        f"{float(values.clamp_min(0).sum()) / total:.0%} of the strength speaks for the target, "
        if scale.signed
        else ""
    )
    return f"{weight}centred {place} of the picture"
