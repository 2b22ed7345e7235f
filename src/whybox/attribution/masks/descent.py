"""Descent: how a step is made from a gradient. The state has one row a sample, so that samples can drop out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RMSProp:
    """v ← ρ v + (1 − ρ) g², w ← w − η g / √(v + ε), v = 1 at the start and ε inside the root, as TensorFlow has it.

    torch.optim.RMSprop starts at v = 0 and adds ε outside the root: its first steps are far longer.
    """

    rate: float = 0.03
    decay: float = 0.9
    epsilon: float = 1e-10

    def start(self, weights: Tensor) -> dict[str, Tensor]:
        """The state before the first step."""
        return {"square": torch.ones_like(weights)}

    def step(self, gradient: Tensor, state: dict[str, Tensor], number: int, share: float) -> Tensor:
        """What to subtract from the weights in step `number`, from 1, of which `share` of all steps are done."""
        state["square"] = self.decay * state["square"] + (1 - self.decay) * gradient.square()
        return self.rate * gradient / (state["square"] + self.epsilon).sqrt()


@dataclass(frozen=True)
class Adam:
    """Adam with a rate that falls geometrically from `rate` to `last` over all steps.

    Source: Kingma & Ba 2015, arXiv 1412.6980.
    """

    rate: float = 1.4
    last: float = 0.05
    momentum: float = 0.8
    decay: float = 0.9
    epsilon: float = 1e-12

    def start(self, weights: Tensor) -> dict[str, Tensor]:
        """The state before the first step."""
        return {"mean": torch.zeros_like(weights), "square": torch.zeros_like(weights)}

    def step(self, gradient: Tensor, state: dict[str, Tensor], number: int, share: float) -> Tensor:
        """What to subtract from the weights in step `number`, from 1, of which `share` of all steps are done."""
        state["mean"] = self.momentum * state["mean"] + (1 - self.momentum) * gradient
        state["square"] = self.decay * state["square"] + (1 - self.decay) * gradient.square()
        mean = state["mean"] / (1 - self.momentum**number)
        square = state["square"] / (1 - self.decay**number)
        rate = self.rate * (self.last / self.rate) ** share
        step: Tensor = rate * mean / (square.sqrt() + self.epsilon)
        return step


@dataclass(frozen=True)
class Smoothed:
    """Adam whose gradient and step are smoothed: w ← w − A adam(A g), as if w = A u and Adam moved u.

    A = (1 + c K)^−½ in cosines, K the square of the Laplacian's spectrum with mirrored edges. A mean (Laplacian of w)²
    is stiff: at full resolution it allows only short steps; in u its curvature is bounded by 1/c. c falls
    geometrically from `coarse` to `fine` over all steps, so that broad shapes are found first.

    Args:
        adam: how the smoothed gradient becomes a step.
        kernel: width of the Laplacian.
        coarse: c in the first step; 0 smooths nothing.
        fine: c in the last one.
    """

    adam: Adam
    kernel: int
    coarse: float
    fine: float

    def start(self, weights: Tensor) -> dict[str, Tensor]:
        """The state before the first step."""
        return self.adam.start(weights)

    def step(self, gradient: Tensor, state: dict[str, Tensor], number: int, share: float) -> Tensor:
        """What to subtract from the weights in step `number`, from 1, of which `share` of all steps are done."""
        constant = self.coarse ** (1 - share) * self.fine**share
        bases = [cosines(edge, gradient) for edge in gradient.shape[2:]]
        scale: Tensor = (1 + constant * laplacian_spectrum(self.kernel, gradient).square()).rsqrt()

        def smooth(field: Tensor) -> Tensor:
            return _along(bases, scale * _along([basis.T for basis in bases], field))

        step: Tensor = smooth(self.adam.step(smooth(gradient), state, number, share))
        return step


def cosines(edge: int, like: Tensor) -> Tensor:
    """The orthonormal cosines over so many places, one a column (edge, edge): the inverse of DCT-II."""
    place = torch.arange(edge, dtype=like.dtype, device=like.device)
    basis: Tensor = math.sqrt(2 / edge) * torch.cos(math.pi / edge * (place[:, None] + 0.5) * place)
    basis[:, 0] /= math.sqrt(2)
    return basis


def laplacian_spectrum(kernel: int, like: Tensor) -> Tensor:
    """What the Laplacian of −1 around its centre makes of each cosine over the axes of `like` (n, 1, *grid)."""
    box = torch.ones((), dtype=like.dtype, device=like.device)
    for edge in like.shape[2:]:
        angle = math.pi / edge * torch.arange(edge, dtype=like.dtype, device=like.device)
        box = box[..., None] * sum(torch.cos(shift * angle) for shift in range(-(kernel // 2), kernel // 2 + 1))
    spectrum: Tensor = kernel ** (like.ndim - 2) - box
    return spectrum


def _along(matrices: list[Tensor], field: Tensor) -> Tensor:
    """Each matrix times the field (n, 1, *grid) along its axis."""
    for axis, matrix in enumerate(matrices, 2):
        field = torch.tensordot(field, matrix, ([axis], [1])).movedim(-1, axis)
    return field


Descent = RMSProp | Adam | Smoothed
