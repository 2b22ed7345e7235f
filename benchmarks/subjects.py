"""What is explained: SqueezeNet on ImageNet photographs and ResNet-20 on CIFAR-10, from the folder WHYBOX_DATA."""

import io
import os
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.measure import ROOT
from whybox import Model, models


@dataclass(frozen=True)
class Subject:
    """A model and how to read the i-th of its hundred fixed images."""

    name: str
    model: Model
    read: Callable[[int], Image.Image]

    @property
    def module(self) -> nn.Module:
        """The bare module."""
        return self.model.module

    def images(self, *numbers: int) -> Tensor:
        """These of the hundred images, preprocessed."""
        assert self.model.preprocess is not None
        return torch.stack([self.model.preprocess(self.read(number)) for number in numbers])

    def fresh(self, chunk: int | None = None) -> Model:
        """The model as if it had never been asked anything: no chunk size is known."""
        return Model(self.module, domain=self.model.domain, chunk=chunk)


def data() -> Path:
    """The folder that WHYBOX_DATA names; without it there is nothing to measure on."""
    folder = os.environ.get("WHYBOX_DATA")
    if not folder or not (Path(folder) / "models").is_dir():
        sys.exit(
            "the benchmarks need real data: set WHYBOX_DATA to the folder with models/, imagenet/ and "
            "cifar10/test.tar.gz"
        )
    return Path(folder)


def squeezenet() -> Subject:
    """SqueezeNet 1.0 at 227 × 227; every fifth of the 500 ImageNet photographs."""
    model = models.load("torchvision:squeezenet1_0", weights=data() / "models/squeezenet1_0_imagenet.safetensors")
    model.preprocess = replace(model.preprocess, crop=(227, 227))  # type: ignore[type-var]
    files = sorted((data() / "imagenet").glob("*.jpg"))[::5]
    return Subject("SqueezeNet", model, lambda number: Image.open(files[number]).convert("RGB"))


def resnet20() -> Subject:
    """ResNet-20 at 32 × 32; every fiftieth of the 5,000 CIFAR-10 test images, ten of each class."""
    model = models.load(
        f"{ROOT / 'tests/models/resnet20_cifar10.py'}:resnet20",
        weights=data() / "models/resnet20_cifar10.safetensors",
    )
    with tarfile.open(data() / "cifar10/test.tar.gz") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))[::50]
        content = [file.read() for file in map(archive.extractfile, names) if file]
    return Subject("ResNet-20", model, lambda number: Image.open(io.BytesIO(content[number])))


SUBJECTS = {"SqueezeNet": squeezenet, "ResNet-20": resnet20}
