"""Pictures and the nets that are asked about them, from the folder that WHYBOX_DATA names."""

import hashlib
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import whybox

ROOT = Path(__file__).parents[2]
SEED = 0


def data() -> Path:
    """The folder of real data."""
    if not os.environ.get("WHYBOX_DATA"):
        raise SystemExit("set WHYBOX_DATA to the folder that holds the data and the weights, or give --data digits")
    return Path(os.environ["WHYBOX_DATA"])


def chosen(available: int, count: int) -> list[int]:
    """So many of the pictures in random order, all if there are fewer: any beginning of it is spread over them."""
    return torch.randperm(available, generator=torch.Generator().manual_seed(SEED))[:count].tolist()


def squeezenet(chunk: int) -> whybox.Model:
    """SqueezeNet 1.0, for crops of 227 × 227."""
    model = whybox.models.load(
        "torchvision:squeezenet1_0", weights=data() / "models/squeezenet1_0_imagenet.safetensors"
    )
    model.preprocess = replace(model.preprocess, crop=(227, 227))
    model.module.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    model.chunk = chunk
    return model


def photographs(model: whybox.Model, count: int) -> tuple[Callable[[int, int], Tensor], Tensor]:
    """What reads photographs start … stop − 1, one for each of so many classes; and their labels."""
    files = sorted((data() / "imagenet").glob("*.jpg"))
    files = [files[i] for i in chosen(len(files), count)]
    preprocess = model.preprocess
    assert preprocess is not None

    def inputs(start: int, stop: int) -> Tensor:
        return torch.stack([preprocess(Image.open(file).convert("RGB")) for file in files[start:stop]])

    return inputs, torch.tensor([int(file.name[:4]) for file in files])


def resnet(depth: int, chunk: int) -> whybox.Model:
    """The ResNet of this depth, 20 or 56, for CIFAR-10."""
    model = whybox.models.load(
        f"{ROOT / 'tests/models/resnet20_cifar10.py'}:resnet{depth}",
        weights=data() / f"models/resnet{depth}_cifar10.safetensors",
    )
    model.chunk = chunk
    return model


def cifar10(model: whybox.Model, folder: Path) -> tuple[Tensor, Tensor]:
    """CIFAR-10's test pictures and their labels; `folder` is where they are unpacked if they are not yet."""
    root = data()
    if not (root / "cifar10/test").is_dir():
        root = folder
        if not (root / "cifar10/test").is_dir():
            with tarfile.open(data() / "cifar10/test.tar.gz") as archive:
                archive.extractall(root / "cifar10/unpacking", filter="data")
            (root / "cifar10/unpacking/test").rename(root / "cifar10/test")
    return whybox.datasets.load("CIFAR10", root=root, preprocess=model.preprocess)


def digest(model: whybox.Model) -> str:
    """The digest of the model's weights."""
    found = hashlib.sha256()
    for name, value in model.module.state_dict().items():
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
