"""Whether whybox and Quantus find the same where their definitions are the same, and what fewer levels change."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor

from benchmarks.quantus_suite import Question, asked, quantus
from whybox import InputXGradient, Method, Metric, Model, Taxonomy
from whybox.core.block import mix, noise_keys
from whybox.core.task import Task
from whybox.evaluation.randomisation import parameter_layers, randomised
from whybox.evaluation.similarity import correlation

DIFFERENT = {
    "Completeness": "Quantus asks whether two floating-point numbers are equal, whybox for the share that is missing",
}


@dataclass(frozen=True)
class Recording(Method):
    """Input × gradient that keeps all that it is asked to explain."""

    kept: list[Tensor] = field(default_factory=list, compare=False)

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Any:
        """Input × gradient."""
        self.kept.extend(task.inputs.clone())  # type: ignore[union-attr]
        return InputXGradient().attribute(task)


def agreement(question: Question, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """For each metric the largest difference of a value, as a share of the largest value, and of how many values.

    Quantus is given the neighbours and the random copies that whybox has drawn. Its infidelity takes one patch after
    the other away and puts none back, another definition; it is made to put them back here.
    """
    found: dict[str, Any] = {}
    for name, metric in metrics.items():
        if name in DIFFERENT:
            found[name] = {"different": DIFFERENT[name]}
            continue
        method = Recording()
        model = Model(question.module)
        scores = metric.run(model, question.x, question.y, question.relevance, method=method, truth=question.truth)
        changed: dict[str, Any] = {}
        if name == "Infidelity":
            changed = {"perturb_func": _one_patch(question)}
        elif metric.explains_again and name != "MPRT":
            near = torch.stack(method.kept).unflatten(0, (len(question.x), -1)).flatten(2).unbind(1)
            draws = iter(part.numpy() for part in near)
            changed = {"perturb_func": lambda draws=draws, **_: next(draws)}
        with same_copies(question) if name == "MPRT" else _nothing():
            theirs = asked(question, len(question.x), {name: changed})[name]()
        found[name] = _difference(*_alike(name, scores, theirs))
    return found


def levels(question: Question, fine: Mapping[str, Metric], coarse: Mapping[str, Metric]) -> dict[str, Any]:
    """What the scores are at fewer levels: mean and largest difference, and rank correlation over the images."""
    found = {}
    for name in fine:
        if fine[name] != coarse[name] and not fine[name].explains_again:
            given = Model(question.module), question.x, question.y, question.relevance
            one, other = fine[name](*given), coarse[name](*given)
            found[name] = {
                "mean": float((one - other).abs().mean()),
                "largest": float((one - other).abs().max()),
                "spread of the scores": float(one.std()),
                "rank correlation": float(correlation(one[None], other[None])),
            }
    return found


@contextmanager
def same_copies(question: Question) -> Iterator[None]:
    """Let Quantus explain with whybox's random copies: its own have all layers drawn from the same seed."""
    wrapper = quantus.helpers.model.pytorch_model.PyTorchModel
    layers = parameter_layers(question.module)[::-1]
    seed = mix(noise_keys(0, 1)[0], 0)

    def copies(_: Any, order: str = "top_down", seed: int = seed) -> Any:
        for k, name in enumerate(layers):
            yield name, randomised(Model(question.module), first, layers[: k + 1]).module

    first = seed
    before = wrapper.get_random_layer_generator, wrapper.random_layer_generator_length
    wrapper.get_random_layer_generator, wrapper.random_layer_generator_length = copies, property(lambda _: len(layers))
    try:
        yield
    finally:
        wrapper.get_random_layer_generator, wrapper.random_layer_generator_length = before


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _one_patch(question: Question) -> Any:
    whole = question.x.flatten(1).numpy()

    def one_patch(arr: numpy.ndarray, indices: numpy.ndarray, **_: Any) -> numpy.ndarray:
        changed = whole.copy()
        changed[:, indices[0]] = 0
        return changed

    return one_patch


def _alike(name: str, scores: Any, theirs: Any) -> tuple[Tensor, Tensor]:
    """whybox's and Quantus' values of the same thing: curves where it has curves, the score of each step, or scores."""
    if name == "RegionPerturbation":
        curve = scores.details["probability"]
        return curve[:, :1] - curve[:, 1:], _tensor(theirs)
    if name == "Deletion":
        return scores.details["probability"][:, 1:], _tensor(theirs)
    if name == "MPRT":
        return scores.details["signed"], _tensor([theirs[key] for key in theirs if key != "original"]).T
    return scores.values, _tensor(theirs)


def _difference(ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    both = torch.isfinite(ours) & torch.isfinite(theirs)
    apart, size = (ours - theirs)[both].abs(), theirs[both].abs().max()
    return {
        "absolute": float(apart.max()),
        "relative": float(apart.max() / size.clamp_min(1e-30)),
        "values": int(both.sum()),
        "of": both.numel(),
        "beyond": int((apart > 1e-4 * size.clamp_min(1)).sum()),
    }


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(numpy.asarray(values, dtype=float))
