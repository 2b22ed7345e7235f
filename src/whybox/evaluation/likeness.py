"""Likeness: two explanations of the same samples compared, read in three ways.

A map that is multiplied by the input is zero where the input is, whatever the weights are, so that the ranks of |R|
hardly change: on the embedded digits those of input × gradient correlate by .9 with those of a random model, but by .3
where there is ink, and with their sign not at all. So all three are told.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.tree import as_tuple
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.similarity import Similarity, direction

Reading = Literal["signed", "absolute", "foreground"]


class Likeness(NamedTuple):
    """How alike two explanations are, each (n, …); NaN where one of the maps is the same everywhere.

    Attributes:
        signed: of the relevance of each position.
        absolute: of its size.
        foreground: of its size, over the positions at which the input is not the background.
    """

    signed: Tensor
    absolute: Tensor
    foreground: Tensor

    def of(self, reading: str) -> Tensor:
        """One of them by its name, as in the fields of metrics."""
        if reading not in self._fields:
            raise InputError(f"maps are compared {', '.join(map(repr, self._fields))}, not {reading!r}")
        found: Tensor = getattr(self, reading)
        return found


class Read(NamedTuple):
    """A map in the three ways, each as directions (n, places): all that comparing it takes, with whatever map."""

    signed: Tensor
    absolute: Tensor
    foreground: Tensor

    @property
    def blank(self) -> Tensor:
        """Whether the map is the same everywhere once the channels are summed, or not finite (n,)."""
        return torch.isnan(self.signed).any(1)


def read(samples: Samples, map: Tensor, similarity: Similarity = "spearman") -> Read:
    """A map of the samples, given by place (n, places), to be compared."""
    foreground = samples.once(Foreground())
    absolute = direction(map.abs(), similarity)
    shown = absolute if bool(foreground.all()) else direction(map.abs(), similarity, foreground)
    return Read(direction(map, similarity), absolute, shown)


def unlike(case: Case, itself: Tensor, other: Tensor, why: str) -> dict[str, Tensor]:
    """Why a map is not compared with another (n,): it is blank itself, by more than `Metric.score` says; or that is."""
    said = case.constant() | ~case.finite()
    return {"summed over the channels, a map with no order to compare": itself & ~said, why: other & ~itself}


def likeness(first: Read, second: Read) -> Likeness:
    """The likeness of two maps."""
    return Likeness(*((one * other).sum(1) for one, other in zip(first, second, strict=True)))


@dataclass(frozen=True)
class Foreground:
    """The places (n, places) at which an input is not the background, which is its most frequent value, if any.

    Where channels are told apart, the background has the most frequent value of each; a value that occurs at a single
    place is none.
    """

    def measure(self, samples: Samples) -> Tensor:
        parts = []
        for x in as_tuple(samples.task.inputs):
            flat = x.detach().cpu().flatten(2) if x.ndim > 2 else x.detach().cpu().reshape(len(x), 1, -1)
            background = (flat == flat.mode(2, keepdim=True).values).all(1)
            parts.append(~background | (background.sum(1, keepdim=True) < 2))
        return torch.cat(parts, 1)
