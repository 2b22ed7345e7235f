"""Mosaic: whether a method finds a class among pictures of others; the truth is known, for it is put there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from whybox.attribution.perturbation.uniform import uniform
from whybox.core.block import Block
from whybox.core.errors import InputError
from whybox.core.task import Task
from whybox.core.tree import as_tuple
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.places import by_place, share_inside

TILES = 4  # two by two


@dataclass(frozen=True)
class Mosaic(Metric):
    """Σ_{p in the sample's tile} R⁺_p / Σ_p R⁺_p in a mosaic of it and three pictures of other classes, explained.

    The grid pointing game, without labels: a map for the sample's class must fall into the sample's tile, a quarter of
    the mosaic, which is also the score by chance. The mosaics are two by two pictures that the model is sure of, from
    the batch itself, of four classes, chosen and placed at random; twice as high and wide as a picture where the model
    takes that, else scaled down to its size. A mosaic in which the model does not see the sample's class, which is not
    among the four of the highest scores, is not explained. Relevance is summed over channels; what is below zero does
    not count. The score is the mean over the sample's mosaics. Details, NaN or −1 where there is none: `pictures`, the
    samples in each mosaic in reading order (n, mosaics, 4), the sample's own `place` among them, and the `share`
    (n, mosaics).
    Cost: `mosaics` forwards per sample, shared by all methods, and `mosaics` times the cost of the method, on pictures
    of up to four times the size.
    Limits: needs four classes in the batch, and as target one for each sample; says how well a map tells classes
    apart, not what it gets right within an object; what a score means depends on the other samples of the batch.
    Source: Böhle, Fritz & Schiele 2021, arXiv 2104.00032; Arias-Duart, Parés, Garcia-Gasulla & Giménez-Ábalos 2022,
    arXiv 2109.15035.

    Args:
        mosaics: how many are made for each sample; four have it at all places.
        confidence: the least probability of the target's class at which a sample is taken.
    """

    mosaics: int = 1
    confidence: float = 0.5

    family = "localisation"
    higher_is_better = True
    explains_again = True

    def __post_init__(self) -> None:
        if self.mosaics < 1 or not 0 <= self.confidence <= 1:
            raise InputError(
                f"at least one mosaic, and a confidence from 0 to 1, not {self.mosaics}, {self.confidence}"
            )

    def measure(self, case: Case) -> Scores:
        laid = case.samples.once(_Laid(self.mosaics, self.confidence))
        share = torch.full(laid.seen.shape, torch.nan, dtype=torch.float64)
        for draw in range(self.mosaics):
            sample = laid.seen[:, draw].nonzero().flatten()
            if len(sample):
                share[sample, draw] = self._share(case, laid, Block(case.task, sample, torch.full_like(sample, draw)))
        seen = laid.seen.any(1)
        skipped = {
            **laid.skipped,
            "its class is not among the four that the model sees in any of its mosaics": laid.usable & ~seen,
            "no finite relevance above zero in any of its mosaics": seen & share.isnan().all(1),
        }
        return Scores(share.nanmean(1), {"pictures": laid.pictures, "place": laid.place, "share": share}, skipped)

    def chance(self, case: Case) -> Tensor:
        """The tile's share of the places."""
        height, width = _pictures(case.task).shape[2:]
        if not case.samples.once(_Laid(self.mosaics, self.confidence)).halved:
            return torch.full((case.task.size,), 1 / TILES, dtype=torch.float64)
        tile = (height // 2) * (width // 2) / (height * width)
        return torch.full((case.task.size,), tile, dtype=torch.float64)

    def _share(self, case: Case, laid: "_Mosaics", block: Block) -> Tensor:
        """The share of the relevance in the right tile for these mosaics (k,)."""
        mosaics = laid.make(case.task, block)
        # A mosaic is an input of its own, no variant of the sample: not even of its size.
        task = replace(case.task.on(mosaics, block), root=None, origin=None)
        values = by_place(as_tuple(case.explain_in(task))[0], mosaics).clamp_min(0)
        share = share_inside(values, _tiles(*values.shape[1:])[laid.place[block.sample, block.draw]])
        return torch.where(share.isfinite(), share, torch.nan)


@dataclass(frozen=True)
class _Mosaics:
    """The mosaics of a batch.

    Attributes:
        pictures: the samples in each, in reading order (n, mosaics, 4); −1 where there is none.
        place: where in its own mosaics each sample stands (n, mosaics); −1 likewise.
        halved: whether pictures are scaled down, so that a mosaic has the size of a picture.
        usable: for which samples there are mosaics (n,).
        seen: whether the sample's class is among the four of the highest scores (n, mosaics).
        skipped: why there are none for the others.
    """

    pictures: Tensor
    place: Tensor
    halved: bool
    usable: Tensor
    seen: Tensor
    skipped: dict[str, Tensor]

    def make(self, task: Task, block: Block) -> Tensor:
        """These mosaics, as inputs of the model."""
        inputs = _pictures(task)
        return _joined(inputs, self.pictures[block.sample, block.draw], self.halved)


@dataclass(frozen=True)
class _Laid:
    """The mosaics of a batch, chosen, and shown to the model."""

    mosaics: int
    confidence: float

    def measure(self, samples: Samples) -> _Mosaics:
        task, originals = samples.task, samples.originals
        _pictures(task)
        if bool(originals.right.isnan().all()):
            raise InputError(
                "a mosaic asks for a class: the target must be one for each sample, of outputs (n, classes)"
            )
        sure = (originals.right == 1) & (originals.probability >= self.confidence)
        classes: Any = getattr(task.target, "index", None)
        kinds = classes[sure].unique() if bool(sure.any()) else torch.zeros(0)
        usable = sure & (len(kinds) >= TILES)
        skipped = {
            "not classified as the target with the confidence asked for": ~sure,
            "fewer than four classes in the batch to make mosaics of": sure & ~usable,
        }
        shape = (task.size, self.mosaics)
        pictures, place = torch.full((*shape, TILES), -1), torch.full(shape, -1)
        seen = torch.zeros(shape, dtype=torch.bool)
        if not bool(usable.any()):
            return _Mosaics(pictures, place, False, usable, seen, skipped)
        kind = torch.searchsorted(kinds, classes).clamp_max(len(kinds) - 1)  # among the usable ones; others anything
        for draw in range(self.mosaics):
            rows = usable.nonzero().flatten()
            pictures[rows, draw], place[rows, draw] = _choose(task, rows, draw, kind, usable)
        halved = not _takes(task, _joined(_pictures(task), pictures[usable][:1, 0], halved=False))
        found = _Mosaics(pictures, place, halved, usable, seen, skipped)
        for block in _of_usable(task, found):
            with torch.no_grad():
                output = task.map(task.output, found.make(task, block), block.sample, gradient=False).cpu()
            highest = output.topk(TILES, 1).indices
            seen[block.sample, block.draw] = (highest == classes[block.sample, None]).any(1)
        return found


def _choose(task: Task, sample: Tensor, draw: int, kind: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Three pictures of other classes for each sample, by chance; all four in reading order, and its own place."""
    keys, number = torch.tensor(task.keys)[sample], torch.full_like(sample, draw)
    counts = torch.bincount(kind[usable])
    by_kind = torch.where(usable, kind, len(counts)).argsort(stable=True)
    order = uniform(keys, number, len(counts), salt=1)
    order[torch.arange(len(sample)), kind[sample]] = -1  # the sample's own class comes first
    chosen = order.argsort(1)[:, :TILES]
    which = (uniform(keys, number, TILES, salt=2) * counts[chosen]).long()
    pictures = by_kind[(counts.cumsum(0) - counts)[chosen] + which]
    pictures[:, 0] = sample
    first = (uniform(keys, torch.zeros_like(sample), 1, salt=3)[:, 0] * TILES).long()
    place = (first + draw) % TILES
    return pictures.gather(1, (torch.arange(TILES) - place[:, None]) % TILES), place


def _pictures(task: Task) -> Tensor:
    """The inputs, if they are pictures."""
    x = as_tuple(task.inputs)[0]
    if len(as_tuple(task.inputs)) > 1 or x.ndim != 4 or not x.is_floating_point() or min(x.shape[2:]) < 2:
        raise InputError("a mosaic is made of pictures (n, c, h, w) in floating point, the model's only input")
    return x


def _joined(inputs: Tensor, pictures: Tensor, halved: bool) -> Tensor:
    """Four of the inputs each, by their numbers (k, 4), side by side two by two; halved, to the size of one."""
    tiles = inputs[pictures.to(inputs.device)].unbind(1)
    whole = torch.cat((torch.cat(tiles[:2], -1), torch.cat(tiles[2:], -1)), -2)
    return avg_pool2d(whole, 2) if halved else whole


def _tiles(height: int, width: int) -> Tensor:
    """Which places of a mosaic are those of each picture (4, height, width); a line in the middle is of none."""
    top, left = torch.arange(height) < height // 2, torch.arange(width) < width // 2
    rows, columns = torch.stack((top, top.flip(0))), torch.stack((left, left.flip(0)))
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)


def _takes(task: Task, mosaic: Tensor) -> bool:
    """Whether the model gives an answer to a picture of this size."""
    try:
        with torch.no_grad():
            output = task.output(mosaic, torch.zeros(1, dtype=torch.long))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError):  # in which way a model says that it does not is its own choice
        return False
    return output.ndim == 2  # `x.view(-1, …)` takes a larger picture for several, and gives rows for it


def _of_usable(task: Task, found: _Mosaics) -> Iterator[Block]:
    """All mosaics there are, in blocks that bound memory."""
    for block in task.blocks(found.place.shape[1]):
        keep = found.usable[block.sample]
        if bool(keep.any()):
            yield Block(task, block.sample[keep], block.draw[keep])
