"""The question that whybox and Quantus are both asked, and Quantus' side of it.

Quantus explains again by a plain loop in PyTorch, so that nothing of whybox costs it anything.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from whybox.models.torchvision_models import import_torchvision

import_torchvision()  # first, so that it gets along with this build of torch

import quantus  # noqa: E402

# Regions of 2 × 2 pixels, the first hundred, one more at each level; pixels, eight more at each of 128 levels; patches
# of 4 × 4 pixels.
SIZE, REGIONS, PIXELS, PATCH = 2, 100, 8, 4
DRAWS, RADIUS, LAYER = 20, 0.02, "layer3.2"

Ask = Callable[[], Any]
PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


@dataclass(frozen=True)
class Question:
    """Images, their classes, input × gradient of them, and where the evidence is said to lie."""

    module: nn.Module
    x: Tensor
    y: Tensor

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient of each class's score (n, c, h, w)."""
        return torch.as_tensor(gradient(self.module, self.x.numpy(), self.y.numpy()))

    @cached_property
    def relevance(self) -> Tensor:
        """Input × gradient (n, c, h, w)."""
        return self.x * self.gradient

    @cached_property
    def truth(self) -> Tensor:
        """The square in the middle, boolean (n, 1, h, w): these images come without masks, and it costs the same."""
        mask = torch.zeros_like(self.x[:, :1], dtype=torch.bool)
        edge = mask.shape[-1] // 4
        mask[..., edge:-edge, edge:-edge] = True
        return mask


def gradient(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> numpy.ndarray:
    """The gradient of each class's score, as Quantus wants it."""
    x = torch.as_tensor(inputs, dtype=torch.float32).requires_grad_()
    score = model(x).gather(1, torch.as_tensor(targets).long()[:, None])
    return torch.autograd.grad(score.sum(), x)[0].numpy()


def input_x_gradient(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> numpy.ndarray:
    """Input × gradient, as Quantus wants it."""
    found: numpy.ndarray = numpy.asarray(inputs, dtype=numpy.float32) * gradient(model, inputs, targets)
    return found


def by_place(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> numpy.ndarray:
    """The same, one number for each pixel."""
    return input_x_gradient(model, inputs, targets).sum(1, keepdims=True)


def moved(arr: numpy.ndarray, **_: Any) -> numpy.ndarray:
    """A neighbour of each image, uniform in a cube."""
    near: numpy.ndarray = arr + numpy.random.default_rng().uniform(-RADIUS, RADIUS, arr.shape).astype(arr.dtype)
    return near


def asked(question: Question, batch: int, changed: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Ask]:
    """Quantus' metrics at the levels and draws above, by whybox's names; `changed` are other options of some."""
    whole, places = question.relevance, question.relevance.sum(1, keepdim=True)
    zero: dict[str, Any] = {"perturb_baseline": 0.0}
    near = {"nr_samples": DRAWS, "perturb_func": moved}
    again = {"explain_func": input_x_gradient, "softmax": False}
    truth = {"s_batch": question.truth.numpy()}
    layer = {"layer_names": [LAYER]}
    # The metric's name there, the map, options of the metric and of its call.
    metrics: dict[str, tuple[str, Tensor, dict[str, Any], dict[str, Any]]] = {
        "RegionPerturbation": (
            "RegionPerturbation", places, {"patch_size": SIZE, "regions_evaluation": REGIONS, **zero}, {}
        ),
        "Deletion": ("PixelFlipping", places, {"features_in_step": PIXELS * question.x.shape[1], **zero}, {}),
        "Infidelity": (
            "Infidelity", question.gradient, {"perturb_patch_sizes": [PATCH], "n_perturb_samples": 1, **zero}, {}
        ),
        "MaxSensitivity": ("MaxSensitivity", whole, near, again),
        "MPRT": ("MPRT", places, {}, {**again, "explain_func": by_place}),
        "Completeness": ("Completeness", whole, zero, {}),
        "Sparseness": ("Sparseness", places.abs(), {}, {}),
        "PointingGame": ("PointingGame", places.abs(), {}, truth),
        "RelevanceMass": ("RelevanceMassAccuracy", places.abs(), {}, truth),
        "RelevanceRank": ("RelevanceRankAccuracy", places.abs(), {}, truth),
        "AverageSensitivity": ("AvgSensitivity", whole, near, again),
        "LocalLipschitz": ("LocalLipschitzEstimate", whole, near, again),
        "RelativeInputStability": ("RelativeInputStability", whole, near, again),
        "RelativeOutputStability": ("RelativeOutputStability", whole, near, again),
        "RelativeRepresentationStability": ("RelativeRepresentationStability", whole, {**near, **layer}, again),
    }  # fmt: skip

    def ask(name: str) -> Any:
        kind, relevance, options, call = metrics[name]
        metric = getattr(quantus, kind)(**{**PLAIN, **options, **(changed or {}).get(name, {})})
        if name == "Deletion":  # it refuses steps that are whole pixels of three channels
            metric.custom_preprocess = lambda **_: None
        given = {"x_batch": question.x.numpy(), "y_batch": question.y.numpy(), "a_batch": relevance.numpy().copy()}
        return metric(model=question.module, **given, device="cpu", batch_size=batch, **call)

    return {name: partial(ask, name) for name in metrics}


def run(question: Question, batch: int, names: Iterable[str]) -> Iterator[str]:
    """Ask Quantus for one metric after the other, and say which it was when it is done."""
    asks = asked(question, batch)
    for name in names:
        asks[name]()
        yield name
