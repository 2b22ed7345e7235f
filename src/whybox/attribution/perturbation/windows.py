"""Windows that slide over the positions of every input: what each covers, and means over those that cover a place."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.attribution.perturbation.partition import position_axes, relevance_dtype
from whybox.core.errors import InputError
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, like

Size = int | tuple[int, ...] | None


def eighth(size: int) -> int:
    """The width of a window on an axis of this size, where a method has no other habit."""
    return -(-size // 8)


@dataclass(frozen=True)
class Windows:
    """The windows of a task's inputs, numbered from 0 over all inputs; the same for every sample.

    A window is a product of intervals, so it is known by its place in a grid, and a grid by one table per axis.

    Attributes:
        covers: for each input and each of its `axes`, which window covers which place: booleans (windows, places).
        axes: the axes of each input that have windows.
        inputs: the task's inputs.
    """

    covers: tuple[tuple[Tensor, ...], ...]
    axes: tuple[tuple[int, ...], ...]
    inputs: Inputs

    @classmethod
    def of(cls, task: Task, window: Size, stride: Size, usual_width: Callable[[int], int] = eighth) -> "Windows":
        """Windows from the first place to the last, where they are cut; sizes for all axes, or one for each.

        None is a window of the usual width (of one column or token), and a stride of half the window.
        """
        covers, axes = [], position_axes(task)
        for x, along in zip(as_tuple(task.inputs), axes, strict=True):
            sizes = [x.shape[axis] for axis in along]
            usual = [1 if axis == 1 else usual_width(size) for axis, size in zip(along, sizes, strict=True)]
            widths = _each(window, usual, "window")
            strides = _each(stride, [-(-width // 2) for width in widths], "stride")
            for size, width, step in zip(sizes, widths, strides, strict=True):
                if width > size or step > width:
                    raise InputError(
                        f"a window of {width} at a stride of {step} does not slide over {size} places: the window is "
                        "at most as wide as the input, the stride as the window"
                    )
            covers.append(tuple(map(_covers, sizes, widths, strides)))
        return cls(tuple(covers), axes, task.inputs)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many windows each input has."""
        return tuple(math.prod(map(len, covers)) for covers in self.covers)

    def kept(self, number: Tensor) -> Inputs:
        """Masks (k, …) that are False in window number[j]; all True where there is no such window."""
        masks = []
        for x, covers, axes, count in zip(as_tuple(self.inputs), self.covers, self.axes, self.counts, strict=True):
            hidden = ((number >= 0) & (number < count)).view(-1, *(1,) * (x.ndim - 1)).to(x.device)
            place = number.clamp(0, count - 1)
            for cover, axis in reversed(list(zip(covers, axes, strict=True))):
                shape = [1] * x.ndim
                shape[0], shape[axis] = len(number), -1
                hidden = hidden & cover[place % len(cover)].to(x.device).view(shape)
                place = place // len(cover)
            masks.append(~hidden)
            number = number - count
        return like(self.inputs, tuple(masks))

    def grids(self, values: Tensor) -> tuple[Tensor, ...]:
        """Each window's value (n, windows) as one grid for each input, (n, *grid)."""
        parts = zip(values.split(self.counts, 1), self.covers, strict=True)
        return tuple(part.reshape(len(values), *map(len, covers)) for part, covers in parts)

    def average(self, values: Tensor) -> Inputs:
        """At each place the mean of the values (n, windows) of those that cover it: relevance of the inputs."""
        parts = []
        for x, grid, covers, axes in zip(
            as_tuple(self.inputs), self.grids(values), self.covers, self.axes, strict=True
        ):
            shape = [x.shape[axis] if axis in axes else 1 for axis in range(1, x.ndim)]
            for cover in covers:  # each moves its axis to the end, so that all are in order again
                grid = torch.tensordot(grid, cover.to(grid) / cover.sum(0), ([1], [0]))
            parts.append(grid.reshape(len(grid), *shape).to(x.device, relevance_dtype(x)))
        return like(self.inputs, tuple(parts))


def _covers(size: int, width: int, stride: int) -> Tensor:
    starts = torch.arange(-(-(size - width) // stride) + 1)[:, None] * stride
    places = torch.arange(size)
    return (places >= starts) & (places < starts + width)


def _each(given: Size, usual: list[int], name: str) -> list[int]:
    """One size for every axis."""
    sizes = usual if given is None else [given] * len(usual) if isinstance(given, int) else list(given)
    if len(sizes) != len(usual) or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise InputError(
            f"{name} is a whole number from 1, or one for each of {len(usual)} axes of positions, not {given}"
        )
    return sizes
