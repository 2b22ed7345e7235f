"""RISE: how the score depends on random masks."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.attribution.perturbation.partition import Partition, position_axes, relevance_dtype
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Regions
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each, like


@dataclass(frozen=True)
class RISE(Method):
    """Relevance R(p) = mean over random masks m of f(m ⊙ x + (1 − m) ⊙ x′) · m(p) / E m: the score while p is seen.

    An estimate of the mean score under masks that show p; x′ is the infill. Nothing is subtracted: a place that does
    not matter gets the mean score over all masks (in `details`), not 0. Size 1 on the channel axis, (n, 1, h, w) for
    pictures. A mask is a coarse grid of zeros and ones, upsampled linearly over the positions and shifted by chance;
    columns, tokens and regions are shown or hidden whole. All samples see the same masks.
    Cost: `samples` forward passes; memory does not grow with them. The paper takes 4,000 (VGG-16) to 8,000 (ResNet-50).
    Limits: noisy, with an error that falls as 1/√samples and grows with the mean score, so explain a probability
    rather than a score far from 0; as coarse as the grid.
    Source: Petsiuk, Das & Saenko 2018, arXiv 1806.07421.

    Args:
        samples: number of masks.
        cells: cells of the grid along each axis of positions.
        keep: the probability that a cell is shown.
        infill: what stands in for what is hidden.
        regions: show and hide these instead of the cells of a grid.
    """

    samples: int = 1000
    cells: int = 8
    keep: float = 0.5
    infill: Infill = field(default_factory=Zero)
    regions: Regions | None = None

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="dependence")

    def __post_init__(self) -> None:
        whole = isinstance(self.samples, int) and isinstance(self.cells, int)
        if not whole or self.samples < 1 or self.cells < 1 or not 0 < self.keep < 1:
            raise InputError(
                "RISE needs whole samples ≥ 1 and cells ≥ 1 and keeps with a probability between 0 and 1, not "
                f"{self.samples}, {self.cells}, {self.keep}"
            )

    def attribute(self, task: Task) -> Attribution:
        partition = None if self.regions is None else Partition.of(task, self.regions)
        engine = Engine(task, self.infill, partition)
        masks = _Masks(task, engine, self.cells, self.keep)

        def choose(_: Tensor, number: Tensor) -> Inputs:
            if partition is None:
                return masks.of(number)
            return engine.shared_uniform(number, partition.size) < self.keep

        sums: list[Tensor] = []
        mean = torch.zeros(task.size, dtype=torch.float64)
        for chunk in engine.scores(self.samples, choose):
            first, last = int(chunk.sample[0]), int(chunk.sample[-1]) + 1
            own = torch.arange(first, last)[:, None] == chunk.sample
            weight = chunk.score.where(own, 0.0) / self.samples
            mean[first:last] += weight.sum(1)
            shown = as_tuple(chunk.kept)
            sums = sums or [torch.zeros(task.size, *m.shape[1:], dtype=torch.float64) for m in shown]
            for sum, m in zip(sums, shown, strict=True):
                dtype = m.dtype if m.is_floating_point() else torch.get_default_dtype()
                part = weight.to(m.device, dtype) @ m.reshape(len(m), -1).to(dtype)
                sum[first:last] += part.view(-1, *m.shape[1:]).cpu() / self.keep
        if partition is None:
            maps: Inputs = each(
                lambda x, sum: sum.to(x.device, relevance_dtype(x)), task.inputs, like(task.inputs, tuple(sums))
            )
        else:
            maps = partition.spread(sums[0])
        return Attribution(maps, {"mean_score": mean})


@dataclass(frozen=True)
class _Masks:
    """The masks of all inputs, the same for every sample."""

    task: Task
    engine: Engine
    cells: int
    keep: float

    def of(self, number: Tensor) -> Inputs:
        """Masks number[j] for each input, (k, …)."""
        axes = position_axes(self.task)
        inputs = as_tuple(self.task.inputs)
        masks = (self._mask(number, i, x, along) for i, (x, along) in enumerate(zip(inputs, axes, strict=True)))
        return like(self.task.inputs, tuple(masks))

    def _mask(self, number: Tensor, salt: int, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        k, d = len(number), len(axes)
        if axes in ((), (1,)):
            shape = [x.shape[axis] if axis in axes else 1 for axis in range(1, x.ndim)]
            return (self.engine.shared_uniform(number, math.prod(shape), salt) < self.keep).view(k, *shape)
        drawn = self.engine.shared_uniform(number, self.cells**d + d, salt)
        exact = torch.promote_types(x.dtype, torch.float32)  # places cannot be counted in half precision
        grid = (drawn[:, :-d] < self.keep).to(x.device, exact).view(k, *(self.cells,) * d)
        for axis, shift in zip(axes, drawn[:, -d:].T.to(x.device, exact), strict=True):
            # The first axis of the grid goes, its places come last, so that all are in order again.
            grid = torch.einsum("kc...,kpc->k...p", grid, self._interpolation(x.shape[axis], shift))
        return grid[:, None]

    def _interpolation(self, places: int, shift: Tensor) -> Tensor:
        """The weights (k, places, cells) of linear upsampling, by a shift (k,) in [0, 1) of one cell's width.

        The grid is stretched over one cell more than the input has, and cut out at a whole number of places.
        """
        width = -(-places // self.cells)
        place = torch.arange(places).to(shift) + (shift * width).floor()[:, None]
        at = (place + 0.5) * self.cells / ((self.cells + 1) * width) - 0.5
        cell = torch.arange(self.cells).to(shift)
        return (1 - (at.clamp(0, self.cells - 1)[:, :, None] - cell).abs()).clamp_min(0)
