"""inspect: what a model is made of, which methods are exact on it, and where module-based LRP would go wrong."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from whybox.attribution.backprop.composites import Composite, default
from whybox.attribution.backprop.lrp import LRP
from whybox.attribution.backprop.trace import CAUSES, Trace
from whybox.core.errors import InputError, ModelError
from whybox.core.model import Model
from whybox.core.start import check_outputs, started
from whybox.core.text import columns, wrap
from whybox.core.tree import Inputs, as_tuple
from whybox.inspection.operations import Operation, operations
from whybox.inspection.pitfalls import Pitfall, pitfalls
from whybox.inspection.verdicts import Case, Verdict, verdicts

_FEW = 3


@dataclass(frozen=True)
class Inspection:
    """What is known of a model; printing it gives a page of text.

    Attributes:
        model: its name.
        inputs: what it was tried on, in words.
        target: what was explained of each sample, in words.
        scores: the target's score for each sample.
        composite: the composite whose rules the operations have.
        refusal: why LRP refuses the model, or "".
        operations: what runs between the input and the score, in the order in which it first runs; empty where even
            gradients in the place of missing rules do not let LRP through.
        methods: the verdict on every registered method.
        pitfalls: where LRP by modules would go wrong.
    """

    model: str
    inputs: str
    target: tuple[str, ...]
    scores: tuple[float, ...]
    composite: str
    refusal: str
    operations: tuple[Operation, ...]
    methods: tuple[Verdict, ...]
    pitfalls: tuple[Pitfall, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values; a share that is not finite is None."""
        record = asdict(self)
        for operation in record["operations"]:
            operation["absorbed"] = {
                cause: share if math.isfinite(share) else None for cause, share in operation["absorbed"].items()
            }
        return record

    def __str__(self) -> str:
        more = f", and {len(self.target) - 1} more" if len(self.target) > 1 else ""
        parts = [
            [wrap(f"{self.model} on {self.inputs}. Explained: {self.target[0]}, which is {self.scores[0]:.4g}{more}.")],
            self._operations(),
            ["Methods", *columns([(v.method, v.word, v.why) for v in self.methods], "  ")],
            self._pitfalls(),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts)

    def _operations(self) -> list[str]:
        if not self.operations:
            return ["Operations: not known, because LRP refuses the model", wrap(self.refusal, "  ")]
        head = ("OPERATION", "KIND", "RULE", "TIMES", "ABSORBED", "WHERE")
        rows = [
            (_brief(one.name), one.kind, one.rule, str(one.count), _percent(one.absorbed), _places(one.modules))
            for one in self.operations
        ]
        lines = [f"Operations, with the rules of {self.composite} and the share of the score that each absorbs"]
        lines += columns([head, *rows], "  ")
        return [*lines, wrap(f"LRP refuses the model: {self.refusal}", "  ")] if self.refusal else lines

    def _pitfalls(self) -> list[str]:
        title = "Where LRP by modules (zennit, Captum) would go wrong"
        if not self.operations:
            return [f"{title}: not known"]
        if not self.pitfalls:
            return [f"{title}: nowhere"]
        lines = [title]
        for one in self.pitfalls:
            lines.append(wrap(f"{one.count} × {one.name} ({one.operations}): {_places(one.modules)}", "  "))
            lines.append(wrap(one.why, "      "))
        return lines


def inspect(
    model: Model | nn.Module,
    inputs: Inputs | None = None,
    target: Any = None,
    *,
    composite: str | Composite | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    at: str | None = None,
) -> Inspection:
    """Look into a model: its operations, which methods are exact on it, and where LRP by modules would go wrong.

    Args:
        model: any `nn.Module`, or a Model around one; it is left as it was.
        inputs: what to try it on, a batch or a tuple of them; by default one input of random values within the model's
            domain. Real inputs tell more: how much of the score is absorbed where depends on them.
        target, forward_kwargs, at: as in `Method.run`.
        composite: the rules of LRP, as there.

    Cost: LRP's trace, then every method once that asks for more than outputs, those that draw samples with two.

    Raises:
        InputError: no inputs are given, and the model does not say what size its input has.
        ModelError: the model cannot be run on the inputs.
    """
    model = Model.wrap(model)
    composite = composite or default(model.module)
    lrp = LRP(composite)
    given, shown = _inputs(model, inputs)
    options = {"forward_kwargs": forward_kwargs, "at": at}
    with started(model, given, target, forward_kwargs=forward_kwargs, differentiable=at is None) as task:
        with torch.no_grad():
            outputs = task.map(task.output, task.inputs, gradient=False)
            check_outputs(outputs)
            scores = task.target.score(outputs) if task.target.layer is None else task.score(task.inputs)
        pinned, said = task.target, tuple(task.target.describe(i, model.labels) for i in range(task.size))
    trace, refusal = _trace(lrp, model, given, pinned, options)
    case = Case(model, given, pinned, options, lrp, trace)
    return Inspection(
        model=model.name,
        inputs=shown,
        target=said,
        scores=tuple(scores.tolist()),
        composite=composite if isinstance(composite, str) else "the given composite",
        refusal=refusal,
        operations=() if trace is None else operations(trace),
        methods=verdicts(case),
        pitfalls=() if trace is None else pitfalls(trace.steps, model.module),
    )


def _inputs(model: Model, inputs: Inputs | None) -> tuple[Inputs, str]:
    """What to try the model on, and what that is."""
    if inputs is None:
        noise = model.noise()
        if noise is None:
            raise InputError(f"{model.name} does not say what size its input has: give an input to inspect it on")
        return noise, "random values"
    count = len(as_tuple(inputs)[0]) if isinstance(as_tuple(inputs)[0], torch.Tensor) else 0
    return inputs, "one input" if count == 1 else f"{count} inputs"


def _trace(lrp: LRP, model: Model, inputs: Inputs, target: Any, options: dict[str, Any]) -> tuple[Trace | None, str]:
    """LRP's trace and its refusal; where it refuses, the trace by gradients in the place of the missing rules."""
    try:
        return lrp.trace(model, inputs, target, **options), ""
    except ModelError as error:
        refusal = str(error)
    try:
        return LRP(lrp.composite, unknown="gradient").trace(model, inputs, target, **options), refusal
    except ModelError:
        return None, refusal


def _brief(name: str) -> str:
    return name.removeprefix("torch.").removeprefix("nn.functional.")


def _percent(absorbed: Mapping[str, float]) -> str:
    """The share of all causes together, and which of them is the largest."""
    total = sum(absorbed.values())
    if not abs(total) >= 5e-4:
        return "" if total == total else "-"
    return f"{total:.1%} {CAUSES[max(absorbed, key=lambda cause: abs(absorbed[cause]))]}"


def _places(modules: Sequence[str]) -> str:
    """All modules if they are few, else the first and the last."""
    names = [module or "the model's own forward" for module in modules]
    return ", ".join(names) if len(names) <= _FEW else f"{names[0]} … {names[-1]} ({len(names)} modules)"
