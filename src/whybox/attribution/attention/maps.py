"""The attention of a batch as one square map of tokens for each layer and head, and which tokens the score reads."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.attention.interception import Attention
from whybox.attribution.perturbation.partition import relevance_dtype
from whybox.core.errors import InputError, ModelError
from whybox.core.layout import MOST_PREFIX_TOKENS, to_grid
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each


@dataclass(frozen=True)
class Layer:
    """One attention.

    Attributes:
        probabilities: how much each token takes from each, (n, heads, tokens, tokens); rows sum to 1.
        gradient: of the score with respect to these.
    """

    probabilities: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Maps:
    """All attention on the way to the score.

    Attributes:
        layers: in the order in which they run.
        read: the shares at which the score reads the tokens behind the last of them, (n, tokens): equal for all whose
            gradient is not zero, as the class token alone, the last one, or all but the padding.
    """

    layers: tuple[Layer, ...]
    read: Tensor


def attention_maps(task: Task, inputs: Inputs, sample: Tensor) -> Maps:
    """The attention of these variants, in one chunk. A step of `Task.map`. Cost: one forward and one backward pass."""
    if len(as_tuple(inputs)) > 1:
        raise InputError("attention explains a single input; give the model's others as forward_kwargs")
    leaves = each(lambda x: x.detach().requires_grad_() if x.is_floating_point() else x, inputs)
    attention = Attention(task.model.module)
    with attention:
        score = task.forward(leaves, sample)
    if not attention.maps:
        raise ModelError(
            "found no attention in this model: neither torch's own nor a softmax over the last axis that a matrix "
            "product reads (scripted and compiled parts and kernels of other packages cannot be seen); choose another "
            "method"
        )
    task.cost.backwards += len(score)
    gradients: tuple[Tensor | None, ...] = (None,) * len(attention.maps)
    if score.requires_grad:
        gradients = torch.autograd.grad(score.sum(), attention.maps, allow_unused=True)
    layers: list[Layer] = []
    for probabilities, gradient, where in zip(attention.maps, gradients, attention.places, strict=True):
        if gradient is not None:
            tokens = layers[0].probabilities.shape[-1] if layers else None
            shape = _shape(probabilities, len(sample), tokens, where)
            layers.append(Layer(probabilities.detach().reshape(shape), gradient.reshape(shape)))
    if not layers:
        raise ModelError("the score does not depend on the model's attention through operations with a gradient")
    read = (layers[-1].gradient.abs().sum((1, 3)) > 0).to(layers[-1].gradient)
    return Maps(tuple(layers), read / read.sum(1, keepdim=True).clamp_min(1))


def _shape(probabilities: Tensor, rows: int, tokens: int | None, where: str) -> tuple[int, int, int, int]:
    """The shape (n, heads, tokens, tokens) of these probabilities; an error where they are no such map."""
    shape = tuple(probabilities.shape)
    queries, keys = shape[-2:]
    called = f"the attention in module {where!r}, of shape {shape},"
    advice = "choose another method, as lrp or integrated_gradients"
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != rows) or shape[0] % rows:
        raise ModelError(f"{called} is not one map for each of {rows} samples, as with windows (Swin); {advice}")
    if queries != keys:
        raise ModelError(
            f"{called} lets {queries} tokens look at {keys} others (cross-attention, pooling, a cache); only "
            f"attention among the same tokens can be followed; {advice}"
        )
    if tokens is not None and keys != tokens:
        raise ModelError(f"{called} has {keys} tokens, the first one {tokens}: they are not the same ones; {advice}")
    return rows, shape[1] if len(shape) == 4 else shape[0] // rows, queries, keys


def laid_out(tokens: Tensor, task: Task) -> Tensor:
    """Relevance by token (n, t) as relevance of the task's input.

    A row of tokens (n, t, d) gets (n, t, 1), a series (n, c, t) gets (n, 1, t), a picture (n, 1, h, w), in which every
    pixel has its patch's value. Class, distillation and register tokens stand before the others and are left out; of
    rows that are the model's own input only one, since a series may have nearly as many channels.
    """
    x = as_tuple(task.inputs)[0]
    values, count = tokens.to(x.device, relevance_dtype(x)), tokens.shape[1]
    if x.ndim == 4:
        grid = to_grid(values[:, :, None], tuple(x.shape[2:]))
        if grid is not None and not any(size % cells for size, cells in zip(x.shape[2:], grid.shape[2:], strict=True)):
            return F.interpolate(grid, size=x.shape[2:], mode="nearest")
    before = 1 if task.at is None else MOST_PREFIX_TOKENS
    along = [axis for axis in (1, 2) if axis < x.ndim <= 3 and 0 <= count - x.shape[axis] <= before]
    if not along:
        raise ModelError(
            f"the model attends to {count} tokens, which are no row and no grid of patches of an input of shape "
            f"{tuple(x.shape)}; explain the layer that makes the tokens with at='…'"
        )
    axis = min(along, key=lambda axis: count - x.shape[axis])
    shape = [len(x), *(x.shape[i] if i == axis else 1 for i in range(1, x.ndim))]
    return values[:, count - x.shape[axis] :].reshape(shape)
