"""Metric: a way of scoring explanations as a plain value; Scores: what it answers."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from whybox.core.errors import InputError, ModelError
from whybox.core.method import Method
from whybox.core.model import Model
from whybox.core.registry import method as named_method
from whybox.core.start import check_relevance, started
from whybox.core.tree import Inputs, as_tuple
from whybox.core.value import Value
from whybox.evaluation.case import Case, Samples

Family = Literal["faithfulness", "robustness", "localisation", "complexity", "randomisation", "axioms"]


@dataclass(frozen=True)
class Limit:
    """A score beyond which a method must not be relied on, and in words why not: "it ignores the weights"."""

    value: float
    says: str


@dataclass
class Scores:
    """What a metric answers.

    A metric fills in values and details; `run` fills in the rest.

    Attributes:
        values: one score per sample, float64 (n,) on the CPU; NaN where there is none.
        details: what else was measured, such as curves, per sample.
        skipped: in words, why samples have no score or one that means little: (n,) whether it is so, by reason.
        seconds: the wall time.
        forwards, backwards: how often the model was asked, in samples.
    """

    values: Tensor
    details: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0


class Metric(Value):
    """A way of scoring explanations: a frozen dataclass of plain values, as a method is.

    The author of a metric writes the dataclass, its docstring (summary, formula, Cost:, Limits:, Source:), the class
    variables and `measure`; users call it.
    """

    family: ClassVar[Family]
    higher_is_better: ClassVar[bool]
    explains_again: ClassVar[bool] = False
    """Whether it needs the method that the relevance comes from."""
    needs_truth: ClassVar[bool] = False
    """Whether it needs to be told where the evidence lies."""
    limit: ClassVar[Limit | None] = None
    """From where on a score alone, without controls beside it, speaks against the method."""

    def measure(self, case: Case) -> Tensor | Scores:
        """The score of each sample (n,). Written by the metric's author.

        Samples whose relevance is not finite are set to NaN afterwards; a metric must only not fail on them.
        """
        raise NotImplementedError

    def chance(self, case: Case) -> Tensor | None:
        """The score expected of a random map (n,), where it follows from the case; None where it must be measured."""
        return None

    def __call__(
        self, model: Model | nn.Module, inputs: Inputs, target: Any, relevance: Inputs, **options: Any
    ) -> Tensor:
        """The scores alone: `run(...).values`."""
        return self.run(model, inputs, target, relevance, **options).values

    def run(
        self,
        model: Model | nn.Module,
        inputs: Inputs,
        target: Any,
        relevance: Inputs,
        *,
        method: Method | str | None = None,
        truth: Tensor | None = None,
        forward_kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Scores:
        """Score the explanation of every sample of the batch; the model and all tensors are left as they were.

        Args:
            model: any `nn.Module`, or a Model around one.
            inputs: what was explained, batch first; a tuple for several inputs.
            target: what was explained of it; None for the class predicted.
            relevance: the explanation, of the inputs' rank, with their sizes or 1.
            method: what explained, for metrics that explain again.
            truth: where the evidence lies, for metrics of localisation.
            forward_kwargs: keyword arguments of the model.
            seed: of all noise; the same seed gives the same scores, whatever the chunk size.
            progress: show a bar on anything over two seconds.

        Raises:
            InputError, TargetError, ModelError: before any long work, saying what to do.
        """
        began = time.perf_counter()
        explained = named_method(method) if isinstance(method, str) else method
        with started(
            model,
            inputs,
            target,
            forward_kwargs=forward_kwargs,
            seed=seed,
            progress=progress,
            differentiable=explained is not None and explained.needs() != "outputs",
        ) as task:
            scores = self.score(case(Samples(task), relevance, explained, truth))
        scores.seconds = time.perf_counter() - began
        return scores

    def score(self, case: Case) -> Scores:
        """The scores of a case, which may know already what this metric needs; their cost is what was still to do."""
        if self.explains_again and case.method is None:
            raise InputError(f"{type(self).__name__} explains again: give method=, what the relevance comes from")
        if self.needs_truth and case.truth is None:
            raise InputError(f"{type(self).__name__} compares with the truth: give truth=, masks or boxes")
        began, cost = time.perf_counter(), case.task.cost
        forwards, backwards = cost.forwards, cost.backwards
        found = self.measure(case)
        scores = found if isinstance(found, Scores) else Scores(found)
        scores.values = torch.where(case.finite(), scores.values.detach().cpu().double(), torch.nan)
        scores.skipped = {
            "relevance that is not finite": ~case.finite(),
            "the same relevance everywhere": case.constant() & case.finite(),
            **scores.skipped,
        }
        named = torch.stack(list(scores.skipped.values())).any(0)
        scores.skipped["no finite score"] = ~torch.isfinite(scores.values) & ~named
        scores.forwards, scores.backwards = cost.forwards - forwards, cost.backwards - backwards
        scores.seconds = time.perf_counter() - began
        return scores


def unless(reasons: Mapping[str, Tensor], values: Tensor) -> Tensor:
    """The values (n,), but NaN where one of the reasons speaks against having any."""
    return torch.where(torch.stack(list(reasons.values())).any(0), torch.nan, values)


def case(samples: Samples, relevance: Any, method: Method | None = None, truth: Tensor | None = None) -> Case:
    """A case, after a look at the relevance.

    Raises: InputError where the relevance does not fit the inputs.
    """
    inputs = samples.task.inputs
    try:
        check_relevance(relevance, inputs, "the explanation")
    except ModelError as error:
        raise InputError(f"{error}; it has the inputs' rank, and their sizes or 1") from error
    for r, x in zip(as_tuple(relevance), as_tuple(inputs), strict=True):
        if r.dtype == torch.bool or r.is_complex():
            raise InputError(f"the relevance is made of real numbers, not {r.dtype}; convert it with .float()")
        if r.device != x.device:
            raise InputError(f"the relevance is on {r.device}, the inputs on {x.device}; move one of them with .to()")
    if truth is not None and len(truth) != samples.task.size:
        raise InputError(f"truth has {len(truth)} rows for {samples.task.size} samples; give one for each")
    return Case(samples, relevance, method, truth)
