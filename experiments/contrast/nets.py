"""The nets of the measurement: the paper's classifier, an independent one, and autoencoders of each class."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from experiments.common.data import SEED, data
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import whybox

HERE = Path(__file__).parent
CLASSES = 10
BATCH, RATE = 64, 2e-3


class Classifier(nn.Module):
    """The paper's: digits are resized to 64 × 64 inside, so that it takes them as they are, 28 × 28."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.hidden, self.last = nn.Linear(3380, 50), nn.Linear(50, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 10) of digits (n, 1, h, w)."""
        x = F.interpolate(x, (64, 64), mode="bilinear", align_corners=False)
        x = F.relu(F.max_pool2d(self.first(x), 2))
        x = F.relu(F.max_pool2d(self.second(x), 2))
        return self.last(F.relu(self.hidden(x.flatten(1))))


def judge_net() -> nn.Module:
    """Another net, trained by itself: what it says of a contrast is no echo of the classifier."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, CLASSES)),
    )


def autoencoder() -> nn.Module:
    """Through 16 numbers."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 16)),
        *(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))),
    )


def classifier() -> whybox.Model:
    """The paper's classifier of MNIST, trained where its weights are not there."""
    return classifier_of(HERE / "mnist-classifier.safetensors", 4, lambda: mnist("train"))


def classifier_of(path: Path, epochs: int, data: Callable[[], tuple[Tensor, Tensor]]) -> whybox.Model:
    """The paper's classifier of other data, trained where there is no such file."""
    module = _known(path, Classifier, epochs, data=data)
    return whybox.Model(module, name="the paper's classifier", domain=whybox.Domain((0.0,), (1.0,)), chunk=64)


def judge() -> nn.Module:
    """The independent classifier."""
    return _known(HERE / "mnist-judge.safetensors", judge_net, epochs=2, seed=1)


def autoencoders(folder: Path) -> list[nn.Module]:
    """One for each class, and one for all of them, which is the last."""
    return [
        *(
            _known(folder / f"autoencoder-{digit}.safetensors", autoencoder, 15, digit, partial(_only, digit))
            for digit in range(CLASSES)
        ),
        _known(folder / "autoencoder-all.safetensors", autoencoder, 3, CLASSES),
    ]


def mnist(split: str) -> tuple[Tensor, Tensor]:
    """Digits (n, 1, 28, 28), black 0 and white 1, and their labels."""
    digits, labels = whybox.datasets.load("MNIST", split, data())
    assert isinstance(digits, Tensor)
    assert labels is not None
    return digits, labels


def accuracy(net: nn.Module, digits: Tensor, labels: Tensor) -> float:
    """The share that it gets right."""
    with torch.no_grad():
        right = [net(x).argmax(1) == y for x, y in zip(digits.split(250), labels.split(250), strict=True)]
    return torch.cat(right).double().mean().item()


def _only(digit: int) -> tuple[Tensor, Tensor]:
    digits, labels = mnist("train")
    return digits[labels == digit], labels[labels == digit]


def _known(
    path: Path,
    build: Callable[[], nn.Module],
    epochs: int,
    seed: int = SEED,
    data: Callable[[], tuple[Tensor, Tensor]] = lambda: mnist("train"),
) -> nn.Module:
    """A net whose weights are in this file; trained on these data, MNIST's by default, where there is none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build()
    if path.is_file():
        net.load_state_dict(load_file(path))
    else:
        _train(net, *data(), epochs, seed)
        save_file(net.state_dict(), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return net.eval()


def _train(net: nn.Module, digits: Tensor, labels: Tensor, epochs: int, seed: int) -> None:
    """Adam, its rate falling to zero; the labels are learned, or the digits themselves where they are drawn."""
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(digits) // BATCH))
    for _ in range(epochs):
        for batch in torch.randperm(len(digits), generator=order).split(BATCH):
            found = net(digits[batch])
            drawn = found.shape == digits[batch].shape
            loss = F.mse_loss(found, digits[batch]) if drawn else F.cross_entropy(found, labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
