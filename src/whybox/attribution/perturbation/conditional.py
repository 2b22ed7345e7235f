"""The conditional Gaussian: what a window of a picture, series or table may hold, given what lies around it.

Every channel of a patch is one Gaussian, the same wherever in the input the patch lies; a table's row is a single
patch. A window at the border has a patch that is moved inside, so that it has as much around it as any other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.attribution.perturbation.uniform import uniform
from whybox.attribution.perturbation.windows import Windows
from whybox.core.errors import InputError
from whybox.core.task import Task

# A Gaussian is fitted to so many patches, as in the authors' code; to more where there are more samples.
PATCHES = 20_000
# Patches that are in memory at once while it is fitted.
AT_ONCE = 1_000
# Directions of less than this share of the largest variance are constant: nothing follows from them.
CONSTANT = 1e-10


def fit_patches(data: Tensor, patch: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Mean and covariance of the patches in each channel, and the range of the data.

    Args:
        data: (n, channels, *positions), or a table (n, columns).
        patch: the size of a patch along each axis of positions or columns.
        seed: of the places from which patches are taken.

    Returns:
        "mean" (channels, places), "covariance" (channels, places, places), "patch" (axes,), and "low" and "high" of
        each channel (channels, 1) or column (1, columns); a table counts as one channel. float64, on the CPU.
    """
    values = _by_channel(data.detach().cpu())
    count, mean = 0, torch.zeros((), dtype=torch.float64)
    scatter = torch.zeros((), dtype=torch.float64)
    for patches in _patches(values, data.shape[-len(patch) :], patch, seed):
        centre = patches.mean(0)
        spread, shift, new = patches - centre, centre - mean, len(patches)
        between = shift[..., :, None] * shift[..., None, :] * (count * new / (count + new))
        scatter = scatter + torch.einsum("ncp,ncq->cpq", spread, spread) + between
        mean = mean + shift * (new / (count + new))
        count += new
    if count < 2:
        raise InputError("a covariance needs at least two samples to be fitted to")
    axes = (0, 2) if data.ndim > 2 else (0,)
    low, high = values.amin(axes, keepdim=True)[0].double(), values.amax(axes, keepdim=True)[0].double()
    covariance = scatter / (count - 1)
    return {"mean": mean, "covariance": covariance, "patch": torch.tensor(patch), "low": low, "high": high}


def patch_sizes(windows: Windows, margin: int) -> tuple[int, ...]:
    """The patch of a window: so many places more on each side, as far as the input goes; a whole row of a table."""
    return tuple(
        cover.shape[1] if axis == 1 else min(int(cover.sum(1).max()) + 2 * margin, cover.shape[1])
        for cover, axis in zip(windows.covers[0], windows.axes[0], strict=True)
    )


class Conditional:
    """Draws what lies in a window from N(μ₁ + Σ₁₂Σ₂₂⁻¹(x₂ − μ₂), Σ₁₁ − Σ₁₂Σ₂₂⁻¹Σ₂₁), x₂ what lies around it.

    Draws are clipped to the range of the data. Each is a function of the seed, the sample and the draw's number.

    Args:
        task: what is explained.
        windows: its windows.
        patch: the size of the patches.
        state: what `fit_patches` has found.
    """

    def __init__(self, task: Task, windows: Windows, patch: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        x = task.inputs
        if task.at is not None or isinstance(x, tuple) or not x.is_floating_point():
            raise InputError(
                "fitted to the inputs of a model with a single one, numbers that are no tokens; explain these"
            )
        fitted = tuple(state["patch"].tolist())
        self._values = _by_channel(x).cpu().double()
        channels = self._values.shape[1]
        if patch != fitted or channels != len(state["mean"]):
            raise InputError(
                f"fitted to patches of {fitted} places and {len(state['mean'])} channels, but inputs of shape "
                f"{tuple(x.shape[1:])} have {patch} and {channels}; fit to data of the shape that is explained"
            )
        self._task, self._keys = task, torch.tensor(task.keys)
        self._low, self._high = (state[name].expand_as(self._values[0]) for name in ("low", "high"))
        sizes = x.shape[-len(patch) :]
        self._corner, shapes = _placed(windows, patch, sizes)
        kinds, self._kind = shapes.unique(dim=0, return_inverse=True)
        places = _places(patch, sizes)
        self._gaussians = [_Gaussian.of(inside, places, state) for inside in kinds]

    def hide(self, sample: Tensor, window: Tensor, number: Tensor) -> Tensor:
        """sample[j] with a draw in window[j] (k,), none where that is negative; number[j] is the draw's number."""
        x = self._task.inputs
        assert isinstance(x, Tensor)
        variants = x[sample.to(x.device)].contiguous()
        flat = _by_channel(variants)
        kind = self._kind[window].masked_fill(window < 0, -1)
        channel = torch.arange(flat.shape[1])[:, None]
        for k in kind[window >= 0].unique().tolist():
            rows = (kind == k).nonzero()[:, 0]
            gaussian, own = self._gaussians[k], sample[rows]
            corner = self._corner[window[rows]][:, None, None]
            inside, around = corner + gaussian.inside, corner + gaussian.around
            noise = uniform(self._keys[own], number[rows], channel.numel() * gaussian.inside.numel())
            drawn = gaussian.draw(self._values[own[:, None, None], channel, around], noise)
            drawn = drawn.clamp(self._low[channel, inside], self._high[channel, inside])
            index = (rows[:, None, None], channel, inside)
            flat[tuple(i.to(flat.device) for i in index)] = drawn.to(flat)
        return variants


@dataclass(frozen=True)
class _Gaussian:
    """What is the same for all windows that lie alike in their patches.

    Attributes:
        inside, around: the places of the window and of the rest of the patch, counted from the patch's corner.
        mean: (channels, inside); given: (channels, around) the means of either.
        slope: Σ₁₂Σ₂₂⁻¹ (channels, inside, around).
        root: the symmetric root of the conditional covariance (channels, inside, inside).
    """

    inside: Tensor
    around: Tensor
    mean: Tensor
    given: Tensor
    slope: Tensor
    root: Tensor

    @classmethod
    def of(cls, inside: Tensor, places: Tensor, state: Mapping[str, Tensor]) -> "_Gaussian":
        """From the places of the patch that are the window's (places,), booleans.

        Pseudo-inverse and symmetric root also serve a covariance that is singular: a column that is constant, or fewer
        samples than places.
        """
        mean, covariance = state["mean"], state["covariance"]
        own, cross = covariance[:, inside][:, :, inside], covariance[:, inside][:, :, ~inside]
        around = covariance[:, ~inside][:, :, ~inside]
        slope = cross @ torch.linalg.pinv(around, rtol=CONSTANT, hermitian=True)
        variance, directions = torch.linalg.eigh(own - slope @ cross.mT)
        root = directions * variance.clamp_min(0).sqrt()[:, None] @ directions.mT
        return cls(places[inside], places[~inside], mean[:, inside], mean[:, ~inside], slope, root)

    def draw(self, around: Tensor, noise: Tensor) -> Tensor:
        """One draw (k, channels, inside) for each, given what is around (k, channels, …) and uniform noise (k, …)."""
        normal = torch.special.ndtri(noise.clamp_min(2.0**-54)).view(len(noise), *self.mean.shape)
        mean = self.mean + torch.einsum("cij,kcj->kci", self.slope, around - self.given)
        return mean + torch.einsum("cij,kcj->kci", self.root, normal)


def _by_channel(x: Tensor) -> Tensor:
    """(n, channels, places); a table has one channel."""
    return x.reshape(len(x), x.shape[1] if x.ndim > 2 else 1, -1)


def _places(patch: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
    """The places of a patch at the first corner, counted over all positions, (places,)."""
    place = torch.zeros(1, dtype=torch.long)
    for width, size in zip(patch, sizes, strict=True):
        place = (place[:, None] * size + torch.arange(width)).flatten()
    return place


def _patches(values: Tensor, sizes: tuple[int, ...], patch: tuple[int, ...], seed: int) -> Iterator[Tensor]:
    """Patches (k, channels, places) at random places, as many of each sample; all there is of whole samples, once."""
    generator = torch.Generator().manual_seed(seed)
    n, channel = len(values), torch.arange(values.shape[1])[:, None]
    rounds = 1 if patch == tuple(sizes) else -(-PATCHES // n)
    places = _places(patch, sizes)
    for _ in range(rounds):
        corner = torch.zeros(n, dtype=torch.long)
        for width, size in zip(patch, sizes, strict=True):
            corner = corner * size + torch.randint(size - width + 1, (n,), generator=generator)
        for rows in torch.arange(n).split(AT_ONCE):
            yield values[rows[:, None, None], channel, (corner[rows][:, None] + places)[:, None]].double()


def _placed(windows: Windows, patch: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The corner (w,) of each window's patch, and which places of the patch (w, places) are the window's."""
    corner = torch.zeros(1, dtype=torch.long)
    inside = torch.ones(1, 1, dtype=torch.bool)
    for cover, width, size in zip(windows.covers[0], patch, sizes, strict=True):
        start = cover.int().argmax(1)
        first = (start - (width - int(cover.sum(1).max())) // 2).clamp(0, size - width)
        part = cover.gather(1, first[:, None] + torch.arange(width))
        corner = (corner[:, None] * size + first).flatten()
        inside = (inside[:, None, :, None] & part[None, :, None, :]).flatten(0, 1).flatten(1)
    return corner, inside
