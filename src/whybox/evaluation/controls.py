"""Controls: maps that know nothing of the model. An explanation must differ from them to mean something."""

import numpy
import scipy.ndimage
import torch
from jaxtyping import Float
from torch import Tensor


def edges(inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """The strength of the edges in each picture: the Sobel gradient's length, summed over the channels."""
    pictures = inputs.detach().cpu().double().numpy()
    down, right = (_sobel(pictures, along, across) for along, across in ((-2, -1), (-1, -2)))
    strength = torch.as_tensor((down**2 + right**2) ** 0.5).sum(1, keepdim=True)
    return strength.to(inputs)


def _sobel(pictures: numpy.ndarray, along: int, across: int) -> numpy.ndarray:
    """The difference along one axis, smoothed across it. (scipy's own `sobel` smooths over all other axes: samples.)"""
    difference = scipy.ndimage.correlate1d(pictures, [-1, 0, 1], along, mode="nearest")
    smoothed: numpy.ndarray = scipy.ndimage.correlate1d(difference, [1, 2, 1], across, mode="nearest")
    return smoothed
