"""Pictures of one shape each whose place is known, on textures and among blobs; and nets that tell the shapes apart."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 32
SHAPES = ("square", "circle", "triangle", "cross")


class Scenes(NamedTuple):
    """Pictures (n, 3, 32, 32) around 0, the class of the shape (n,), and its mask (n, 1, 32, 32)."""

    images: Tensor
    labels: Tensor
    truth: Tensor


def scenes(count: int, seed: int, clutter: float = 1.0) -> Scenes:
    """A shape of any colour at any place, before waves and noise of any strength, among three round blobs.

    Args:
        count: how many.
        seed: of all of it.
        clutter: by which everything but the shape is multiplied.
    """
    draw = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *sizes: int) -> Tensor:
        return low + (high - low) * torch.rand(*sizes, generator=draw)

    labels = torch.randint(len(SHAPES), (count,), generator=draw)
    radius = uniform(4.5, 7.0, count, 1, 1)
    centre = 8 + uniform(0, 1, count, 2, 1, 1) * (SIZE - 16)
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    truth = _inside(labels[:, None, None], (y - centre[:, 0]) / radius, (x - centre[:, 1]) / radius)[:, None]
    angle, length = uniform(0, 2 * torch.pi, count, 3, 1, 1), uniform(5, 16, count, 3, 1, 1)
    wave = torch.sin(2 * torch.pi / length * (x * angle.cos() + y * angle.sin()) + uniform(0, 6.3, count, 3, 1, 1))
    noise = torch.randn(count, 3, SIZE, SIZE, generator=draw)
    images = uniform(0, 0.4, count, 1, 1, 1) * wave + uniform(0, 0.3, count, 1, 1, 1) * noise
    for _ in range(3):
        place, width = uniform(0, SIZE, count, 2, 1, 1), uniform(1.5, 3, count, 1, 1)
        bump = torch.exp(-((y - place[:, 0]) ** 2 + (x - place[:, 1]) ** 2) / (2 * width**2))[:, None]
        images = images + bump * uniform(-1, 1, count, 3, 1, 1)
    images = clutter * images
    colour = uniform(0.6, 1.2, count, 3, 1, 1) * torch.where(uniform(0, 1, count, 3, 1, 1) < 0.5, -1, 1)
    return Scenes(torch.where(truth, colour + 0.3 * (images - colour), images), labels, truth)


def _inside(shape: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Where the shape is, in units of its radius."""
    square = torch.maximum(y.abs(), x.abs()) < 0.85
    circle = y**2 + x**2 < 1
    triangle = (y < 0.8) & (y > 2.1 * x.abs() - 1.0)
    cross = torch.minimum(y.abs(), x.abs()) < 0.3
    cross &= torch.maximum(y.abs(), x.abs()) < 1
    return torch.stack((square, circle, triangle, cross)).gather(0, shape.expand(1, *y.shape))[0]


def plain() -> nn.Sequential:
    """Three convolutions and a mean over all places."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(48, len(SHAPES)),
    )


class Residual(nn.Module):
    """Strides in place of pooling, normalised, with shortcuts, and a dense layer that sees every place."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(3)
        )
        self.shrink = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.head = nn.Linear(width * 16, len(SHAPES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = x + block(F.silu(x))
            x = self.shrink(x) if number < 2 else x
        return self.head(F.silu(x).flatten(1))


def trained(net: nn.Module, data: Scenes, epochs: int, rate: float, seed: int) -> nn.Module:
    """The net with new weights, trained by Adam with a rate that rises and falls to zero; in eval mode."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    net.train()
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(data.labels)).split(64)]
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=len(batches))
    for batch in batches:
        optimiser.zero_grad()
        F.cross_entropy(net(data.images[batch]), data.labels[batch]).backward()
        optimiser.step()
        schedule.step()
    return net.eval()
