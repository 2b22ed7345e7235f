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
from whybox.evaluation.case import Samples
from whybox.evaluation.similarity import Similarity, correlation

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


def likeness(samples: Samples, first: Tensor, second: Tensor, similarity: Similarity = "spearman") -> Likeness:
    """The likeness of two maps of the samples, given by place (n, places)."""
    return Likeness(
        correlation(first, second, similarity),
        correlation(first.abs(), second.abs(), similarity),
        correlation(first.abs(), second.abs(), similarity, samples.once(Foreground())),
    )


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
