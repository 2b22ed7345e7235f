"""Pictures of which it is known where the evidence lies, all from scikit-learn's digits and a seed."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox import datasets

SIZE = 28
PATCH = 4
COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])  # red, and what is not red at all


class Pictures(NamedTuple):
    """Pictures (n, c, h, w) in [0, 1], their labels (n,), and the mask (n, 1, h, w) of what is to be found in them."""

    images: Tensor
    labels: Tensor
    truth: Tensor

    def where(self, chosen: Tensor) -> "Pictures":
        """These of the pictures."""
        return Pictures(*(part[chosen] for part in self))


def digits(split: str, scale: int = 3, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """The digits (n, 1, size, size), enlarged and framed in black, and their labels."""
    images, labels = datasets.load("digits", split=split)
    large = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
    frame = size - large.shape[-1]
    return F.pad(large, (frame // 2, frame - frame // 2) * 2), labels


def stamped(images: Tensor, row: int, column: int) -> tuple[Tensor, Tensor]:
    """The pictures with a white patch there, and the mask of the patch."""
    place = (..., slice(row, row + PATCH), slice(column, column + PATCH))
    images, mask = images.clone(), torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
    images[place], mask[place] = 1.0, True
    return images, mask


def scenes(split: str, count: int, seed: int) -> Pictures:
    """Four digits of different colours (3, 48, 48): the label is that of the red one, and its ink is the truth."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits(split, scale=2, size=16)
    chosen = torch.randint(len(images), (count, 4), generator=generator)
    colour = torch.rand(count, 4, generator=generator).argsort(1)
    row, column = torch.randint(9, (2, count, 4), generator=generator)
    canvas = torch.zeros(count, 3, 48, 48)
    for cell in range(4):
        box = _boxes(row[:, cell] + 24 * (cell // 2), column[:, cell] + 24 * (cell % 2), 48)
        ink = images[chosen[:, cell]] * COLOURS[colour[:, cell]][:, :, None, None]
        canvas[box.expand(-1, 3, -1, -1)] = ink.flatten()
    red = (colour == 0).int().argmax(1)
    return Pictures(canvas, labels[chosen[torch.arange(count), red]], canvas[:, :1] > 0)


class Pasted(NamedTuple):
    """Digits on textures (n, 1, 32, 32), the textures alone, both kinds of labels, and the box of the digit."""

    images: Tensor
    textures: Tensor
    digit: Tensor
    texture: Tensor
    box: Tensor


def pasted(split: str, count: int, seed: int) -> Pasted:
    """A digit at a random place on a texture, the two drawn independently of each other."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = digits(split, scale=2, size=16)
    chosen = torch.randint(len(images), (count,), generator=generator)
    kind = torch.randint(10, (count,), generator=generator)
    background = textures(kind, 32, generator)
    box = _boxes(*torch.randint(17, (2, count), generator=generator), 32)
    ink = torch.zeros_like(background)
    ink[box] = images[chosen].flatten()
    return Pasted(background * (1 - ink) + ink, background, labels[chosen], kind, box)


def textures(kind: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Textures of ten kinds (n, 1, size, size) in [0, 0.6]: waves in four directions of two lengths, checks, noise."""
    n = len(kind)
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    phase = 2 * torch.pi * torch.rand(n, 2, 1, 1, generator=generator)
    angle = (kind % 4).float().view(-1, 1, 1) * torch.pi / 4
    length = torch.where(kind < 4, 4.0, 8.0).view(-1, 1, 1)
    wave = torch.sin(2 * torch.pi / length * (x * angle.cos() + y * angle.sin()) + phase[:, 0])
    checks = torch.sign(torch.sin(x * torch.pi / 4 + phase[:, 0]) * torch.sin(y * torch.pi / 4 + phase[:, 1]))
    noise = 2 * torch.rand(n, size, size, generator=generator) - 1
    values = torch.where((kind < 8).view(-1, 1, 1), wave, torch.where((kind == 8).view(-1, 1, 1), checks, noise))
    contrast = 0.5 + 0.5 * torch.rand(n, 1, 1, generator=generator)
    return (0.3 + 0.3 * contrast * values)[:, None]


def _boxes(row: Tensor, column: Tensor, size: int, side: int = 16) -> Tensor:
    """Masks (n, 1, size, size) of the boxes that begin there."""
    at = torch.arange(size)
    inside = [(at >= start[:, None]) & (at < start[:, None] + side) for start in (row, column)]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
