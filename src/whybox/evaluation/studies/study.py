"""Study: a question about methods, rather than about one explanation, as a plain value; Findings: what it answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core import registry
from whybox.core.errors import InputError
from whybox.core.method import Method
from whybox.core.model import Model
from whybox.core.start import started
from whybox.core.tree import Inputs
from whybox.core.value import Value

Data = tuple[Tensor, Tensor]
"""Inputs, batch first, and the class of each, (n,)."""

Fit = Callable[[Tensor, Tensor, int], nn.Module | Model]
"""Trains a model: `fit(inputs, labels, seed)`, the same one for the same arguments; the tensors may not be changed."""


@dataclass
class Findings:
    """What a study answers.

    Attributes:
        rows: the table, one mapping a row, with the same columns in all.
        details: what else was measured.
    """

    rows: list[dict[str, Any]]
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The table in columns, numbers with three decimals."""
        cells = [[_written(value) for value in row.values()] for row in self.rows]
        table = [list(self.rows[0]), *cells] if self.rows else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)


class Study(Value):
    """A question about methods: a frozen dataclass of plain values, as a method is.

    The author of a study writes the dataclass, its docstring (summary, Cost:, Limits:, Source:) and `run`, which is
    given what the question is put to: data, models, a training.
    """

    def run(self, *args: Any, **kwargs: Any) -> Findings:
        """Answer the question. Written by the study's author."""
        raise NotImplementedError


def with_controls(methods: Sequence[Method | str], controls: Sequence[Method]) -> dict[str, Method]:
    """The methods by what to call them in a table, and after them the controls that are not among them."""
    chosen = [registry.method(method) if isinstance(method, str) else method for method in methods]
    if not chosen:
        raise InputError("a study is of methods: give at least one")
    chosen += [control for control in controls if control not in chosen]
    configs = [method.config() for method in chosen]
    if any(config in configs[:k] for k, config in enumerate(configs)):
        raise InputError("each method once, and each External with a name of its own: what they find is kept by that")
    names = [config["name"] for config in configs]
    titles = [repr(m) if names.count(name) > 1 else name for name, m in zip(names, chosen, strict=True)]
    return dict(zip(titles, chosen, strict=True))


def accuracy(model: nn.Module | Model, data: Data) -> float:
    """The share of the inputs for which the model predicts their class. Cost: n forwards."""
    return float((predicted(model, data[0]) == data[1].cpu()).double().mean())


def predicted(model: nn.Module | Model, inputs: Inputs) -> Tensor:
    """The class that the model predicts for each input, (n,) on the CPU. Cost: n forwards."""
    with started(model, inputs, None, differentiable=False) as task, torch.no_grad():
        index: Tensor = task.target.index  # type: ignore[attr-defined]
    return index


def check_data(data: Data, what: str) -> None:
    """Raise InputError unless this is one tensor of inputs and a label for each."""
    inputs, labels = data
    if not isinstance(inputs, Tensor) or labels.ndim != 1 or labels.is_floating_point():
        raise InputError(f"the {what} data are one tensor of inputs and their classes, whole numbers (n,)")
    if len(inputs) != len(labels):
        raise InputError(f"the {what} data have {len(inputs)} inputs, but {len(labels)} labels")


def mean_of(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean over the samples of each column, of those that have a value."""
    return {name: float(column.nanmean()) for name, column in values.items()}


def _written(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
