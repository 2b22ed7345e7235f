"""Targets: which scalar of a model's output is explained, one per sample.

An output of shape (n, classes) has one score per class; (n,) and (n, 1) have the single class 0, whose score is the
output itself and whose probability is its sigmoid. In a dense output (n, classes, *positions) a class's score is the
sum over all positions, and its probability the sum of the softmaxes; a tuple names one entry, as in `(c, y, x)`.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from whybox.core.errors import TargetError

Index = int | tuple[int, ...] | Tensor | None
Labels = Sequence[str] | None


class Target:
    """Which scalar is explained. Write one with `pin`, `score` and `describe`; the rest follows from its fields."""

    layer: str | None = None
    """Dotted name of the layer whose output holds the scalar, or None for the model's own output."""

    @property
    def predicts(self) -> bool:
        """Whether the choice depends on what the model predicts for the original inputs."""
        return False

    def pin(self, rows: int, output: Tensor | None) -> "Target":
        """The same target with every choice made, one index per sample.

        `output` is the model's for the original inputs (rows, ...); it is needed only if `predicts`.
        """
        return self

    def rows(self, sample: Tensor) -> "Target":
        """The pinned target for these samples: entry j belongs to sample[j]."""
        fields = {name: value[sample] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **fields) if fields else self  # type: ignore[type-var]

    def score(self, output: Tensor) -> Tensor:
        """The scalar of each row of the output, shape (n,); the target must be pinned."""
        raise NotImplementedError

    def describe(self, sample: int, labels: Labels = None) -> str:
        """In words, what is explained of this sample."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Logit(Target):
    """The raw score of a class: before any softmax, if the model has none.

    Args:
        index: the class, for all samples or (Tensor) for each; a tuple for one entry of a dense output; None for
            the class predicted for the original input (in a dense output the one most often predicted).
    """

    index: Index = None

    @property
    def predicts(self) -> bool:
        return self.index is None

    def pin(self, rows: int, output: Tensor | None) -> "Logit":
        return replace(self, index=_pin_index(self.index, rows, output))

    def score(self, output: Tensor) -> Tensor:
        return _select(output, self.index)

    def describe(self, sample: int, labels: Labels = None) -> str:
        return f"the score of {class_name(self.index, sample, labels)}"


@dataclass(frozen=True, eq=False)
class Probability(Logit):
    """The softmax probability of a class (the sigmoid where the model has a single output)."""

    def score(self, output: Tensor) -> Tensor:
        columns = _columns(output)
        return _select(columns.sigmoid() if columns.shape[1] == 1 else columns.softmax(1), self.index)

    def describe(self, sample: int, labels: Labels = None) -> str:
        return f"the probability of {class_name(self.index, sample, labels)}"


@dataclass(frozen=True, eq=False)
class LogProbability(Logit):
    """The logarithm of the softmax probability of a class (of the sigmoid where the model has a single output)."""

    def score(self, output: Tensor) -> Tensor:
        columns = _columns(output)
        one = columns.shape[1] == 1
        return _select(torch.nn.functional.logsigmoid(columns) if one else columns.log_softmax(1), self.index)

    def describe(self, sample: int, labels: Labels = None) -> str:
        return f"the log-probability of {class_name(self.index, sample, labels)}"


@dataclass(frozen=True, eq=False)
class Contrast(Target):
    """Why `a` and not `b`: the score of class a minus that of class b.

    Args:
        a: the class argued for; None for the predicted one.
        b: the class argued against; None for the strongest class other than a.
    """

    a: Index = None
    b: Index = None

    @property
    def predicts(self) -> bool:
        return self.a is None or self.b is None

    def pin(self, rows: int, output: Tensor | None) -> "Contrast":
        a = _pin_index(self.a, rows, output)
        b = self._runner_up(a, output) if self.b is None else _pin_index(self.b, rows, output)
        same = a == b if isinstance(a, tuple) or isinstance(b, tuple) else bool((a == b).any())
        if same:
            raise TargetError("a contrast needs two different classes; leave b out to contrast with the runner-up")
        return replace(self, a=a, b=b)

    def _runner_up(self, a: Tensor | tuple[int, ...], output: Tensor | None) -> Tensor:
        if output is None or isinstance(a, tuple):
            raise TargetError("the strongest other class is known for class indices only; give b as well")
        scores = class_scores(output).detach().cpu()
        if scores.shape[1] < 2:
            raise TargetError("a contrast needs two classes, but the model has a single output")
        _check_range(a, scores.shape[1])
        return scores.scatter(1, a[:, None], -torch.inf).argmax(1)

    def score(self, output: Tensor) -> Tensor:
        return _select(output, self.a) - _select(output, self.b)

    def describe(self, sample: int, labels: Labels = None) -> str:
        return f"the score of {class_name(self.a, sample, labels)} minus that of {class_name(self.b, sample, labels)}"


@dataclass(frozen=True, eq=False)
class Neuron(Target):
    """The activation of a unit inside the model.

    Args:
        layer: the dotted name of the layer.
        index: the channel (axis 1), summed over positions, or a tuple for one entry, as in `(c, y, x)`.
    """

    layer: str = ""
    index: int | tuple[int, ...] = 0

    def pin(self, rows: int, output: Tensor | None) -> "Neuron":
        whole = _whole(self.index if isinstance(self.index, tuple) else (self.index,))
        return replace(self, index=whole if isinstance(self.index, tuple) else whole[0])

    def score(self, output: Tensor) -> Tensor:
        return _select(output, self.index)

    def describe(self, sample: int, labels: Labels = None) -> str:
        return f"unit {self.index} of layer {self.layer!r}"


@dataclass(frozen=True, eq=False)
class Function(Target):
    """Any function from the output (n, ...) to one scalar a row (n,). It must treat every row by itself."""

    function: Callable[[Tensor], Tensor]

    def score(self, output: Tensor) -> Tensor:
        scores = self.function(output)
        if not isinstance(scores, Tensor) or scores.shape != output.shape[:1]:
            what = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise TargetError(
                f"the target function must return one scalar a row, shape {tuple(output.shape[:1])}, not {what}"
            )
        return scores

    def describe(self, sample: int, labels: Labels = None) -> str:
        return f"the function {getattr(self.function, '__name__', repr(self.function))}"


def as_target(target: Any) -> Target:
    """A Target from what users write: a Target, an int, a tuple, integers one per sample, a callable, or None."""
    if isinstance(target, Target):
        return target
    if target is None or isinstance(target, (Tensor, tuple)):
        return Logit(target)
    if callable(target):
        return Function(target)
    try:
        if isinstance(target, bool):
            raise TypeError
        if (isinstance(target, Sequence) and not isinstance(target, str)) or hasattr(target, "__array__"):
            return Logit(torch.as_tensor(target))
        return Logit(operator.index(target))
    except (TypeError, ValueError) as error:
        raise TargetError(
            f"a target is a class index, one index per sample, a Target, a function or None, not {target!r}"
        ) from error


def _pin_index(index: Index, rows: int, output: Tensor | None) -> Tensor | tuple[int, ...]:
    """One class per sample, (n,) on the CPU; the tuple of one entry as it is."""
    if isinstance(index, tuple):
        return _whole(index)
    if index is None:
        if output is None:
            raise TargetError("the predicted class is not known without an output")
        columns = _columns(output).detach().cpu()
        predicted: Tensor = columns.flatten(2).argmax(1).mode(1).values if columns.ndim > 2 else columns.argmax(1)
        return predicted
    try:
        chosen = torch.as_tensor(index).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(f"a target is an integer class index, not {index!r}") from error
    if chosen.dtype.is_floating_point or chosen.dtype.is_complex or chosen.dtype == torch.bool:
        raise TargetError(f"a target is an integer class index, not {chosen.dtype}")
    if chosen.ndim == 0:
        chosen = chosen.expand(rows)
    if chosen.shape != (rows,):
        raise TargetError(
            f"the target has shape {tuple(chosen.shape)}; give one class for all, or one for each of the {rows} samples"
        )
    return chosen.long()


def _whole(index: tuple[Any, ...]) -> tuple[int, ...]:
    """The entries of an index as ints."""
    if any(isinstance(i, bool) or not hasattr(i, "__index__") for i in index):
        raise TargetError(f"the entries of a tuple as target are integers, as in (c, y, x), not {index}")
    return tuple(map(operator.index, index))


def _check_range(chosen: Tensor, classes: int) -> None:
    wrong = chosen[(chosen < 0) | (chosen >= classes)]
    if len(wrong):
        only = " (the model has a single output: explain that one, or pass a function of it)" if classes == 1 else ""
        raise TargetError(f"target {int(wrong[0])} is out of range: the classes go from 0 to {classes - 1}{only}")


def class_name(index: Index, sample: int, labels: Labels) -> str:
    """A class in words: its label where there is one, and its number."""
    if isinstance(index, Tensor):
        index = int(index[sample] if index.ndim else index)
    if index is None:
        return "the predicted class"
    if isinstance(index, int) and labels is not None and index < len(labels):
        return f"{labels[index]!r} ({index})" if labels[index] != str(index) else labels[index]
    return f"class {index}" if isinstance(index, int) else f"entry {index}"


def _columns(output: Tensor) -> Tensor:
    return output[:, None] if output.ndim == 1 else output


def class_scores(output: Tensor) -> Tensor:
    """One score for each class (n, classes); in a dense output the sum over its positions."""
    columns = _columns(output)
    return columns.flatten(2).sum(2) if columns.ndim > 2 else columns


def _select(output: Tensor, index: Index) -> Tensor:
    columns = _columns(output)
    if isinstance(index, tuple):
        sizes = columns.shape[1:]
        if len(index) != len(sizes) or any(not 0 <= i < size for i, size in zip(index, sizes, strict=True)):
            raise TargetError(
                f"target {index} names no entry of an output of shape {tuple(output.shape)}; a tuple is one entry for "
                "all samples, a list or tensor one class for each"
            )
        return columns.movedim(0, -1)[index]
    scores = class_scores(columns)
    chosen = torch.as_tensor(index).expand(len(scores))
    _check_range(chosen, scores.shape[1])
    return scores.gather(1, chosen.to(scores.device)[:, None])[:, 0]
