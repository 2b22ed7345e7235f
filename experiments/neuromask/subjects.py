"""What is explained: a net, pictures, and other nets that judge what a mask leaves of them."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from experiments.common import data
from torch import Tensor, nn

import whybox


@dataclass(frozen=True)
class Subject:
    """Pictures and the model that is asked about them.

    Attributes:
        name: of the data.
        model: with a fixed chunk, so that the answers are the same bit for bit however often a run is interrupted.
        labels: the true class of each picture, (n,).
        inputs: reads pictures start … stop − 1.
        judges: other models of the same classes, by name, that see what the masks leave.
        block: how many pictures are measured together.
        some, few: how many of the first pictures have further searches, and how many the reference's.
        blur: the width of the second infill, in pixels.
    """

    name: str
    model: whybox.Model
    labels: Tensor
    inputs: Callable[[int, int], Tensor]
    judges: dict[str, whybox.Model]
    block: int
    some: int
    few: int
    blur: float

    @cached_property
    def weights(self) -> str:
        """The digest of the weights of the model and its judges."""
        return " ".join(map(data.digest, (self.model, *self.judges.values())))

    @property
    def count(self) -> int:
        """The number of pictures."""
        return len(self.labels)


class Mirrored(nn.Module):
    """What a net says of the picture mirrored, left for right."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.module(x.flip(-1))
        return scores


def mirrored(model: whybox.Model) -> whybox.Model:
    """The same model, seeing everything mirrored."""
    return _with(model, module=Mirrored(model.module))


def in_chunks(model: whybox.Model, chunk: int) -> whybox.Model:
    """The same model, asked in chunks of another size."""
    return _with(model, chunk=chunk)


def _with(model: whybox.Model, **changed: object) -> whybox.Model:
    """A copy of a model with attributes of its own."""
    other = copy(model)
    other._chunk_sizes = {}
    for name, value in changed.items():
        setattr(other, name, value)
    return other


def cifar10(count: int, folder: Path) -> Subject:
    """ResNet-20 and test pictures; ResNet-56, trained on the same pictures, is the judge."""
    model = data.resnet(20, chunk=20)
    pictures, labels = data.cifar10(model, folder)
    rows = data.chosen(len(pictures), count)
    pictures = pictures[rows]
    judges = {"ResNet-56": data.resnet(56, chunk=20), "mirrored": mirrored(model)}
    return _subject("CIFAR-10", model, pictures, labels[rows], judges, block=20, some=100, few=20)


def imagenet(count: int, folder: Path) -> Subject:
    """SqueezeNet and photographs."""
    model = data.squeezenet(chunk=3)
    inputs, labels = data.photographs(model, count)
    return Subject("ImageNet", model, labels, inputs, {"mirrored": mirrored(model)}, 3, 6, 3, blur=10.0)


def digits(count: int, folder: Path) -> Subject:
    """The embedded model and digits: needs no data, and takes seconds."""
    model = whybox.models.load("digits")
    model.chunk = 8
    pictures, labels = whybox.datasets.load("digits")
    rows = torch.as_tensor(data.chosen(len(pictures), count))
    judges = {"mirrored": mirrored(model)}
    return _subject("digits", model, pictures[rows], labels[rows], judges, block=4, some=4, few=4)


SUBJECTS = {"cifar10": cifar10, "imagenet": imagenet, "digits": digits}


def _subject(
    name: str,
    model: whybox.Model,
    pictures: Tensor,
    labels: Tensor,
    judges: dict[str, whybox.Model],
    *,
    block: int,
    some: int,
    few: int,
) -> Subject:
    """Pictures in memory."""
    return Subject(name, model, labels, lambda a, b: pictures[a:b], judges, block, some, few, pictures.shape[-1] / 8)
