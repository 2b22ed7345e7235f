"""The tables: two of scikit-learn, and one whose classes are decided by planted columns; nets that learn them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from experiments.common.data import SEED, chosen
from sklearn.datasets import load_breast_cancer, load_wine
from torch import Tensor, nn
from torch.nn import functional as F

import whybox
from whybox.contrast.latent import VAE, Latent, train

LATENT = VAE(size=6, steps=3000)
HIDDEN, EPOCHS, RATE = 32, 300, 1e-2
# The planted table: so many hidden causes, each seen by so many columns with so much noise; the first DECIDING of the
# causes decide which of three classes a row has.
ROWS, CAUSES, SEEN, NOISE, DECIDING = 600, 5, 4, 0.15, 2


@dataclass(frozen=True)
class Subject:
    """A classifier of rows, which are in standard deviations from the mean of the training rows.

    Attributes:
        name: in the tables.
        columns, classes: what they are called.
        model: the classifier.
        latent: of the training rows, learned without the classifier.
        training, test: rows (n, columns).
        accuracy: of the classifier on both, by the labels it was to learn.
        deciding: the columns that decide the class, where that is known.
    """

    name: str
    columns: list[str]
    classes: list[str]
    model: whybox.Model
    latent: Latent
    training: Tensor
    test: Tensor
    accuracy: dict[str, float]
    deciding: range | None = None


def subjects(folder: Path) -> list[Subject]:
    """All of them; latent models are kept in the folder."""
    cancer, wine = load_breast_cancer(), load_wine()
    x, y = planted()
    causes = [f"{cause + 1}{'abcd'[column]}" for cause in range(CAUSES) for column in range(SEEN)]
    deciding, three = range(DECIDING * SEEN), ["A", "B", "C"]
    mixed = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(SEED + 1))]
    return [
        _learned("breast cancer", *_read(cancer), list(cancer.feature_names), list(cancer.target_names), folder),
        _learned("wine", *_read(wine), list(wine.feature_names), ["first", "second", "third"], folder),
        _learned("planted", x, y, causes, three, folder, deciding),
        _learned("planted, shuffled labels", x, mixed, causes, three, folder, deciding),
    ]


def planted() -> tuple[Tensor, Tensor]:
    """Rows of columns ±tanh(cause) + noise, and their classes: which of three directions the first two causes take."""
    draws = torch.Generator().manual_seed(SEED)
    causes = torch.randn(ROWS, CAUSES, generator=draws)
    signs = torch.tensor([1.0, -1.0]).repeat(CAUSES * SEEN // 2)
    x = signs * causes.tanh().repeat_interleave(SEEN, 1)
    angles = 2 * torch.pi * torch.arange(3) / 3
    classes = (causes[:, :DECIDING] @ torch.stack((angles.cos(), angles.sin()))).argmax(1)
    return x + NOISE * torch.randn(x.shape, generator=draws), classes


def _read(bunch: dict[str, object]) -> tuple[Tensor, Tensor]:
    return torch.tensor(bunch["data"]).float(), torch.tensor(bunch["target"]).long()


def _learned(
    name: str,
    x: Tensor,
    labels: Tensor,
    columns: list[str],
    classes: list[str],
    folder: Path,
    deciding: range | None = None,
) -> Subject:
    """The classifier and the latent model of one half of the rows; the other half is asked about."""
    order = chosen(len(x), len(x))
    first, second = order[: len(x) // 2], order[len(x) // 2 :]
    std, mean = torch.std_mean(x[first], 0)
    x = (x - mean) / std
    training, test = x[first], x[second]
    net = _classifier(training, labels[first], len(classes))
    latent = train(training, LATENT, folder / f"{name.partition(',')[0].replace(' ', '-')}.latent", progress=False)
    with torch.no_grad():
        right = [(net(part).argmax(1) == labels[half]) for part, half in ((training, first), (test, second))]
    accuracy = {
        half: round(float(one.double().mean()), 4) for half, one in zip(("training", "test"), right, strict=True)
    }
    domain = whybox.Domain(tuple(training.amin(0).tolist()), tuple(training.amax(0).tolist()))
    model = whybox.Model(net, name=name, domain=domain, labels=classes, chunk=64)
    return Subject(name, columns, classes, model, latent, training, test, accuracy, deciding)


def _classifier(x: Tensor, labels: Tensor, classes: int) -> nn.Module:
    """One hidden layer, trained by Adam on all rows at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimiser.step()
    return net.eval()
