"""Models of which it is known where their evidence lies: a square in the middle of small pictures; a colour."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whybox import Domain, Method, Model, Taxonomy
from whybox.core.task import Task

SIZE, SQUARE = 12, slice(3, 7)


@dataclass(frozen=True)
class Planted:
    """A model, pictures of class 1, and the truth.

    Attributes:
        model: log-odds of class 1 = Σ w·x − b with w > 0 inside the square and 0 elsewhere.
        inputs, target: pictures in [0, 1], (n, 2, 12, 12), bright in the square, and their class.
        perfect: w·x, the exact contribution of every value.
        truth: the square, boolean (n, 1, 12, 12).
    """

    model: Model
    inputs: Tensor
    target: Tensor
    perfect: Tensor
    truth: Tensor


def planted(count: int = 4, chunk: int | None = None) -> Planted:
    """The model with so many pictures."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(count, 2, SIZE, SIZE, generator=generator, dtype=torch.float64)
    inputs[:, :, SQUARE, SQUARE] = 0.6 + 0.4 * inputs[:, :, SQUARE, SQUARE]
    weight = torch.zeros(2, SIZE, SIZE, dtype=torch.float64)
    weight[:, SQUARE, SQUARE] = 0.2 + torch.rand(2, 4, 4, generator=generator, dtype=torch.float64)
    linear = nn.Linear(weight.numel(), 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.stack((torch.zeros_like(weight), weight)).flatten(1))
        linear.bias.copy_(torch.tensor([0.0, -0.5 * float(weight.sum())]))
    truth = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.bool)
    truth[:, :, SQUARE, SQUARE] = True
    domain = Domain((0.0,), (1.0,))
    model = Model(nn.Sequential(nn.Flatten(), linear), domain=domain, chunk=chunk)
    return Planted(model, inputs, torch.ones(count, dtype=torch.long), inputs * weight, truth)


def colours(count: int = 4, chunk: int | None = None) -> Planted:
    """A model that says which of four colours a picture has, wherever it has it, and so many pictures in turn."""
    generator = torch.Generator().manual_seed(1)
    target = torch.arange(count) % 4
    inputs = 0.1 * torch.rand(count, 4, SIZE, SIZE, generator=generator, dtype=torch.float64)
    inputs[torch.arange(count), target] += 0.9
    weight = (torch.eye(4, dtype=torch.float64) - 0.25).view(4, 4, 1, 1).expand(4, 4, SIZE, SIZE) / 6
    linear = nn.Linear(4 * SIZE * SIZE, 4, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(weight.flatten(1))
    model = Model(nn.Sequential(nn.Flatten(), linear), domain=Domain((0.0,), (1.0,)), chunk=chunk)
    everywhere = torch.ones(count, 1, SIZE, SIZE, dtype=torch.bool)
    return Planted(model, inputs, target, inputs * weight[target], everywhere)


@dataclass(frozen=True)
class Known(Method):
    """The exact contribution of every value: input times weight."""

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="closed-form")

    def attribute(self, task: Task) -> Tensor:
        weight = task.model.module[1].weight[getattr(task.target, "index", 1)].detach()
        return task.inputs * weight.view(-1, *task.inputs.shape[1:])
