"""References: what stands in for what is hidden, or where a path to the input begins.

`infill.fill(x, domain, generators)` gives a full replacement of x; the caller uses as much of it as is hidden.
Random infills draw from one generator per row, so that the result depends on (seed, sample, draw) alone.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Generator, Tensor

from whybox.core.errors import InputError
from whybox.core.model import Domain


class Infill:
    """What replaces hidden values. A frozen dataclass with `fill`.

    `fixed` says that the replacement follows from x alone, neither from chance nor from what is hidden, so that one
    serves for all variants of a sample.
    """

    fixed = False

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        """A replacement for x (n, …), in the model's units.

        Args:
            x: the originals, batch first, channels on axis 1.
            domain: the lowest and highest valid value per channel.
            generators: one random generator per row; read by random infills only.
            hidden: True where values are hidden, broadcastable to x; read by `Imputed` only.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Zero(Infill):
    """Zero in the model's units: for normalised pictures the mean colour of the training set."""

    fixed = True

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Constant(Infill):
    """One value in the model's units, for every channel."""

    value: int | float

    fixed = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InputError(f"Constant needs a finite value, not {self.value}")

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        return torch.full_like(x, self.value)


@dataclass(frozen=True)
class Black(Infill):
    """The lowest valid value of each channel."""

    fixed = True

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        return domain.bounds(x)[0].expand_as(x).clone()


@dataclass(frozen=True)
class Flipped(Infill):
    """Each value mirrored within the domain of its channel: low + high − x, so that black becomes white."""

    fixed = True

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        low, high = domain.bounds(x)
        return low + high - x


@dataclass(frozen=True)
class Mean(Infill):
    """The mean of each sample's channel over its positions; of the whole row where there are no positions."""

    fixed = True

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        return x.mean(_positions(x), keepdim=True).expand_as(x).clone()


@dataclass(frozen=True)
class Blur(Infill):
    """The sample blurred by a Gaussian over its positions (axes 2 and on), the border mirrored.

    Args:
        sigma: the standard deviation in pixels.
    """

    sigma: float = 10.0

    fixed = True

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"Blur needs a positive sigma, not {self.sigma}")

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        if x.ndim < 3:
            raise InputError(f"Blur needs positions to blur over (n, c, …), but the input has shape {tuple(x.shape)}")
        axes = tuple(range(2, x.ndim))
        blurred = scipy.ndimage.gaussian_filter(
            x.detach().cpu().double().numpy(), self.sigma, axes=axes, mode="reflect"
        )
        return torch.as_tensor(blurred).to(x)


@dataclass(frozen=True)
class UniformNoise(Infill):
    """Independent noise, uniform over the domain of each channel."""

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        low, high = domain.bounds(x)
        return low + (high - low) * per_row(torch.rand, x, generators)


@dataclass(frozen=True)
class GaussianNoise(Infill):
    """Independent normal noise with the mean and standard deviation of each sample's channel."""

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        noise, axes = per_row(torch.randn, x, generators), _positions(x)
        return x.mean(axes, keepdim=True) + x.std(axes, keepdim=True, correction=0) * noise


@dataclass(frozen=True)
class Shuffled(Infill):
    """The sample's own values at shuffled positions (columns, where there are no positions); channels stay together."""

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        flat = x.flatten(2) if x.ndim > 2 else x
        orders = (torch.randperm(flat.shape[-1], generator=g, device=g.device) for g in generators)
        rows = [row[..., order.to(x.device)] for row, order in zip(flat, orders, strict=True)]
        return torch.stack(rows).view_as(x)


@dataclass(frozen=True)
class Sample(Infill):
    """Another sample of the batch, drawn at random."""

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        return x[self.choose(torch.arange(len(x)), len(x), generators).to(x.device)]

    def choose(self, own: Tensor, count: int, generators: Iterable[Generator]) -> Tensor:
        """For each row the number of another sample than its `own`, out of `count`."""
        if count < 2:
            raise InputError("Sample replaces by another sample of the batch, so it needs at least two")
        steps = [int(torch.randint(1, count, (1,), generator=g, device=g.device)) for g in generators]
        return (own + torch.tensor(steps)) % count


@dataclass(frozen=True)
class Imputed(Infill):
    """Noisy linear imputation: hidden pixels become the weighted mean of their eight neighbours, plus noise.

    Direct neighbours weigh 1/6, diagonal ones 1/12, renormalised at the border; the equations of all hidden pixels
    are solved together, so a hidden area is bridged smoothly and its shape gives nothing away.
    Cost: one sparse linear solve per sample on the CPU.
    Source: ROAD, Rong, Leemann, Borisov, Kasneci & Kasneci 2022, arXiv 2202.00449.

    Args:
        noise: standard deviation of the noise added to the hidden pixels, in the model's units.
    """

    noise: float = 0.0

    def fill(self, x: Tensor, domain: Domain, generators: Iterable[Generator], hidden: Tensor | None = None) -> Tensor:
        if hidden is None or x.ndim != 4:
            raise InputError("Imputed fills hidden pixels of pictures (n, c, h, w) and needs to know which are hidden")
        spread = hidden.expand_as(x)
        if bool((spread != spread[:, :1]).any()):
            raise InputError("Imputed hides the channels of a pixel together; give a mask of shape (n, 1, h, w)")
        masks = spread[:, 0].cpu().numpy()
        filled = numpy.stack(
            [_impute(picture, mask) for picture, mask in zip(x.detach().cpu().double().numpy(), masks, strict=True)]
        )
        result = torch.as_tensor(filled).to(x)
        noise = self.noise * per_row(torch.randn, x, generators) if self.noise else torch.zeros_like(x)
        return torch.where(hidden, result + noise, x)


def per_row(draw: Callable[..., Tensor], x: Tensor, generators: Iterable[Generator]) -> Tensor:
    """Random values in the shape of x (n, …), each row from its own generator."""
    if not x.is_floating_point():
        raise InputError(f"there is no noise for an input of {x.dtype}; choose an infill such as Zero() or Constant(…)")
    return torch.stack([draw(x.shape[1:], dtype=x.dtype, device=x.device, generator=g) for g in generators])


def _positions(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim)) if x.ndim > 2 else tuple(range(1, x.ndim))


def _impute(picture: numpy.ndarray, hidden: numpy.ndarray) -> numpy.ndarray:
    """Solve w·neighbours − x = 0 for the hidden pixels of one picture (c, h, w); all hidden gives the mean."""
    if hidden.all() or not hidden.any():
        return numpy.broadcast_to(picture.mean((1, 2), keepdims=True), picture.shape) if hidden.all() else picture
    rows, columns = numpy.nonzero(hidden)
    unknown = numpy.full(hidden.shape, -1)
    unknown[rows, columns] = numpy.arange(len(rows))
    matrix = scipy.sparse.lil_matrix((len(rows), len(rows)))
    constant = numpy.zeros((len(rows), len(picture)))
    total = numpy.zeros(len(rows))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if down == right == 0:
                continue
            r, c = rows + down, columns + right
            inside = numpy.nonzero((r >= 0) & (r < hidden.shape[0]) & (c >= 0) & (c < hidden.shape[1]))[0]
            weight = 1 / 6 if down == 0 or right == 0 else 1 / 12
            total[inside] += weight
            other = unknown[r[inside], c[inside]]
            to_hidden = other >= 0
            matrix[inside[to_hidden], other[to_hidden]] = -weight
            known = inside[~to_hidden]
            constant[known] += weight * picture[:, r[known], c[known]].T
    matrix.setdiag(total)
    solution = scipy.sparse.linalg.spsolve(matrix.tocsc(), constant).reshape(len(rows), -1)
    filled = picture.copy()
    filled[:, rows, columns] = solution.T
    return filled
