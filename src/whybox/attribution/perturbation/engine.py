"""One engine for every method that hides parts of the input and looks at what becomes of the score.

A variant is a sample of which some is kept and the rest replaced by an infill. Variants of all samples go through the
model together, in chunks of the size that is best for it; each chunk is handed to the method and forgotten, so memory
does not grow with their number. A method is a choice of what to keep, and a sum over the chunks:

    partition = Partition.of(task, self.regions)
    engine = Engine(task, self.infill, partition)

    def coalition(sample: Tensor, number: Tensor) -> Tensor:
        return engine.uniform(sample, number, partition.size) < 0.5

    for chunk in engine.scores(self.samples, coalition):
        moments.add(chunk.sample, chunk.kept, weight, chunk.score)
    return partition.spread(solution)

What to keep is a function of (sample, number) alone, called with a chunk's worth of both and answering with tensors;
so are the random numbers of `uniform`, and the infill's. Hence a variant is the same whatever chunk it is in.
Without a partition the function answers with masks of the inputs themselves. A method that makes its variants in a
way of its own uses `ask`, which is all of this but the hiding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.perturbation.partition import Partition
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.block import Block
from whybox.core.errors import InputError
from whybox.core.reference import Blur, Constant, Flipped, GaussianNoise, Imputed, Infill, Mean, UniformNoise
from whybox.core.stream import stream
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each

Choice = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Chunk:
    """Some variants that the model has been asked about.

    Attributes:
        sample: the sample that each is a variant of, (k,), in order.
        number: the variant's number within its sample, (k,).
        kept: what the method's function answered for these.
        score: what the model answered: the target's score of each, float64 (k,) on the CPU.
    """

    sample: Tensor
    number: Tensor
    kept: Any
    score: Tensor


class Engine:
    """Hides parts of a task's inputs.

    Args:
        task: what is explained.
        infill: what stands in for what is hidden. A fixed one is made once per sample, others once per variant.
        partition: the regions by which a method chooses; None where it gives masks of the inputs.
        filled: the inputs replaced whole, where that has been done before.
    """

    def __init__(
        self, task: Task, infill: Infill, partition: Partition | None = None, filled: Inputs | None = None
    ) -> None:
        for x in as_tuple(task.inputs):
            _check_infill(x, infill)
        self.task, self.infill, self.partition = task, infill, partition
        self._filled = task.everything().fill(infill) if infill.fixed and filled is None else filled
        self._keys = torch.tensor(task.keys)

    def scores(
        self, variants: int | Tensor, choose: Choice, draw: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Iterator[Chunk]:
        """The scores of variants 0 … of every sample, sample by sample, in chunks. Cost: as many forwards.

        Args:
            variants: how many of each sample, or (n,) of each its own number.
            choose: what variants number[j] of sample[j] keep, both (k,): with a partition a table (k, regions),
                without one a mask for each input, broadcastable to its rows. Booleans, or shares in [0, 1] at which
                the original shows through.
            draw: which draws of a random infill variants number[j] of sample[j], both (k,), take; by default each its
                own. Variants of a sample with the same draw are filled alike.
        """

        def make(sample: Tensor, number: Tensor) -> tuple[Inputs, Any]:
            kept = choose(sample, number)
            masks = kept if self.partition is None else self.partition.masks(kept, sample)
            return self.hide(masks, Block(self.task, sample, number if draw is None else draw(sample, number))), kept

        return ask(self.task, variants, make)

    def hide(self, masks: Inputs, block: Block) -> Inputs:
        """The block's inputs where the masks keep them, and the infill elsewhere."""
        if self._filled is None:
            filled = block.fill(self.infill, hidden=each(lambda m, x: (m != 1).to(x.device), masks, self.task.inputs))
        else:
            filled = each(lambda f: f[block.sample.to(f.device)], self._filled)
        return each(_blend, block.inputs, filled, masks)

    def uniform(self, sample: Tensor, number: Tensor, columns: int, salt: int = 0) -> Tensor:
        """Random numbers in [0, 1), float64 (k, columns): a function of seed, sample, number and salt alone."""
        return uniform(self._keys[sample], number, columns, salt)

    def shared_uniform(self, number: Tensor, columns: int, salt: int = 0) -> Tensor:
        """The same for all samples: random numbers (k, columns) of seed, number and salt alone."""
        key = (self.task.root or self.task).keys[0]
        return uniform(torch.full_like(number, key), number, columns, salt)


def ask(
    task: Task,
    variants: int | Tensor,
    make: Callable[[Tensor, Tensor], tuple[Inputs, Any]],
    answer: Callable[[Inputs, Tensor], Tensor] | None = None,
) -> Iterator[Chunk]:
    """The scores of variants that `make(sample, number)` makes, as in `Engine.scores`; it answers (variants, kept).

    `answer(variants, sample)` asks for something else than the score, (k, …).
    """
    counts = torch.as_tensor(variants).expand(task.size)
    ends = counts.cumsum(0)
    total = int(ends[-1])
    if task.root is None:
        task.cost.planned = task.cost.forwards + total

    def work(rows: slice) -> Chunk:
        row = torch.arange(rows.start, rows.stop)
        sample = torch.searchsorted(ends, row, right=True)
        number = row - (ends - counts)[sample]
        with torch.no_grad():
            inputs, kept = make(sample, number)
            score = (answer or task.forward)(inputs, sample)
        return Chunk(sample, number, kept, score.cpu().double())

    with task.bar(total) as bar:
        for rows, chunk in stream(task.model.chunk_size(as_tuple(task.inputs), gradient=False), total, work):
            bar.update(rows.stop - rows.start)
            yield chunk


def _blend(x: Tensor, filled: Tensor, kept: Tensor) -> Tensor:
    kept = kept.to(x.device)
    if kept.dtype == torch.bool:
        return torch.where(kept, x, filled)
    if not x.is_floating_point():
        raise InputError(f"{x.dtype} can be hidden, but not faded; a method explains the embedding layer with at='…'")
    return torch.lerp(filled, x, kept.to(x.dtype))


def _check_infill(x: Tensor, infill: Infill) -> None:
    """Raise InputError where an infill makes fractions of integers."""
    fraction = isinstance(infill, Constant) and infill.value != int(infill.value)
    if not x.is_floating_point() and (
        fraction or isinstance(infill, (Mean, Blur, Flipped, UniformNoise, GaussianNoise, Imputed))
    ):
        raise InputError(
            f"{infill} cannot replace {x.dtype}; hide tokens by Constant(the number of the mask token), Shuffled or "
            "Sample; a method explains the embedding layer with at='…'"
        )
