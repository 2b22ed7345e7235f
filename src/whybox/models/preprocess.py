"""ImagePreprocess: from a picture to a model's input and back, as plain values."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.model import Domain

_CHANNELS = {"RGB": 3, "L": 1}
_LARGEST = 50_000_000  # pixels after resizing: a sliver of a picture must not grow without bound


@dataclass(frozen=True)
class ImagePreprocess:
    """Resize, centre crop, scale to [0, 1], normalise: x = (pixel / 255 − mean) / std.

    Equals the evaluation transforms of torchvision and timm, and the processors of transformers, to float32 rounding.

    Attributes:
        mode: the colours of the input: "RGB" (three channels) or "L" (grey, one channel).
        resize: the length of the shorter side (the longer one follows), or (height, width) regardless of the
            picture's proportions, or None.
        crop: (height, width) cut from the centre, black added where the picture is smaller; or None.
        interpolation: how to resize, in Pillow's words: "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming".
        mean: subtracted from every channel: one value per channel, or one for all.
        std: what every channel is then divided by: one value per channel, or one for all.
        crop_offset: where the crop begins when the margin is odd: at the "nearest" whole pixel, halves to even
            (torchvision, timm), or at the "floor" (transformers).
    """

    mode: Literal["RGB", "L"] = "RGB"
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    crop_offset: Literal["nearest", "floor"] = "nearest"

    def __post_init__(self) -> None:
        if self.mode not in _CHANNELS:
            raise InputError(f"mode is 'RGB' or 'L', not {self.mode!r}")
        if self.interpolation.upper() not in Image.Resampling.__members__:
            names = ", ".join(Image.Resampling.__members__).lower()
            raise InputError(f"interpolation is one of {names}, not {self.interpolation!r}")
        if {len(self.mean), len(self.std)} - {1, _CHANNELS[self.mode]} or min(self.std) <= 0:
            raise InputError("mean and std have one value, or one per channel, and std is positive")

    def __call__(self, image: Image.Image) -> Float[Tensor, "c h w"]:
        """One input (c, h, w), float32, from a PIL image of any size and mode."""
        image = image.convert(self.mode)
        image = self._cropped(self._resized(image))
        pixels = torch.from_numpy(np.array(image, dtype=np.float32).reshape(image.height, image.width, -1))
        mean, std = self._normalisation()
        return (pixels.permute(2, 0, 1).contiguous() / 255 - mean) / std

    def display(self, x: Float[Tensor, "c h w"]) -> Float[np.ndarray, "h w 3"]:
        """The picture that the model sees: the input back in colours from 0 to 1, grey as three equal channels."""
        mean, std = self._normalisation()
        colours = (x.detach().cpu().float() * std + mean).clamp(0, 1)
        return colours.expand(3, -1, -1).permute(1, 2, 0).numpy()

    @property
    def domain(self) -> Domain:
        """What black and white become: the lowest and the highest valid value of each channel."""
        mean, std = self._normalisation()
        black, white = ((colour - mean) / std for colour in (0, 1))
        return Domain(tuple(black.flatten().tolist()), tuple(white.flatten().tolist()), "preprocessing")

    @property
    def input_size(self) -> tuple[int, int, int] | None:
        """The shape (c, h, w) of every input, or None if it depends on the picture."""
        size = self.crop if self.crop is not None else self.resize
        return (_CHANNELS[self.mode], *size) if isinstance(size, tuple) else None

    def describe(self) -> str:
        """What is done to the picture, in one line."""
        steps = ["colours RGB" if self.mode == "RGB" else "grey"]
        if isinstance(self.resize, int):
            steps.append(f"shorter side to {self.resize} pixels ({self.interpolation})")
        elif self.resize is not None:
            steps.append(f"resized to {self.resize[0]} × {self.resize[1]} pixels ({self.interpolation})")
        if self.crop is not None:
            steps.append(f"centre crop {self.crop[0]} × {self.crop[1]}")
        steps.append("scaled to [0, 1]")
        if set(self.mean) != {0.0} or set(self.std) != {1.0}:
            mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
            steps.append(f"mean ({mean}) subtracted, divided by ({std})")
        return "; ".join(steps)

    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """`mean` and `std` as float32 tensors (c, 1, 1)."""
        return torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        if isinstance(self.resize, int):
            short = min(image.size)
            width, height = (self.resize if side == short else int(self.resize * side / short) for side in image.size)
        else:
            height, width = self.resize
        if width * height > _LARGEST:
            raise InputError(
                f"a picture of {image.width} × {image.height} pixels is too narrow: with the shorter side at "
                f"{self.resize} pixels it would become {width} × {height}; cut it to a part first"
            )
        return image.resize((width, height), Image.Resampling[self.interpolation.upper()])

    def _cropped(self, image: Image.Image) -> Image.Image:
        if self.crop is None:
            return image
        height, width = self.crop
        left, top = self._offset(image.width - width), self._offset(image.height - height)
        return image.crop((left, top, left + width, top + height))  # Pillow fills with black outside the picture

    def _offset(self, margin: int) -> int:
        """Where the crop begins; a negative margin is what is to be added."""
        if self.crop_offset == "floor":
            return margin // 2
        return round(margin / 2) if margin >= 0 else -(-margin // 2)
