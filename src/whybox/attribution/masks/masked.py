"""Masked: the inputs of a task under masks, and what becomes of the target's score there."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from whybox.attribution.masks.prediction import MeanLogProbability
from whybox.attribution.perturbation.partition import position_axes
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.errors import InputError
from whybox.core.reference import Infill
from whybox.core.target import Target
from whybox.core.task import Task
from whybox.core.tree import Inputs


@dataclass(frozen=True)
class Places:
    """Where masks lie: over the positions, tokens or columns of one input (n, …).

    Attributes:
        x: the input.
        axes: those with places.
        outside: whether it is the model's own input, and not a layer's output.
    """

    x: Tensor
    axes: tuple[int, ...]
    outside: bool

    @classmethod
    def of(cls, task: Task) -> "Places":
        """Those of the task's input: one of numbers."""
        if isinstance(task.inputs, tuple):
            raise InputError("a mask belongs to one input; put the model into a module that sets the others")
        if not task.inputs.is_floating_point():
            raise InputError(
                f"{task.inputs.dtype} can be hidden, but not faded; explain the embedding layer with at='…'"
            )
        return cls(task.inputs, position_axes(task)[0], task.at is None)

    @property
    def positions(self) -> bool:
        """Whether they are near to each other or far; tokens and columns are not."""
        return bool(self.axes) and self.axes[0] > 1

    @property
    def pictures(self) -> bool:
        """Whether it is the model's own input and has black in it: pictures or videos."""
        return self.outside and self.x.ndim > 3

    @property
    def grid(self) -> tuple[int, ...]:
        """How many there are along each axis."""
        return tuple(self.x.shape[axis] for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a mask, without the batch axis: the input's, size 1 on axes without places."""
        return tuple(self.x.shape[axis] if axis in self.axes else 1 for axis in range(1, self.x.ndim))

    @property
    def dtype(self) -> torch.dtype:
        """In which masks are searched: in half precision small steps would be lost."""
        return torch.promote_types(self.x.dtype, torch.float32)


@dataclass(frozen=True)
class Masked:
    """The inputs of a task, of which masks keep a part: x̄ = m x + (1 − m) infill.

    Args:
        task: what is explained.
        places: where masks lie.
        infill: what stands where a mask is 0.
        jitter: to so many neighbouring places, along each axis of positions, the picture may be moved under the mask.
    """

    task: Task
    places: Places
    infill: Infill
    jitter: int = 0

    @cached_property
    def filled(self) -> Tensor:
        """The inputs replaced whole."""
        filled = self.task.everything().fill(self.infill)
        assert isinstance(filled, Tensor)
        return filled

    def __call__(self, masks: Tensor, sample: Tensor, step: int | None = None) -> Tensor:
        """The inputs of these samples under masks (k, …); with jitter moved by what is drawn for this step."""
        x = self.places.x
        here = sample.to(x.device)
        originals, fillings = x[here], self.filled[here]
        if self.jitter > 1 and step is not None and self.places.positions:
            offsets = self.offsets(sample, step)
            originals, fillings = self._moved(originals, offsets), self._moved(fillings, offsets)
        return torch.lerp(fillings, originals, masks.view(-1, *self.places.shape).to(x.dtype))

    def offsets(self, sample: Tensor, step: int) -> Tensor:
        """By how many places each sample is moved along each axis, (k, axes): from −jitter/2 to jitter/2 − 1."""
        keys = torch.tensor(self.task.keys)[sample]
        drawn = uniform(keys, torch.full_like(keys, step), len(self.places.axes))
        return (drawn * self.jitter).floor().long() - self.jitter // 2

    def _moved(self, x: Tensor, offsets: Tensor) -> Tensor:
        """Each row moved by its offsets; what comes in from beyond the border is the border's value again."""
        for axis, offset in zip(self.places.axes, offsets.T, strict=True):
            edge = x.shape[axis]
            place = (torch.arange(edge) - offset[:, None]).clamp(0, edge - 1).to(x.device)
            x = x.take_along_dim(place.view(len(x), *(edge if a == axis else 1 for a in range(1, x.ndim))), axis)
        return x

    def score(self, target: Target, masks: Tensor, sample: Tensor, step: int | None = None) -> Tensor:
        """The target's score of these samples under masks (k,), as part of the autograd graph; a step of `task.map`."""
        return replace(self.task, target=target).forward(self(masks, sample, step), sample)

    def outcome(self, target: Target, masks: Tensor) -> tuple[Tensor, Tensor | None]:
        """The target's score under the mask of each sample, float64 (n,), and whether its class is lost there.

        The latter is None where the target is no class. Cost: a forward pass for each.
        """

        def ask(masks: Inputs, sample: Tensor) -> tuple[Tensor, ...]:
            assert isinstance(masks, Tensor)
            here = target.rows(sample)
            with torch.no_grad():
                if not isinstance(here, MeanLogProbability):
                    return (self.score(target, masks, sample),)
                output = self.task.output(self(masks, sample), sample)
                return here.score(output), here.lost(output)

        score, *lost = self.task.map(ask, masks, gradient=False)
        return score.cpu().double(), lost[0].cpu() if lost else None
