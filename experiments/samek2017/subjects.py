"""What is perturbed: a model, pictures with their labels, and regions and infills that suit them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from experiments.common import data
from experiments.common.data import SEED, chosen
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import whybox
from whybox.core.reference import Black, Blur, Infill, UniformNoise
from whybox.models import ImagePreprocess


@dataclass(frozen=True)
class Subject:
    """Pictures and the model that is asked about them.

    Attributes:
        name: of the data.
        model: with a fixed chunk, so that the answers are the same bit for bit however often a run is interrupted.
        labels: the true class of each picture, (n,).
        inputs: reads pictures start … stop − 1.
        metric: regions and steps; its infill is set to each of `infills` in turn.
        infills: what regions are replaced by, by name.
    """

    name: str
    model: whybox.Model
    labels: Tensor
    inputs: Callable[[int, int], Tensor]
    metric: whybox.RegionPerturbation
    infills: dict[str, Infill]

    @cached_property
    def weights(self) -> str:
        """The digest of the model's weights."""
        return data.digest(self.model)

    def first(self, count: int) -> "Subject":
        """The same with the first so many of its pictures."""
        return replace(self, labels=self.labels[:count])


def imagenet(count: int, folder: Path) -> Subject:
    """SqueezeNet and photographs, one for each of so many classes; the paper's regions and steps."""
    model = data.squeezenet(chunk=4)
    inputs, labels = data.photographs(model, count)
    infills = {"uniform noise": UniformNoise(), "blur": Blur(10.0)}
    return Subject("ImageNet", model, labels, inputs, whybox.RegionPerturbation(9, 100, 20), infills)


def cifar10(count: int, folder: Path) -> Subject:
    """ResNet-56 and test pictures."""
    model = data.resnet(56, chunk=16)
    pictures, labels = data.cifar10(model, folder)
    return _small("CIFAR-10", model, pictures, labels, count)


def mnist(count: int, folder: Path) -> Subject:
    """A small CNN and test digits, black 0 and white 1."""
    return _mnist("MNIST", 0.0, 1.0, count, folder)


def mnist_signed(count: int, folder: Path) -> Subject:
    """The same net trained with black −1 and white 1."""
    return _mnist("MNIST from −1 to 1", 0.5, 0.5, count, folder)


def digits(count: int, folder: Path) -> Subject:
    """The embedded model and digits: needs no data, and takes seconds."""
    model = whybox.models.load("digits")
    model.chunk = 64
    pictures, labels = whybox.datasets.load("digits")
    subject = _small("digits", model, pictures, labels, count)
    return replace(subject, metric=whybox.RegionPerturbation(2, 8, 4))


SUBJECTS = {
    "imagenet": imagenet,
    "cifar10": cifar10,
    "mnist": mnist,
    "mnist_signed": mnist_signed,
    "digits": digits,
}


def _small(name: str, model: whybox.Model, pictures: Tensor, labels: Tensor, count: int) -> Subject:
    """Pictures in memory: regions of 4 × 4, of which up to twenty are replaced, the model asked after each."""
    rows = chosen(len(pictures), count)
    pictures = pictures[rows]
    infills = {"uniform noise": UniformNoise(), "blur": Blur(4.0)}
    if "MNIST" in name:
        infills["black"] = Black()
    metric = whybox.RegionPerturbation(4, 20, 20)
    return Subject(name, model, labels[rows], lambda start, stop: pictures[start:stop], metric, infills)


def _mnist(name: str, mean: float, std: float, count: int, folder: Path) -> Subject:
    preprocess = ImagePreprocess(mode="L", mean=(mean,), std=(std,))
    module = _mnist_net()
    model = whybox.Model(module, name="CNN", domain=preprocess.domain, preprocess=preprocess, chunk=64)
    weights = folder / f"mnist_{mean}_{std}.safetensors"
    if weights.is_file():
        module.load_state_dict(load_file(weights))
    else:
        digits, labels = whybox.datasets.load("MNIST", "train", data.data())
        _train(module, (digits - mean) / std, labels)
        save_file(module.state_dict(), weights.with_suffix(".part"))
        weights.with_suffix(".part").rename(weights)
    module.eval()
    digits, labels = whybox.datasets.load("MNIST", "test", data.data())
    return _small(name, model, (digits - mean) / std, labels, count)


def _mnist_net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )


def _train(net: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """One pass over the training digits."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(SEED))
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for batch in order.split(64):
        loss = F.cross_entropy(net(inputs[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
