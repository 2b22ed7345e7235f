"""Task: what a method is given. The model, the inputs and the pinned target, and the ways to ask the model."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from whybox.core.block import Block as Block
from whybox.core.block import mix
from whybox.core.block import noise_keys as noise_keys
from whybox.core.errors import InputError, ModelError
from whybox.core.model import Domain, Model, by_row, unwrap
from whybox.core.stream import stream
from whybox.core.taps import check_rows, tap
from whybox.core.target import Target
from whybox.core.tree import Inputs, as_tuple, each, like

# Variants are made in blocks of at least this many rows, whole chunks each, so that making them costs little.
BLOCK_ROWS = 8


@dataclass
class Cost:
    """How often the model was asked, in samples, shared by a run and all that runs inside it; and its progress bar.

    `planned` is the number of forwards that a run will have come to at its end, where it knows that beforehand.
    """

    forwards: int = 0
    backwards: int = 0
    planned: int = 0
    bar_shown: bool = False

    def add_forwards(self, rows: int) -> None:
        """Count a forward pass over so many samples."""
        self.forwards += rows


@dataclass(frozen=True)
class Task:
    """What `Method.attribute` is given.

    Attributes:
        model: the wrapped model, guarded and in eval mode.
        inputs: the original inputs, a Tensor (n, ...) or a tuple of them; with `at`, that layer's output for them.
        target: the pinned target: the same class for an input and for all its variants.
        kwargs: keyword arguments of the model; those named in `per_sample` have one row per sample.
        state: what `fit` has learned, or None.
        progress: whether to show a progress bar on anything over two seconds.
        root: in a task of explaining variants (`on`), the task of the whole run; None in that one itself.
        origin: then, which sample of the root each input is a variant of.
    """

    model: Model
    inputs: Inputs
    target: Target
    keys: tuple[int, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    per_sample: frozenset[str] = frozenset()
    at: tuple[str, Inputs] | None = None
    state: Mapping[str, Tensor] | None = None
    progress: bool = False
    cost: Cost = field(default_factory=Cost)
    root: "Task | None" = None
    origin: Tensor | None = None

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(as_tuple(self.inputs)[0])

    def domains(self) -> tuple[Domain, ...]:
        """The domain of each input; inside the model (`at`) it is measured on the batch, never on variants of it."""
        inputs = as_tuple((self.root or self).inputs)
        return tuple(Domain.measured(x) if self.at else self.model.domain_of(x) for x in inputs)

    # Ways to ask the model. `inputs` are variants (k, ...): variant j of sample[j]; without `sample`, one of each.

    def score(self, inputs: Inputs, sample: Tensor | None = None) -> Tensor:
        """The target's score of each variant (k,), without gradients. Cost: k forwards."""

        def score(inputs: Inputs, sample: Tensor) -> Tensor:
            with torch.no_grad():
                return self.forward(inputs, sample)

        scores: Tensor = self.map(score, inputs, sample, gradient=False)
        return scores

    def gradient(self, inputs: Inputs, sample: Tensor | None = None) -> Inputs:
        """The gradient of each variant's score with respect to the variant. Cost: k forwards, k backwards."""
        return self.value_and_gradient(inputs, sample)[1]

    def value_and_gradient(self, inputs: Inputs, sample: Tensor | None = None) -> tuple[Tensor, Inputs]:
        """Scores (k,) and their gradients, from one pass. Cost: k forwards, k backwards."""

        def differentiate(inputs: Inputs, sample: Tensor) -> tuple[Tensor, Inputs]:
            leaves = each(leaf, inputs)
            score = self.forward(leaves, sample)
            return score.detach(), like(inputs, self.backward(score, as_tuple(leaves)))

        value, gradient = self.map(differentiate, inputs, sample, gradient=True)
        return value, gradient

    def activations_and_gradients(self, layers: tuple[str, ...], inputs: Inputs) -> tuple[tuple[Tensor, Tensor], ...]:
        """What each layer gives out for the inputs, and the score's gradient there: one pair a layer, from one pass."""

        def differentiate(inputs: Inputs, sample: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
            seen: dict[str, Tensor] = {}

            def keep(name: str) -> Callable[[Tensor], Tensor]:
                def edit(output: Tensor) -> Tensor:
                    if name in seen:
                        raise ModelError(f"layer {name!r} runs more than once in a forward pass; choose another layer")
                    check_rows(name, output, len(sample))
                    seen[name] = output if output.requires_grad else output.detach().requires_grad_()
                    return seen[name].clone()  # so that an in-place operation behind the layer cannot overwrite it

                return edit

            with tap(self.model.module, {name: keep(name) for name in layers}):
                score = self.forward(inputs, sample)
            missing = [name for name in layers if name not in seen]
            if missing:
                raise ModelError(f"layer {missing[0]!r} does not run in the forward pass of this model")
            gradients = self.backward(score, tuple(seen[name] for name in layers))
            return tuple((seen[name].detach(), gradient) for name, gradient in zip(layers, gradients, strict=True))

        pairs: tuple[tuple[Tensor, Tensor], ...] = self.map(differentiate, inputs, None, gradient=True)
        return pairs

    def map(
        self,
        function: Callable[[Inputs, Tensor], Any],
        inputs: Inputs,
        sample: Tensor | None = None,
        *,
        gradient: bool,
    ) -> Any:
        """`function(variants, sample)` over chunks of measured size, the (nested tuples of) tensors joined again.

        This is what every other question is made of; `gradient` says whether the function runs backward.
        """
        parts = as_tuple(inputs)
        rows = len(parts[0])
        if sample is None:
            sample = torch.arange(rows)
        size = self.model.chunk_size(parts, gradient=gradient)
        results = []
        with self.bar(rows) as bar:
            for done, result in stream(
                size, rows, lambda rows: function(like(inputs, tuple(x[rows] for x in parts)), sample[rows])
            ):
                results.append(result)
                bar.update(done.stop - done.start)
        return _concatenate(results)

    def forward(self, inputs: Inputs, sample: Tensor) -> Tensor:
        """The target's score of each variant, as part of the autograd graph, in one chunk. A step of `map`."""
        target = self.target.rows(sample)
        if target.layer is None:
            score = target.score(self.output(inputs, sample))
        else:
            seen: list[Tensor] = []
            with tap(self.model.module, {target.layer: lambda output: seen.append(output) or output.clone()}):  # type: ignore[func-returns-value]
                self.output(inputs, sample)
            if len(seen) != 1:
                raise ModelError(
                    f"layer {target.layer!r} runs {len(seen)} times in a forward pass; a target layer must run once"
                )
            check_rows(target.layer, seen[0], len(sample))
            score = target.score(seen[0])
        return score

    def output(self, inputs: Inputs, sample: Tensor) -> Tensor:
        """The model's output for each variant, in one chunk. A step of `map`."""
        parts = tuple(x.clone() for x in as_tuple(inputs))  # a model may work in place on what it is given
        self.cost.add_forwards(len(sample))
        kwargs = self._kwargs(sample)
        if self.at is None:
            return by_row(self._ask(parts, kwargs), len(sample))
        layer, original = self.at
        ran: list[Tensor] = []
        with tap(self.model.module, {layer: lambda output: ran.append(output) or parts[0]}):  # type: ignore[func-returns-value]
            output = self._ask(tuple(x[sample.to(x.device)] for x in as_tuple(original)), kwargs)
        if len(ran) != 1:
            raise ModelError(f"layer {layer!r} runs {len(ran)} times in a forward pass; `at` needs one that runs once")
        return by_row(output, len(sample))

    def _ask(self, parts: tuple[Tensor, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The module's output; where it fails, with the reason that is most often behind it."""
        try:
            return unwrap(self.model.module(*parts, **kwargs))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            own = self.model.reference_tensor()
            wrong = [x.dtype for x in parts if own is not None and x.is_floating_point() and x.dtype != own.dtype]
            if own is None or not wrong:
                raise
            raise InputError(
                f"the input is {wrong[0]}, the model {own.dtype}; use .to({own.dtype}): {error}"
            ) from error

    def backward(self, score: Tensor, leaves: tuple[Tensor, ...], *, keep: bool = False) -> tuple[Tensor, ...]:
        """The gradient of the scores with respect to the leaves; zero where a leaf has no influence.

        With `keep` the graph stays, for another score of the same pass.
        """
        self.cost.backwards += len(score)
        if not score.requires_grad:
            raise ModelError(
                "the score does not depend on the input through operations that can be differentiated (a no_grad, a "
                "detach or an integer operation in the model cuts the graph); use a method that needs outputs only"
            )
        gradients = torch.autograd.grad(score.sum(), leaves, allow_unused=True, retain_graph=keep)
        return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True))

    def blocks(self, draws: int, first: int = 0) -> Iterator[Block]:
        """All (sample, draw) pairs for draws `first` … `first + draws − 1`, in blocks that bound memory."""
        size = self.model.chunk_size(as_tuple(self.inputs), gradient=True)
        total, start = self.size * draws, 0
        with self.bar(total) as bar:
            while start < total:
                rows = min(size.size * -(-BLOCK_ROWS // size.size), total - start)
                flat = torch.arange(start, start + rows)
                yield Block(self, flat // draws, flat % draws + first)
                bar.update(rows)
                start += rows

    @contextmanager
    def bar(self, total: int) -> Iterator[Any]:
        """A progress bar over something that takes more than two seconds; inside another one it is not shown."""
        shown = self.progress and not self.cost.bar_shown
        with tqdm(total=total, delay=2, leave=False, disable=not shown) as bar:
            self.cost.bar_shown |= shown
            try:
                yield bar
            finally:
                self.cost.bar_shown &= not shown

    def everything(self) -> Block:
        """One variant of every sample."""
        return Block(self, torch.arange(self.size), torch.zeros(self.size, dtype=torch.long))

    def on(self, inputs: Inputs, block: Block) -> "Task":
        """The task of explaining these variants in the originals' place: same target, keyword rows and budget."""
        keys = tuple(mix(self.keys[s], d) for s, d in zip(block.sample.tolist(), block.draw.tolist(), strict=True))
        return replace(
            self,
            inputs=inputs,
            target=self.target.rows(block.sample),
            keys=keys,
            kwargs=self._kwargs(block.sample),
            at=self.at and (self.at[0], each(lambda x: x[block.sample.to(x.device)], self.at[1])),
            progress=False,
            root=self.root or self,
            origin=block.sample if self.origin is None else self.origin[block.sample],
        )

    def _kwargs(self, sample: Tensor) -> dict[str, Any]:
        """The model's keyword arguments for these samples, in tensors of their own: a model may work in place."""
        return {
            name: value[sample.to(value.device)]
            if name in self.per_sample
            else value.clone()
            if isinstance(value, Tensor)
            else value
            for name, value in self.kwargs.items()
        }


def leaf(x: Tensor) -> Tensor:
    """The same values at the beginning of a graph of their own."""
    if not x.is_floating_point():
        raise InputError(f"this method needs gradients, but what is to be explained is {x.dtype}; choose another layer")
    return x.detach().requires_grad_()


def _concatenate(results: list[Any]) -> Any:
    if isinstance(results[0], tuple):
        return tuple(_concatenate(list(parts)) for parts in zip(*results, strict=True))
    return results[0] if len(results) == 1 else torch.cat(results)
