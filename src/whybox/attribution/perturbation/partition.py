"""Partition: the regions of a batch, over all inputs of the model, as the players of one game per sample."""

from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.regions import Along, Patches, Regions, Superpixels
from whybox.core.stream import free_memory
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, like

# What a series is divided into where nothing is said: about so many patches of time.
PATCHES = 32


@dataclass(frozen=True)
class Partition:
    """Which values of which sample are hidden together. Samples may have different numbers of regions.

    Attributes:
        labels: for each input the region of every value, (n or 1, …), size 1 on axes not divided. Regions are
            numbered from 0 in each sample; a second input's go on where the first's end.
        counts: how many regions each sample has, (n,) on the CPU.
        inputs: the task's inputs.
    """

    labels: tuple[Tensor, ...]
    counts: Tensor
    inputs: Inputs

    @classmethod
    def of(cls, task: Task, regions: Regions | None) -> "Partition":
        """The regions of the task's inputs; None for what is usual for inputs of their kind."""
        counts = torch.zeros(task.size, dtype=torch.long)
        numbered = []
        for x, axes in zip(as_tuple(task.inputs), position_axes(task), strict=True):
            labels = _checked((regions or usual(x, axes)).labels(x), x)
            before = counts if bool((counts != counts[0]).any()) else counts[:1]
            numbered.append(labels + before.to(x.device).view(-1, *(1,) * (x.ndim - 1)))
            counts = counts + labels.flatten(1).amax(1).cpu() + 1
        return cls(tuple(numbered), counts, task.inputs)

    @property
    def size(self) -> int:
        """The largest number of regions in a sample: the width of a table with one column per region."""
        return int(self.counts.max())

    @property
    def present(self) -> Tensor:
        """Which columns are regions of a sample, (n, size); the others are there for samples with more."""
        return torch.arange(self.size) < self.counts[:, None]

    def masks(self, kept: Tensor, sample: Tensor) -> Inputs:
        """Choices by region (k, size) as masks of the inputs, (k, …), size 1 on axes not divided."""
        parts = []
        for labels in self.labels:
            row = kept.to(labels.device)
            shared = len(labels) == 1
            mask = row[:, labels.flatten()] if shared else row.gather(1, labels[sample.to(row.device)].flatten(1))
            parts.append(mask.view(-1, *labels.shape[1:]))
        return like(self.inputs, tuple(parts))

    def spread(self, values: Tensor) -> Inputs:
        """Each region's value (n, size) at all its places: relevance in the shape of the inputs."""
        whole = self.masks(values, torch.arange(len(values)))
        parts = zip(as_tuple(whole), as_tuple(self.inputs), strict=True)
        return like(self.inputs, tuple(r.to(relevance_dtype(x)) for r, x in parts))

    def check_budget(self, samples: int, least: int) -> None:
        """Raise InputError unless there are at least as many samples as so many regions need."""
        if samples < least:
            raise InputError(
                f"{self.size} regions need at least {least} samples, not {samples}: give samples={least} or more, or "
                "divide into fewer regions, by larger Patches or a smaller count of Superpixels"
            )

    def check_memory(self, needed: int) -> None:
        """Raise InputError where the tables of so many regions need more bytes than this machine has free."""
        free = free_memory()
        if free is not None and needed > free:
            raise InputError(
                f"{self.size} regions in {len(self.counts)} sample(s) need some {needed / 2**30:,.1f} GiB of memory, "
                f"but {free / 2**30:,.1f} GiB are free: explain fewer samples at a time, or divide into fewer regions, "
                "by larger Patches or a smaller count of Superpixels"
            )


def position_axes(task: Task) -> tuple[tuple[int, ...], ...]:
    """The axes of each input along which there are places: time (2,), pixels (2, 3), columns or tokens (1,).

    Inside a model, three axes are rows of tokens (n, t, d), unless the model's own input is a series (n, c, t).
    """
    original = as_tuple(task.at[1])[0] if task.at else None
    tokens = original is not None and not (original.ndim == 3 and original.is_floating_point())
    inputs = as_tuple(task.inputs)
    return tuple(
        tuple(range(1, x.ndim)) if x.ndim < 3 else (1,) if x.ndim == 3 and tokens else tuple(range(2, x.ndim))
        for x in inputs
    )


def usual(x: Tensor, axes: tuple[int, ...]) -> Regions:
    """The regions of an input of this kind: columns, tokens, patches of time, superpixels, frames."""
    if axes in ((), (1,)):
        return Along(1)
    if len(axes) == 1:
        return Patches(-(-x.shape[2] // PATCHES))
    return Superpixels() if len(axes) == 2 else Along(2)


def relevance_dtype(x: Tensor) -> torch.dtype:
    """That of the input; the default one for tokens."""
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


def _checked(labels: Tensor, x: Tensor) -> Tensor:
    fits = labels.ndim == x.ndim and all(a in (1, b) for a, b in zip(labels.shape, x.shape, strict=True))
    if not fits or labels.is_floating_point() or bool((labels < 0).any()):
        raise InputError(
            f"the regions have shape {tuple(labels.shape)} and {labels.dtype} for an input of {tuple(x.shape)}; labels "
            "are integers from 0 with the input's axes, each of its size or 1"
        )
    return labels.long()
