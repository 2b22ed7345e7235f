"""Neighbours: what becomes of the explanation, and of the answer, when the input changes a little.

One set of neighbours serves all metrics of robustness. The explanations are measured once per explanation, and what
the model answers once per batch, whatever is explained; of both only the distances are kept. The distances are taken
by all norms, so that metrics that differ in the norm share them too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from whybox.attribution.last_layer import last_layer
from whybox.attribution.perturbation.engine import ask
from whybox.core.block import Block
from whybox.core.errors import InputError, ModelError
from whybox.core.reference import per_row
from whybox.core.taps import check_rows, tap
from whybox.core.target import Logit
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each, like
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.distance import ORDERS, Norm, flat, flat_maps, lengths, relative


class Distances(NamedTuple):
    """How far the neighbours and their explanations are from the sample and its own, each (n, draws, norms).

    Attributes:
        relevance: |R(x') − R(x)|.
        relative_relevance: |(R(x') − R(x)) / R(x)|.
        inputs: |x' − x|.
        relative_inputs: |(x' − x) / x|.
    """

    relevance: Tensor
    relative_relevance: Tensor
    inputs: Tensor
    relative_inputs: Tensor

    def hindered(self, case: Case) -> dict[str, Tensor]:
        """In words, why samples have no score: (n,) whether it is so, by reason."""
        return {
            "no neighbour differs from the sample": (self.inputs == 0).flatten(1).all(1),
            "a neighbour's relevance is not finite": case.finite() & ~torch.isfinite(self.relevance).flatten(1).all(1),
        }


class Reactions(NamedTuple):
    """How the model reacts to the neighbours.

    Attributes:
        kept: whether the predicted class is the sample's (n, draws); always where the model has a single output.
        outputs: |h(x') − h(x)| over all outputs h, (n, draws, norms).
        relative_representations: |(L(x') − L(x)) / L(x)| at the layer L, (n, draws, norms).
        layer: L; None where none was named or found, and nothing can be said of it.
    """

    kept: Tensor
    outputs: Tensor
    relative_representations: Tensor
    layer: str | None


def by(norm: Norm, distances: Tensor) -> Tensor:
    """The distances by one norm, (n, draws)."""
    return distances[..., list(ORDERS).index(norm)]


@dataclass(frozen=True)
class Neighbours:
    """Neighbours x' of every sample, each value moved by U(−r, r), and their explanations.

    Args:
        draws: how many neighbours each sample has.
        radius: r, as a share of the width of the value's domain.
    """

    draws: int
    radius: float

    def measure(self, case: Case) -> Distances:
        task = case.task
        found = []
        for block in task.blocks(self.draws):
            near = self.make(task, block)
            own = each(lambda r, rows=block.sample: r[rows.to(r.device)], case.relevance)
            before, after = flat_maps(own, case.explain(near, block))
            x, moved = flat(block.inputs), flat(near)
            map_change, input_change = after - before, moved - x
            changes = (map_change, relative(map_change, before), input_change, relative(input_change, x))
            found.append(torch.stack([lengths(change).cpu() for change in changes], 1))
        return Distances(*torch.cat(found).view(task.size, self.draws, len(changes), -1).unbind(2))

    def make(self, task: Task, block: Block) -> Inputs:
        """The neighbours of a block."""
        parts = as_tuple(block.inputs)
        if not all(x.is_floating_point() for x in parts):
            raise InputError("an input of integers has no neighbours; give the model's embeddings instead")
        generators = list(block.generators(parts[0].device))

        def move(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
            return x + self.radius * (high - low) * (2 * per_row(torch.rand, x, generators) - 1)

        bounds = (domain.bounds(x) for x, domain in zip(parts, task.domains(), strict=True))
        return like(task.inputs, tuple(move(x, *bound) for x, bound in zip(parts, bounds, strict=True)))


@dataclass(frozen=True)
class Answered:
    """What the model answers to the same neighbours.

    Args:
        of: the neighbours.
        layer: where its inner representation is read; None for the last layer before the output.
    """

    of: Neighbours
    layer: str | None = None

    def measure(self, samples: Samples) -> Reactions:
        task = samples.task
        layer = self.layer or last_layer(task)
        look = _looking(task, layer)
        with torch.no_grad():
            predicted, *originals = task.map(look, task.inputs, gradient=False)

        def make(sample: Tensor, draw: Tensor) -> tuple[Inputs, None]:
            return self.of.make(task, Block(task, sample, draw)), None

        def answer(inputs: Inputs, sample: Tensor) -> Tensor:
            now, output, inside = look(inputs, sample)
            h, representation = (original[sample.to(original.device)] for original in originals)
            change = lengths(output - h).cpu(), lengths(relative(inside - representation, representation)).cpu()
            return torch.cat(((now == predicted[sample]).double()[:, None], *change), 1)

        found = torch.cat([chunk.score for chunk in ask(task, self.of.draws, make, answer)])
        table = found.view(task.size, self.of.draws, -1)
        outputs, representations = table[..., 1:].split(len(ORDERS), 2)
        return Reactions(table[..., 0] == 1, outputs, representations, layer)


def _looking(task: Task, layer: str | None) -> Callable[[Inputs, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """A function of some inputs: their predicted class, all outputs, and what the layer gives out, one row each."""

    def look(inputs: Inputs, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            seen.append(output)
            return output.clone()  # so that an in-place operation behind the layer cannot overwrite it

        with tap(task.model.module, {layer: keep} if layer else {}):
            output = task.output(inputs, sample)
        predicted = Logit().pin(len(sample), output).index
        assert isinstance(predicted, Tensor)
        if layer is None:
            return predicted, flat(output), output.new_full((len(sample), 1), torch.nan)
        if len(seen) != 1:
            raise ModelError(f"layer {layer!r} runs {len(seen)} times in a forward pass; name one that runs once")
        check_rows(layer, seen[0], len(sample))
        return predicted, flat(output), flat(seen[0])

    return look
