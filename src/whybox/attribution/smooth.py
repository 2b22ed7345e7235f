"""Methods that wrap another and take statistics of its relevance over noisy copies of the input."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.attribution.gradient import Gradient
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Block, Task
from whybox.core.tree import Inputs, as_tuple, each, like


@dataclass(frozen=True)
class _OverNoise(Method):
    """What methods have in common that take statistics of another one's maps over noisy copies of the input."""

    of: Method = field(default_factory=Gradient)
    samples: int = 32
    noise: float = 0.15

    def __post_init__(self) -> None:
        if not isinstance(self.of, Method):
            raise InputError(
                f"`of` is the method to average, such as Gradient() or {{'name': 'gradient'}}, not {self.of!r}"
            )
        if not isinstance(self.samples, int) or self.samples < 1 or not self.noise >= 0:
            raise InputError(f"averaging needs whole samples ≥ 1 and noise ≥ 0, not {self.samples}, {self.noise}")

    def needs(self) -> str:
        return self.of.needs()

    def _moments(self, task: Task) -> tuple[Inputs, Inputs]:
        """Mean and variance of the relevance over the noisy copies, as running sums.

        The sums are taken of the difference from each sample's first map: the variance of values that hardly differ
        would otherwise be lost to cancellation.
        """
        if not all(x.is_floating_point() for x in as_tuple(task.inputs)):
            raise InputError("noise cannot be added to integers; convert them with .float(), or explain at='…' a layer")
        sums: list[_Sums] = []
        for block in task.blocks(self.samples):
            relevance = self._explain(task, block)
            sums = sums or [_Sums(r.new_zeros((task.size, *r.shape[1:]))) for r in as_tuple(relevance)]
            for part, r in zip(sums, as_tuple(relevance), strict=True):
                part.add(r, block)
        mean = tuple(part.first + part.total / self.samples for part in sums)
        variance = tuple(part.squares / self.samples - (part.total / self.samples) ** 2 for part in sums)
        return like(task.inputs, mean), like(task.inputs, tuple(v.clamp_min(0) for v in variance))

    def _explain(self, task: Task, block: Block) -> Inputs:
        originals = block.inputs
        noisy = each(lambda x, n: x + self.noise * _range(x) * n, originals, block.normal())
        answer = self.of.attribute(task.on(noisy, block))
        return answer.relevance if isinstance(answer, Attribution) else answer


@dataclass(frozen=True)
class SmoothGrad(_OverNoise):
    """Relevance R = mean over k of A(x + n_k), n_k ~ N(0, (noise · (max x − min x))²): another method's map, smoothed.

    A is `of`, explained for the class of the original input; with zero noise R = A(x). The shape is that of A's map.
    Cost: `samples` times the cost of `of`; memory does not grow with `samples`.
    Limits: explains a neighbourhood, not the point; the noise level decides how large, and is a choice.
    Source: Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, arXiv 1706.03825.

    Args:
        of: the method that is averaged.
        samples: number of noisy copies.
        noise: standard deviation of the noise, as a share of each sample's own range of values.
    """

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Inputs:
        return self._moments(task)[0]


@dataclass(frozen=True)
class VarGrad(_OverNoise):
    """Relevance R = variance over k of A(x + n_k): where another method's map changes most under noise.

    Non-negative; the variance divides by `samples`; zero with zero noise. The shape is that of A's map.
    Cost: `samples` times the cost of `of`; memory does not grow with `samples`.
    Limits: independent of the map's own value, so it shows instability rather than evidence.
    Source: Adebayo, Gilmer, Goodfellow & Kim 2018, arXiv 1810.03307; Hooker et al. 2019, arXiv 1806.10758.

    Args:
        of: the method whose variance is taken.
        samples: number of noisy copies.
        noise: standard deviation of the noise, as a share of each sample's own range of values.
    """

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Inputs:
        return self._moments(task)[1]


@dataclass(frozen=True)
class SmoothGradSquared(_OverNoise):
    """Relevance R = mean over k of A(x + n_k)²: as SmoothGrad, but signs cannot cancel.

    Non-negative; equal to the variance plus the squared mean. The shape is that of A's map.
    Cost: `samples` times the cost of `of`; memory does not grow with `samples`.
    Limits: does not tell for from against; dominated by a few large values.
    Source: Hooker, Erhan, Kindermans & Kim 2019, arXiv 1806.10758.

    Args:
        of: the method whose squares are averaged.
        samples: number of noisy copies.
        noise: standard deviation of the noise, as a share of each sample's own range of values.
    """

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Inputs:
        mean, variance = self._moments(task)
        return each(lambda m, v: v + m * m, mean, variance)


def _range(x: Tensor) -> Tensor:
    """Largest minus smallest value of each sample, broadcastable to x."""
    flat = x.reshape(len(x), -1)
    return (flat.amax(1) - flat.amin(1)).view(-1, *(1,) * (x.ndim - 1))


class _Sums:
    """Running sums over the draws of every sample, taken from the sample's first draw."""

    def __init__(self, zeros: Tensor) -> None:
        self.first = zeros
        self.total = torch.zeros_like(zeros)
        self.squares = torch.zeros_like(zeros)

    def add(self, relevance: Tensor, block: Block) -> None:
        sample = block.sample.to(relevance.device)
        is_first = (block.draw == 0).to(relevance.device)
        self.first[sample[is_first]] = relevance[is_first]
        difference = relevance - self.first[sample]
        self.total.index_add_(0, sample, difference)
        self.squares.index_add_(0, sample, difference * difference)
