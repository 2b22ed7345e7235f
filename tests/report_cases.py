"""What the tests of the report share: a small model, methods that misbehave, ways to read a page."""

import base64
import io
import re
from dataclasses import dataclass
from html import unescape
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from whybox import Method, Model, Taxonomy
from whybox.core.errors import ModelError
from whybox.core.task import Task
from whybox.models import ImagePreprocess

EVIL = "<script>alert(1)</script>'\"\u2028&amp;"
QUICK = ["gradient", "input_x_gradient", "sensitivity_analysis"]


@dataclass(frozen=True)
class Refusing(Method):
    """Relevance of nothing.

    Limits: always fails.
    """

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Tensor:
        raise ModelError(f"this model has no {EVIL}; take another method")


@dataclass(frozen=True)
class Constant(Method):
    """The same everywhere."""

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="closed-form")

    def attribute(self, task: Task) -> Tensor:
        return torch.ones_like(task.inputs)  # type: ignore[arg-type]


def net(classes: int = 7, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


def model(classes: int = 7, **options: Any) -> Model:
    options.setdefault("labels", [f"thing {i}" for i in range(classes)])
    options.setdefault("preprocess", ImagePreprocess(resize=(16, 16), mean=(0.5,), std=(0.25,)))
    return Model(net(classes), name=options.pop("name", "small net"), domain=options["preprocess"].domain, **options)


def pictures(n: int = 2, size: int = 16) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 4 - 2


def pictures_in(page: str) -> list[Image.Image]:
    found = re.findall(r'<img[^>]* src="data:image/webp;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def text_of(page: str) -> str:
    body = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    return plain(re.sub(r" (?=[,.;)])", "", unescape(re.sub(r"<[^>]+>", " ", body))))


def plain(text: str) -> str:
    return " ".join(text.split())
