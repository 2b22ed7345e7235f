"""Finding, from one forward pass of one sample, the last layer of some kind: to draw a map from, or to look inside."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import Node

from whybox.core.errors import InputError, ModelError
from whybox.core.layout import to_grid
from whybox.core.taps import tap
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, like


def last_spatial_layer(task: Task) -> str:
    """The last layer to run whose output has positions, several of which matter, and which all paths pass through.

    Several must matter: behind the last attention of a ViT only the class token does. All paths must pass: inside a
    residual block a branch holds only a part of the evidence. Both are read off the autograd graph of one sample.
    """
    positions = positions_of(task)
    leaf = as_tuple(task.inputs)[0][:1].detach().requires_grad_()
    outputs, score = _run(task, leaf)
    names = [name for name, output in outputs.items() if output.requires_grad]
    if not names:
        raise ModelError("the model has no layers whose output could be drawn; use another method")
    gradients = torch.autograd.grad(score.sum(), [outputs[name] for name in names], allow_unused=True)
    task.cost.backwards += 1
    with_positions = nonzero = 0
    for name, gradient in reversed(list(zip(names, gradients, strict=True))):
        grid = None if gradient is None else to_grid(gradient, positions)
        if grid is None:
            continue
        with_positions += 1
        nonzero += bool(grid.any())
        if int((grid.abs().amax(1) > 0).sum()) >= 2 and _separates(outputs[name], score, leaf):
            return name
    if with_positions and not nonzero:
        raise ModelError(
            "the score's gradient is zero at every layer with positions: is the last layer filled with zeros?"
        )
    raise ModelError(
        "found no layer with positions that all of the evidence passes through; name one with layer='…' "
        "(`whybox layers MODEL` lists them with their shapes), or use another method"
    )


def last_layer(task: Task) -> str | None:
    """The last layer to run before the output that all paths pass through: what the model makes its answer of.

    Layers whose output is the model's own are passed over: the last one, and containers that end with it. None where
    no layer is left.
    """
    leaf = as_tuple(task.inputs)[0][:1].detach().requires_grad_()
    outputs, score = _run(task, leaf)
    with torch.no_grad():
        last = task.output(_as_given(task, leaf), torch.zeros(1, dtype=torch.long))

    def is_last(output: Tensor) -> bool:
        return output.shape == last.shape and torch.allclose(output, last, rtol=1e-4, atol=1e-6)

    before = (name for name, output in reversed(outputs.items()) if output.requires_grad and not is_last(output))
    return next((name for name in before if _separates(outputs[name], score, leaf)), None)


def averaged_layer(task: Task) -> str:
    """The last layer whose feature maps are averaged over all positions and then read by at most one linear layer."""
    axes = tuple(range(2, 2 + len(positions_of(task))))
    owner = threading.get_ident()
    linear = [name for name, part in task.model.module.named_modules() if isinstance(part, torch.nn.Linear)][-1:]
    read: list[Tensor] = []

    def keep(_part: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        if threading.get_ident() == owner:
            read.append(given[0])

    handles = [task.model.module.get_submodule(name).register_forward_pre_hook(keep) for name in linear]
    try:
        with torch.no_grad():
            outputs, _ = _run(task, as_tuple(task.inputs)[0][:1])
            last = task.map(task.output, as_tuple(task.inputs)[0][:1], torch.zeros(1, dtype=torch.long), gradient=False)
    finally:
        for handle in handles:
            handle.remove()
    wanted = [x.flatten(1) for x in (*read[-1:], last)]
    for name, output in reversed(outputs.items()):
        if output.ndim == 2 + len(axes) and output[0, 0].numel() > 1:
            average = output.mean(axes)
            if any(x.shape == average.shape and torch.allclose(x, average, rtol=1e-4, atol=1e-6) for x in wanted):
                return name
    raise ModelError("CAM needs a net that ends in global average pooling and at most one linear layer; use grad_cam")


def positions_of(task: Task) -> tuple[int, ...]:
    """The shape of the input's positions, of which a class activation map needs one to three axes."""
    if len(as_tuple(task.inputs)) > 1:
        raise InputError("class activation maps explain a single input; give the model's others as forward_kwargs")
    positions = tuple(as_tuple(task.inputs)[0].shape[2:])
    if task.at is not None and as_tuple(task.at[1])[0].ndim == 2:
        raise InputError("class activation maps need pictures, series or video; tokens have no maps")
    if not 1 <= len(positions) <= 3:
        raise InputError("class activation maps need an input with positions: pictures (n, c, h, w), series or video")
    return positions


def _run(task: Task, first: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Every layer's output for one sample in the order in which they ran, without those that ran twice; the score."""
    outputs: dict[str, Tensor] = {}
    twice: set[str] = set()

    def keep(name: str) -> Callable[[Tensor], Tensor]:
        def edit(output: Tensor) -> Tensor:
            if name in outputs:
                twice.add(name)
            outputs[name] = output.clone()  # a copy of its own for each layer, so that containers and parts differ
            return outputs[name].clone()

        return edit

    with tap(task.model.module, {name: keep(name) for name in task.model.layers()}):
        score = task.forward(_as_given(task, first), torch.zeros(1, dtype=torch.long))
    return {name: output for name, output in outputs.items() if name not in twice}, score


def _as_given(task: Task, first: Tensor) -> Inputs:
    """The first sample as the model takes it, with this in the place of its first input."""
    return like(task.inputs, (first, *(x[:1] for x in as_tuple(task.inputs)[1:])))


def _separates(output: Tensor, score: Tensor, leaf: Tensor) -> bool:
    """Whether every path from the leaf to the score passes through this output."""
    assert output.grad_fn is not None
    assert score.grad_fn is not None
    goal = leaf.view_as(leaf).grad_fn
    assert goal is not None
    accumulate = goal.next_functions[0][0]
    seen: set[Node] = {output.grad_fn}
    stack = [score.grad_fn]
    while stack:
        node = stack.pop()
        if node is accumulate:
            return False
        if node in seen:
            continue
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions if following is not None)
    return True
