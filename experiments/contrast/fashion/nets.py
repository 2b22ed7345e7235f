"""The classifiers: a plain net in VGG's manner, a residual one in ResNet's, and that one with its shortcuts cut.

Each is trained from several seeds: a difference between two nets says nothing of architectures unless it is larger than
that between two seeds.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from experiments.common.data import data
from experiments.contrast.nets import CLASSES, train
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import whybox

HERE = Path(__file__).parent
MAPS, HIDDEN = (16, 32, 64), 64
EPOCHS, BATCH = 4, 128
SEEDS = (0, 1, 2)


class Block(nn.Module):
    """Two convolutions, with a way around them or without."""

    def __init__(self, before: int, after: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.first, self.second = _convolution(before, after, stride), _convolution(after, after)
        around = nn.Identity() if before == after else _convolution(before, after, stride, kernel=1)
        self.around = around if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, after, h / stride, w / stride)."""
        found = self.second(F.relu(self.first(x)))
        return F.relu(found if self.around is None else found + self.around(x))


def plain() -> nn.Module:
    """As VGG: two convolutions of 3 × 3 to a stage, max-pooling behind each, and two dense layers."""
    layers: list[nn.Module] = []
    before = 1
    for after in MAPS:
        layers += [_convolution(before, after), nn.ReLU(), _convolution(after, after), nn.ReLU(), nn.MaxPool2d(2)]
        before = after
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(9 * before, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def residual(shortcut: bool = True) -> nn.Module:
    """As ResNet: a convolution of stride 2, two blocks to a stage, the mean over all places, and one dense layer."""
    layers: list[nn.Module] = [_convolution(1, MAPS[0], 2), nn.ReLU()]
    before = MAPS[0]
    for after in MAPS:
        layers += [Block(before, after, 1 if before == after else 2, shortcut), Block(after, after, 1, shortcut)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def cut() -> nn.Module:
    """The residual net without its shortcuts."""
    return residual(shortcut=False)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {"plain": plain, "residual": residual, "cut": cut}


def classifier(architecture: str, seed: int) -> whybox.Model:
    """A net of this architecture, trained where its weights are not there. They are kept in half precision.

    Of the nets those of the first seed come with the project, to keep it small; the others take some minutes each.
    """
    path = HERE / f"{architecture}-{seed}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ARCHITECTURES[architecture]().to(memory_format=torch.channels_last)  # twice as fast on a CPU
    if not path.is_file():
        train(net, *garments("train"), EPOCHS, seed, BATCH)
        save_file({name: _half(value) for name, value in net.state_dict().items()}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    net.load_state_dict(load_file(path))
    return whybox.Model(net.eval(), name=f"{architecture} {seed}", domain=whybox.Domain((0.0,), (1.0,)), chunk=64)


def garments(split: str) -> tuple[Tensor, Tensor]:
    """Pictures (n, 1, 28, 28), black 0 and white 1, and their labels."""
    pictures, labels = whybox.datasets.load("FashionMNIST", split, data())
    assert isinstance(pictures, Tensor)
    assert labels is not None
    return pictures, labels


def _convolution(before: int, after: int, stride: int = 1, kernel: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after))


def _half(value: Tensor) -> Tensor:
    return value.half().contiguous() if value.is_floating_point() else value
