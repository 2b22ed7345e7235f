"""What stands at the beginning of every run: the inputs checked, the target pinned, the task set up."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from whybox.core.errors import InputError, ModelError
from whybox.core.guard import guard
from whybox.core.model import Model
from whybox.core.taps import check_rows, tap
from whybox.core.target import as_target
from whybox.core.task import Task, noise_keys
from whybox.core.tree import Inputs, as_tuple, each


@contextmanager
def started(
    model: Model | nn.Module,
    inputs: Inputs,
    target: Any,
    *,
    forward_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = False,
    at: str | None = None,
    differentiable: bool = True,
) -> Iterator[Task]:
    """The task of a run, as in `Method.run`, while the context lasts; then the model is as it was, bit for bit."""
    model = Model.wrap(model)
    check_inputs(inputs, model, differentiable=differentiable and at is None)
    with guard(model.module, seed), torch.inference_mode(False), torch.enable_grad():
        if any(x.is_inference() for x in (*model.module.parameters(), *model.module.buffers())):
            raise ModelError("the model was made under torch.inference_mode; load it outside, or deepcopy it there")
        kwargs = {name: _own(value) for name, value in (forward_kwargs or {}).items()}
        yield start(model, each(_own, inputs), target, kwargs, seed, progress, at)


def _own(value: Any) -> Any:
    """A tensor outside of any graph, and one that autograd may save; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return value.detach().clone() if value.is_inference() else value.detach()


def start(
    model: Model,
    inputs: Inputs,
    target: Any,
    kwargs: dict[str, Any],
    seed: int,
    progress: bool,
    at: str | None,
) -> Task:
    """The task of explaining these inputs, its target pinned on the originals, inside the model where `at` says so."""
    rows = len(as_tuple(inputs)[0])
    per_sample = frozenset(k for k, v in kwargs.items() if isinstance(v, Tensor) and v.ndim and len(v) == rows)
    task = Task(model, inputs, as_target(target), noise_keys(seed, rows), kwargs, per_sample, progress=progress)
    output = None
    if task.target.predicts:
        with torch.no_grad():
            output = task.map(task.output, inputs, gradient=False)
        check_outputs(output)
    task = replace(task, target=task.target.pin(rows, output))
    return task if at is None else replace(task, inputs=_activations(task, at), at=(at, inputs))


def check_outputs(output: Tensor) -> None:
    """Raise ModelError unless every entry of the model's output is finite."""
    bad = (~torch.isfinite(output.reshape(len(output), -1)).all(1)).nonzero().flatten().tolist()
    if bad:
        raise ModelError(f"the model's output is not finite for sample(s) {bad[:5]}; there is nothing to explain")


def _activations(task: Task, layer: str) -> Tensor:
    """What the layer gives out for the task's inputs."""

    def record(inputs: Inputs, sample: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            seen.append(output)
            return output.clone()

        with torch.no_grad(), tap(task.model.module, {layer: keep}):
            task.output(inputs, sample)
        if not seen:
            raise ModelError(f"layer {layer!r} does not run in the forward pass of this model")
        check_rows(layer, seen[0], len(sample))
        return seen[0]

    activations: Tensor = task.map(record, task.inputs, gradient=False)
    return activations


def check_inputs(inputs: Any, model: Model, *, differentiable: bool) -> None:
    """Raise InputError unless these are non-empty, finite tensors with the batch first, on the model's device."""
    parts = as_tuple(inputs)
    if not parts:
        raise InputError("the input is an empty tuple; give one tensor, or a tuple of one per input of the model")
    if any(is_lazy(tensor) for tensor in (*model.module.parameters(), *model.module.buffers())):
        raise ModelError("the model has lazy layers that are not initialised; run it once on an input before")
    reference = model.reference_tensor()
    for x in parts:
        if not isinstance(x, Tensor):
            raise InputError(
                f"the input is a Tensor or a tuple of Tensors, not {type(x).__name__}; try torch.as_tensor"
            )
        if x.ndim == 0 or len(x) == 0:
            raise InputError(f"the batch is empty: the input has shape {tuple(x.shape)}, but the batch comes first")
        if x.numel() == 0:
            raise InputError(f"the input has shape {tuple(x.shape)}: its samples hold no values")
        if len(x) != len(parts[0]):
            raise InputError(f"the inputs have {len(parts[0])} and {len(x)} samples; each needs one row per sample")
        if differentiable and not x.is_floating_point():
            raise InputError(
                f"this method needs gradients, but the input is {x.dtype}: convert it with .float(), or for token "
                "indices explain the embedding layer with at='…'"
            )
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            bad = (~torch.isfinite(x.reshape(len(x), -1)).all(1)).nonzero().flatten().tolist()
            raise InputError(f"the input holds NaN or infinity in sample(s) {bad[:5]}; clean it before explaining")
        if reference is not None and x.device != reference.device:
            raise InputError(
                f"the input is on {x.device}, the model on {reference.device}; move one of them with .to()"
            )


def check_relevance(relevance: Inputs, inputs: Inputs, method: str) -> None:
    """Raise ModelError unless the relevance has the rank of the input, with its sizes or 1; a bug of the method."""
    for part in as_tuple(relevance):
        if not isinstance(part, Tensor):
            raise ModelError(f"{method} gave a {type(part).__name__} as relevance; it must give a Tensor")
    if len(as_tuple(relevance)) != len(as_tuple(inputs)):
        raise ModelError(
            f"{method} gave relevance for {len(as_tuple(relevance))} inputs, but the model has {len(as_tuple(inputs))}"
        )
    for r, x in zip(as_tuple(relevance), as_tuple(inputs), strict=True):
        fits = r.ndim == x.ndim and all(a in (1, b) for a, b in zip(r.shape[1:], x.shape[1:], strict=True))
        if not fits or len(r) != len(x):
            raise ModelError(
                f"{method} gave relevance of shape {tuple(r.shape)} for an input of shape {tuple(x.shape)}"
            )
