"""Controls: maps that know nothing of the model, as methods. An explanation must beat them to mean something."""

from dataclasses import dataclass

import numpy
import scipy.ndimage
import torch
from jaxtyping import Float
from torch import Tensor

from whybox.attribution.perturbation.uniform import uniform
from whybox.core.errors import InputError
from whybox.core.method import Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each, like

_IGNORES_THE_MODEL = Taxonomy(shows="features", needs="outputs", relation="proxy")


@dataclass(frozen=True)
class RandomMap(Method):
    """Relevance R ~ U(−1, 1), independent at every place: what can be had without looking at anything.

    Cost: none.
    Limits: a control, no explanation.
    Source: -
    """

    taxonomy = _IGNORES_THE_MODEL

    def attribute(self, task: Task) -> Inputs:
        keys = torch.tensor(task.keys)

        def noise(x: Tensor, number: int) -> Tensor:
            one = x[:, :1] if x.ndim > 2 else x
            values = 2 * uniform(keys, torch.full((len(x),), number), one[0].numel()) - 1
            return _as_relevance(values.view(one.shape), x)

        return like(task.inputs, tuple(noise(x, i) for i, x in enumerate(as_tuple(task.inputs))))


@dataclass(frozen=True)
class CentreBlob(Method):
    """Relevance R = exp(−½ Σ_a (p_a / s_a)²), p from the middle, s a quarter of the axis: photographers centre things.

    Cost: none.
    Limits: a control, no explanation; needs inputs with positions (n, c, …).
    Source: -
    """

    taxonomy = _IGNORES_THE_MODEL

    def attribute(self, task: Task) -> Inputs:
        return each(_blob, task.inputs)


@dataclass(frozen=True)
class EdgeDetector(Method):
    """Relevance R = √(∂₁x² + ∂₂x²), Sobel's, summed over the channels: many maps show edges, and so does this.

    Cost: none.
    Limits: a control, no explanation; needs pictures (n, c, h, w).
    Source: as a control, Adebayo et al. 2018, arXiv 1810.03292.
    """

    taxonomy = _IGNORES_THE_MODEL

    def attribute(self, task: Task) -> Inputs:
        return each(edges, task.inputs)


@dataclass(frozen=True)
class InputMagnitude(Method):
    """Relevance R = |x|: what any method that multiplies by the input starts from.

    Cost: none.
    Limits: a control, no explanation; needs inputs that are numbers, not tokens.
    Source: -
    """

    taxonomy = _IGNORES_THE_MODEL

    def attribute(self, task: Task) -> Inputs:
        return each(torch.abs, task.inputs)


def controls_for(inputs: Inputs) -> tuple[Method, ...]:
    """The controls that make sense for inputs of this kind."""
    parts = as_tuple(inputs)
    chosen: list[Method] = [RandomMap()]
    if all(x.ndim > 2 for x in parts):
        chosen.append(CentreBlob())
    if all(x.ndim == 4 for x in parts):
        chosen.append(EdgeDetector())
    if all(x.is_floating_point() for x in parts):
        chosen.append(InputMagnitude())
    return tuple(chosen)


def edges(inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """The strength of the edges in each picture: the Sobel gradient's length, summed over the channels."""
    if inputs.ndim != 4:
        raise InputError(f"edges are those of pictures (n, c, h, w), not of an input of shape {tuple(inputs.shape)}")
    pictures = inputs.detach().cpu().double().numpy()
    down, right = (_sobel(pictures, along, across) for along, across in ((-2, -1), (-1, -2)))
    strength = torch.as_tensor((down**2 + right**2) ** 0.5).sum(1, keepdim=True)
    return strength.to(inputs)


def _sobel(pictures: numpy.ndarray, along: int, across: int) -> numpy.ndarray:
    """The difference along one axis, smoothed across it. (scipy's own `sobel` smooths over all other axes: samples.)"""
    difference = scipy.ndimage.correlate1d(pictures, [-1, 0, 1], along, mode="nearest")
    smoothed: numpy.ndarray = scipy.ndimage.correlate1d(difference, [1, 2, 1], across, mode="nearest")
    return smoothed


def _blob(x: Tensor) -> Tensor:
    if x.ndim < 3:
        raise InputError(f"an input of shape {tuple(x.shape)} has no positions, and so no centre")
    exponent = torch.zeros((1,) * x.ndim, dtype=torch.float64)
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        from_middle = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / (size / 4)
        exponent = exponent - from_middle.square().view(-1, *(1,) * (x.ndim - axis - 1)) / 2
    return _as_relevance(exponent.exp().expand(len(x), 1, *x.shape[2:]), x)


def _as_relevance(values: Tensor, x: Tensor) -> Tensor:
    """On the input's device, in its dtype; in the default one for tokens."""
    return values.to(x.device, x.dtype if x.is_floating_point() else torch.get_default_dtype())
