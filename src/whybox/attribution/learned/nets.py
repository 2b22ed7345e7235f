"""The small nets that learn to explain: one that says what to select, one that answers from what was selected.

Both read tables (n, columns), rows of token numbers (n, t), and everything with positions (n, c, …): series, pictures,
videos. Tables have layers that are fully connected, the others convolutions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whybox.attribution.learned.training import moments
from whybox.core.errors import InputError

HIDDEN = 100  # units of the selector of a table, as in the paper; twice as many in the other net
EMBEDDED = 32  # numbers that stand for a token
CHANNELS = 32
BINS = 4  # along each axis, in which the second net sums up where something is
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_BINNED = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)


@dataclass(frozen=True)
class Layout:
    """What the nets must know of the inputs.

    Attributes:
        labels: the region of every place, (*grid,): pixels, moments, tokens or columns; the same for all samples.
        channels: how many numbers stand at a place; 0 for a table.
        vocabulary: how many tokens there are; 0 for numbers.
    """

    labels: Tensor
    channels: int
    vocabulary: int

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, vocabulary: int) -> "Layout":
        """That of these inputs (n, …), divided into these regions (n or 1, …)."""
        if len(labels) > 1 and bool((labels != labels[:1]).any()):
            raise InputError("what is selected must lie alike in all inputs; use Grid, Patches or Along as regions")
        if inputs.ndim == 2:
            return cls(labels[0].expand(inputs.shape[1]), EMBEDDED if vocabulary else 0, vocabulary)
        if not inputs.is_floating_point() or not 3 <= inputs.ndim <= 5:
            raise InputError(
                "L2X reads tables (n, columns), token numbers (n, t), and series, pictures and videos (n, c, …) of "
                f"floating point, not {inputs.dtype} {tuple(inputs.shape)}"
            )
        if labels.shape[1] > 1:
            raise InputError("regions of channels cannot be selected, only regions of places; use Grid or Patches")
        return cls(labels[0, 0].expand(inputs.shape[2:]), inputs.shape[1], 0)

    @property
    def count(self) -> int:
        """The number of regions."""
        return int(self.labels.max()) + 1

    @property
    def grid(self) -> tuple[int, ...]:
        """How many places there are along each axis."""
        return tuple(self.labels.shape)

    @property
    def pools(self) -> tuple[bool, bool]:
        """After which convolutions every second place is left: as long as no region gets narrower than a place."""
        width = (self.labels.numel() / self.count) ** (1 / len(self.grid))
        return width >= 2, width >= 4

    def masks(self, kept: Tensor) -> Tensor:
        """Shares by region (k, count) for all places, broadcastable to what `Reading` gives."""
        mask = kept[:, self.labels.flatten()].view(-1, *self.grid)
        return mask[:, None] if self.channels else mask


class Reading(nn.Module):
    """Numbers with mean 0 and variance 1 in the training data, by channel or column; tokens as vectors (n, c, t).

    A token that the training data did not have stands for all unknown ones.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, layout: Layout, inputs: Tensor) -> None:
        super().__init__()
        self.vocabulary = layout.vocabulary
        if self.vocabulary:
            self.embedding = nn.Embedding(self.vocabulary + 1, EMBEDDED)
            return
        mean, spread = moments(inputs)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, x: Tensor) -> Tensor:
        if self.vocabulary:
            embedded: Tensor = self.embedding(x.clamp(max=self.vocabulary)).mT
            return embedded
        return (x.float() - self.mean) / self.spread


class Selector(nn.Module):
    """A score for every region (n, count): the higher, the sooner it is selected.

    With positions, each is judged by its surroundings and by what is strongest anywhere in the input; a region's score
    is the mean over its places.
    """

    places: Tensor
    sizes: Tensor

    def __init__(self, layout: Layout, inputs: Tensor) -> None:
        super().__init__()
        self.layout = layout
        self.read = Reading(layout, inputs)
        if not layout.channels:
            self.body = _connected(layout.labels.numel(), HIDDEN, layout.count)
            return
        self.body = _convolutions(layout)
        convolution = _CONVOLUTIONS[len(layout.grid) - 1]
        self.head = nn.Sequential(convolution(2 * CHANNELS, CHANNELS, 1), nn.ReLU(), convolution(CHANNELS, 1, 1))
        self.register_buffer("places", layout.labels.flatten())
        self.register_buffer("sizes", layout.labels.flatten().bincount().float())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(self.read(x))
        if not self.layout.channels:
            return features
        strongest = features.flatten(2).amax(2).view(*features.shape[:2], *(1,) * len(self.layout.grid))
        scores = self.head(torch.cat((features, strongest.expand_as(features)), 1))
        # Every pooled place stands for its own square; to the grid's size at once, those at odd edges would be shifted.
        full = nn.functional.interpolate(scores, scale_factor=float(2 ** sum(self.layout.pools)))
        full = full[tuple(slice(edge) for edge in (len(x), 1, *self.layout.grid))].flatten(1)
        return full.new_zeros(len(x), self.layout.count).index_add(1, self.places, full) / self.sizes


class Approximator(nn.Module):
    """Scores of the classes (n, classes) from an input of which only a part is left."""

    def __init__(self, layout: Layout, inputs: Tensor, classes: int) -> None:
        super().__init__()
        self.layout = layout
        self.read = Reading(layout, inputs)
        if not layout.channels:
            self.body = _connected(layout.labels.numel(), 2 * HIDDEN, classes)
            return
        bins = tuple(min(BINS, edge) for edge in layout.grid)
        self.body = nn.Sequential(
            _convolutions(layout),
            _BINNED[len(bins) - 1](bins),
            nn.Flatten(),
            nn.Linear(CHANNELS * math.prod(bins), HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, classes),
        )

    def forward(self, x: Tensor, filled: Tensor, kept: Tensor) -> Tensor:
        """For inputs of which regions are kept at these shares (n, count), the rest of them as in `filled`."""
        answer: Tensor = self.body(torch.lerp(self.read(filled), self.read(x), self.layout.masks(kept)))
        return answer


def _connected(inside: int, hidden: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inside, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outside)
    )


def _convolutions(layout: Layout) -> nn.Sequential:
    """Three of width 3 with as many features each; fewer places after the first and second, where that is enough."""
    axes = len(layout.grid)
    convolution, maximum = _CONVOLUTIONS[axes - 1], _MAXIMA[axes - 1]
    layers: list[nn.Module] = []
    inside = layout.channels
    for pooled in (*layout.pools, False):
        layers += [convolution(inside, CHANNELS, 3, padding=1), nn.ReLU()]
        layers += [maximum(2, ceil_mode=True)] if pooled else []
        inside = CHANNELS
    return nn.Sequential(*layers)
