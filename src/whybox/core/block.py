"""Block: some variants of a task's samples, each with its own stream of random numbers."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from whybox.core.reference import Infill, Sample, per_row
from whybox.core.tree import Inputs, as_tuple, each, like

if TYPE_CHECKING:
    from whybox.core.task import Task


@dataclass(frozen=True)
class Block:
    """Some variants: variant j belongs to sample[j] of the task, and is its draw[j]-th."""

    task: "Task"
    sample: Tensor
    draw: Tensor

    @property
    def inputs(self) -> Inputs:
        """The original input of each variant, (k, ...)."""
        return each(lambda x: x[self.sample.to(x.device)], self.task.inputs)

    def generators(self, device: torch.device | str = "cpu", salt: int = 0) -> Iterator[Generator]:
        """A random generator for each variant, seeded by (seed, sample, draw, salt) alone, never by the chunk.

        A method that needs several independent kinds of noise gives each its own salt.
        """
        for sample, draw in zip(self.sample.tolist(), self.draw.tolist(), strict=True):
            yield Generator(device).manual_seed(mix(mix(self.task.keys[sample], draw), salt))

    def normal(self) -> Inputs:
        """Standard normal noise in the shape of the inputs."""
        generators = list(self.generators(as_tuple(self.task.inputs)[0].device))
        return each(lambda x: per_row(torch.randn, x, generators), self.inputs)

    def fill(self, infill: Infill, salt: int = 0, hidden: Inputs | None = None) -> Inputs:
        """A full replacement of each variant's input by this infill; some want to know what will be `hidden` of it."""
        generators = list(self.generators(as_tuple(self.task.inputs)[0].device, salt))
        if isinstance(infill, Sample):  # among the samples of the run: the variants may all be copies of one
            root = self.task.root or self.task
            own = self.sample if self.task.origin is None else self.task.origin[self.sample]
            chosen = infill.choose(own, root.size, generators)
            return each(lambda x: x[chosen.to(x.device)], root.inputs)
        originals = as_tuple(self.inputs)
        masks = (None,) * len(originals) if hidden is None else as_tuple(hidden)
        parts = zip(originals, self.task.domains(), masks, strict=True)
        # Samples of a single value (n,) are rows of one column, for infills that look along a row.
        filled = (infill.fill(x if x.ndim > 1 else x[:, None], domain, generators, m) for x, domain, m in parts)
        return like(self.task.inputs, tuple(f.view_as(x) for f, x in zip(filled, originals, strict=True)))


def noise_keys(seed: int, count: int) -> tuple[int, ...]:
    """The noise key of each sample: a function of the seed and the sample's place alone."""
    return tuple(mix(seed, sample) for sample in range(count))


def mix(key: int, number: int) -> int:
    """A 63-bit key from a key and a number; different pairs give independent streams of noise."""
    digest = hashlib.blake2b(f"{key}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
