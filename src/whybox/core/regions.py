"""Regions: which values are hidden together. `labels(x)` numbers them from 0, broadcastable to x (n, …)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy
import skimage.segmentation
import torch
from torch import Tensor

from whybox.core.errors import InputError


class Regions:
    """A way to divide an input. A frozen dataclass with `labels`."""

    def labels(self, x: Tensor) -> Tensor:
        """The region number (from 0) of every value: integers (n or 1, …), size 1 on axes not divided."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pixels(Regions):
    """Every position by itself, its channels together; every column of a table and token of a text."""

    def labels(self, x: Tensor) -> Tensor:
        return Along(1).labels(x) if x.ndim == 2 else _grid(x, lambda place, _: place)


@dataclass(frozen=True)
class Patches(Regions):
    """Square (cubic, …) patches on a grid over the positions; those at the far border are cut to the input.

    Args:
        size: edge of a patch in positions.
    """

    size: int = 8

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"a patch is at least one position wide, not {self.size}")

    def labels(self, x: Tensor) -> Tensor:
        return _grid(x, lambda place, _: place // self.size)


@dataclass(frozen=True)
class Grid(Regions):
    """So many patches along every axis of positions, as equal in size as they can be; at most one for each position.

    In a table every column, and in a text every token, is by itself: neighbours need not belong together.

    Args:
        count: of patches along an axis.
    """

    count: int = 9

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"a grid has at least one patch along an axis, not {self.count}")

    def labels(self, x: Tensor) -> Tensor:
        return (
            Along(1).labels(x) if x.ndim == 2 else _grid(x, lambda place, size: place * min(self.count, size) // size)
        )


@dataclass(frozen=True)
class Along(Regions):
    """One region for each index of one axis: the columns of a table or the tokens of a text (axis 1), frames (axis 2).

    Args:
        axis: of the batch, so that axis 1 is the first of a sample.
    """

    axis: int = 1

    def labels(self, x: Tensor) -> Tensor:
        if not 1 <= self.axis < x.ndim:
            raise InputError(f"axis {self.axis} is none of a sample's: the input has shape {tuple(x.shape)}")
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return torch.arange(x.shape[self.axis], device=x.device).view(shape)


@dataclass(frozen=True)
class Superpixels(Regions):
    """Compact regions of similar colour (SLIC, Achanta et al. 2012), by scikit-image; numbered from 0 in each sample.

    Args:
        count: about how many per picture.
        compactness: how much nearness counts against likeness of colour.
    """

    count: int = 50
    compactness: float = 10.0

    def __post_init__(self) -> None:
        if self.count < 1 or not self.compactness > 0:
            raise InputError(
                f"Superpixels needs a count ≥ 1 and a compactness > 0, not {self.count}, {self.compactness}"
            )

    def labels(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise InputError(f"superpixels need pictures (n, c, h, w), not an input of shape {tuple(x.shape)}")
        pictures = x.detach().cpu().float().permute(0, 2, 3, 1).numpy()
        low, high = pictures.min((1, 2, 3), keepdims=True), pictures.max((1, 2, 3), keepdims=True)
        scaled = (pictures - low) / numpy.maximum(high - low, 1e-12)
        segments = [
            skimage.segmentation.slic(
                picture,
                n_segments=self.count,
                compactness=self.compactness,
                start_label=0,
                convert2lab=picture.shape[-1] == 3,
                channel_axis=-1,
            )
            for picture in scaled
        ]
        numbered = [numpy.unique(segment, return_inverse=True)[1].reshape(segment.shape) for segment in segments]
        return torch.as_tensor(numpy.stack(numbered), device=x.device)[:, None]


def _grid(x: Tensor, cell: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Patch numbers over the positions, (1, 1, …); `cell` says of every place on an axis in which patch it is."""
    if x.ndim < 3:
        raise InputError(
            f"the input has no positions (n, c, …): its shape is {tuple(x.shape)}; use Along(1), "
            "or None where several inputs differ in kind"
        )
    number = torch.zeros((1,) * x.ndim, dtype=torch.long, device=x.device)
    for axis in range(2, x.ndim):
        shape = [1] * x.ndim
        shape[axis] = -1
        patch = cell(torch.arange(x.shape[axis], device=x.device), x.shape[axis])
        number = number * (int(patch[-1]) + 1) + patch.view(shape)
    return number
