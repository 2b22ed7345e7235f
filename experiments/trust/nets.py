"""The nets, and how they are trained: the same weights from the same seed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dense(size: int = 28, channels: int = 1) -> nn.Sequential:
    """Three convolutions, then a dense layer that sees every position: (n, channels, size, size) → (n, 10)."""
    return nn.Sequential(*_convolutions(channels), nn.Flatten(), nn.Linear(64 * (size // 4) ** 2, 10))


def pooled(channels: int = 1) -> nn.Sequential:
    """Three convolutions, then a dense layer that sees the mean over the positions: (n, channels, h, w) → (n, 10)."""
    return nn.Sequential(*_convolutions(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _convolutions(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
    ]


def mlp() -> nn.Sequential:
    """Two hidden layers of 64: (n, 1, 8, 8) → (n, 10)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def trained(net: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, seed: int = 0) -> nn.Module:
    """The net with new weights, trained by Adam with a rate that rises and falls to zero; in eval mode."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.reset_parameters()
        batches = [batch for _ in range(epochs) for batch in torch.randperm(len(images)).split(64)]
        optimiser = torch.optim.Adam(net.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=len(batches))
        for batch in batches:
            optimiser.zero_grad()
            F.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def predicted(net: nn.Module, images: Tensor) -> Tensor:
    """The classes that the net predicts (n,)."""
    with torch.no_grad():
        return torch.cat([net(part).argmax(1) for part in images.split(256)])


def share(holds: Tensor) -> float:
    """How many of them are so."""
    return float(holds.double().mean())
