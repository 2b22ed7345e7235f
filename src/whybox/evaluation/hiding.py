"""Hiding: what the model answers with some regions of the samples hidden, each by itself or many at random.

No explanation has a part in it, so `samples.once` measures it for all explanations that are compared, and for all
metrics that ask for the same: what these add, the relevance of what was hidden, costs no evaluation of the model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.attribution.perturbation.partition import Partition, relevance_dtype
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.block import Block
from whybox.core.reference import Infill
from whybox.core.regions import Regions
from whybox.core.tree import Inputs, as_tuple, each
from whybox.evaluation.case import Answers, Make, Measurement, Samples
from whybox.evaluation.removal import Divided, relevance_of

# A score is known to so many units of its last place: sums in another order differ by as much.
ROUNDINGS = 4


def hide(samples: Samples, infill: Infill, partition: Partition, hidden: Callable[[Tensor, Tensor], Tensor]) -> Make:
    """Makes samples that lack the regions `hidden(sample, number)`, booleans (k, regions); each with its own draw."""
    task = samples.task
    engine = Engine(task, infill, partition, filled=samples.filled(infill) if infill.fixed else None)

    def make(sample: Tensor, number: Tensor) -> Inputs:
        return engine.hide(partition.masks(~hidden(sample, number), sample), Block(task, sample, number))

    return make


def places(samples: Samples, regions: Regions | None) -> Tensor:
    """How many positions each region has (n, regions): the number of values that a random map has there."""
    ones = each(lambda x: torch.ones_like(x[:, :1] if x.ndim > 2 else x), samples.task.inputs)
    return relevance_of(samples.once(Divided(regions)), ones)


@dataclass(frozen=True)
class Subsets:
    """Random sets of regions, and the answers without them.

    Attributes:
        sizes: the number of regions in the sets of each sample, (n,).
        packed: which regions are in which set, as bits, (n, draws, bytes).
        answers: the model's answers with a set hidden, each (n, draws).
    """

    sizes: Tensor
    packed: numpy.ndarray
    answers: Answers

    def of(self, quantity: str) -> Tensor:
        """A quantity of the answers, (n, draws)."""
        return self.answers.of(quantity)

    def sums(self, values: Tensor) -> Tensor:
        """The sum of the regions' values (n, regions) over each set, (n, draws)."""
        sums = []
        for packed in self.packed.swapaxes(0, 1):  # one draw after the other: the bits of all would need much memory
            hidden = torch.as_tensor(numpy.unpackbits(packed, axis=1, count=values.shape[1])).bool()
            sums.append(values.where(hidden, 0.0).sum(1))
        return torch.stack(sums, 1)


def drop(samples: Samples, changed: Measurement[Samples, Answers | Subsets], follows: str) -> Tensor:
    """f(x) − f(x changed) of every change, (n, changes); 0 where none of a sample's is more than rounding.

    What differs by rounding alone depends on the chunk size, and must not be correlated with anything.
    """
    before = samples.originals.of(follows)[:, None]  # first: where the target has no such f, nothing more is asked
    found = before - samples.once(changed).of(follows)
    precision = max(torch.finfo(relevance_dtype(x)).eps for x in as_tuple(samples.task.inputs))
    largest = found.abs().nan_to_num(0.0).amax(1, keepdim=True)
    return found.where((largest > ROUNDINGS * precision * before.abs()) | found.isnan(), 0.0)


@dataclass(frozen=True)
class OneByOne:
    """The answers with each region hidden by itself, (n, regions · draws), those for a region side by side.

    Args:
        regions: what is hidden at once; None for what is usual for inputs of their kind.
        infill: what stands in for it.
        draws: how often each region is hidden; once is enough for an infill that is fixed.
    """

    regions: Regions | None
    infill: Infill
    draws: int = 1

    def measure(self, samples: Samples) -> Answers:
        return samples.ask(samples.once(Divided(self.regions)).counts * self.draws, self.make(samples))

    def make(self, samples: Samples) -> Make:
        """Makes the variants again; nothing is hidden beyond a sample's last region."""
        partition = samples.once(Divided(self.regions))
        columns = torch.arange(partition.size)
        return hide(samples, self.infill, partition, lambda _, number: columns == number[:, None] // self.draws)


@dataclass(frozen=True)
class RandomSubsets:
    """The answers with random sets of regions hidden.

    Args:
        regions: what sets are made of; None for what is usual for inputs of their kind.
        infill: what stands in for what is hidden.
        share: the number of regions in a set, as a share of all the sample's regions; at least one is hidden.
        draws: the number of sets for each sample.
    """

    regions: Regions | None
    infill: Infill
    share: float
    draws: int

    def sizes(self, samples: Samples) -> Tensor:
        """The number of regions in the sets of each sample, (n,)."""
        return (samples.once(Divided(self.regions)).counts * self.share).round().clamp_min(1).long()

    def measure(self, samples: Samples) -> Subsets:
        partition, sizes = samples.once(Divided(self.regions)), self.sizes(samples)
        keys = torch.tensor(samples.task.keys)
        packed = numpy.zeros((len(keys), self.draws, -(-partition.size // 8)), dtype=numpy.uint8)
        salt = round(self.share * 2**30)  # so that sets of one size have nothing to do with those of another

        def hidden(sample: Tensor, number: Tensor) -> Tensor:
            lots = (
                uniform(keys[sample], number, partition.size, salt).where(partition.present[sample], torch.inf).numpy()
            )
            last = sizes[sample, None].numpy() - 1
            in_place = numpy.partition(lots, numpy.unique(last), axis=1)  # far faster than sorting
            chosen = lots <= numpy.take_along_axis(in_place, last, axis=1)
            packed[sample.numpy(), number.numpy()] = numpy.packbits(chosen, axis=1)
            return torch.as_tensor(chosen)

        make = hide(samples, self.infill, partition, hidden)
        return Subsets(sizes, packed, samples.ask(self.draws, make))
