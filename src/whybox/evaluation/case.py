"""Case: what a metric is given. An explanation of a batch of samples, the model, and what was measured of them so far.

What several metrics need is measured once. A measurement is a frozen dataclass with `measure(case)` (or, where it does
not depend on the relevance, `measure(samples)`); `case.once(measurement)` answers with what an equal one has found
before. So six robustness metrics share their perturbed explanations, and Deletion and RegionPerturbation their curves,
without knowing of each other: they only ask for equal values.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from whybox.attribution.perturbation import engine
from whybox.core.block import Block
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method
from whybox.core.reference import Imputed, Infill
from whybox.core.start import check_relevance
from whybox.core.target import Logit, LogProbability, Probability, Target
from whybox.core.task import Task
from whybox.core.tree import Inputs, each
from whybox.evaluation.distance import flat

Found = TypeVar("Found", covariant=True)
Subject = TypeVar("Subject", contravariant=True)
# Makes variants number[j] of sample[j], both (k,).
Make = Callable[[Tensor, Tensor], Inputs]


@runtime_checkable
class Measurement(Protocol[Subject, Found]):
    """A frozen dataclass that says what is to be measured, and measures it."""

    def measure(self, subject: Subject, /) -> Found:
        """Measure it."""
        ...


class Answers(NamedTuple):
    """What the model says of some variants, each float64 and of the same shape, on the CPU.

    Attributes:
        score: the target's score.
        probability: the probability of the target's class, in a dense output its mean over the positions; NaN where
            the target is no class.
        right: 1 where the target's class is the predicted one, else 0; NaN where the target is none of several classes
            of the whole input.
    """

    score: Tensor
    probability: Tensor
    right: Tensor

    def of(self, quantity: str) -> Tensor:
        """The quantity by its name, as in the fields of metrics."""
        if quantity not in self._fields:
            raise InputError(f"what is followed is one of {', '.join(map(repr, self._fields))}, not {quantity!r}")
        found: Tensor = getattr(self, quantity)
        if bool(torch.isnan(found).all()) and not bool(torch.isnan(self.score).all()):
            raise InputError(
                f"this target has no {quantity!r}, which only one of several classes has: explain such a class, or "
                "follow its 'score'"
                if quantity == "right"
                else f"the target is no class, so it has no {quantity!r}: follow its 'score', or explain a class"
            )
        return found


@dataclass(frozen=True)
class Samples:
    """A batch of samples with its target: what all explanations of it have in common.

    Attributes:
        task: the model (guarded), the inputs, the pinned target, the seed's keys, and the ways to ask the model.
        known: what was measured so far, by measurement.
    """

    task: Task
    known: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, measurement: Measurement["Samples", Found]) -> Found:
        """What this measurement finds; an equal one is not made twice."""
        found: Found = _once(self.known, measurement, self)
        return found

    @property
    def originals(self) -> Answers:
        """What the model says of the inputs themselves, (n,). Cost: n forwards, once."""
        return self.once(_Originals())

    def ask(self, variants: int | Tensor, make: Make) -> Answers:
        """The answers for variants 0 … of every sample, so many or (n,) of each its own number: each (n, most).

        NaN beyond a sample's own number. Cost: as many forwards.
        """
        task, counts = self.task, torch.as_tensor(variants).expand(self.task.size)
        table = torch.full((task.size, int(counts.max()), len(Answers._fields)), torch.nan, dtype=torch.float64)
        chunks = engine.ask(task, counts, lambda *which: (make(*which), None), lambda x, s: answers(task, x, s))
        for chunk in chunks:
            table[chunk.sample, chunk.number] = chunk.score
        return Answers(*table.unbind(2))

    def filled(self, infill: Infill) -> Inputs | None:
        """Every sample replaced whole, by one draw of the infill; None where that depends on what is hidden."""
        return None if isinstance(infill, Imputed) else self.once(_Filled(infill))


@dataclass(frozen=True)
class Case:
    """One explanation of a batch, under evaluation.

    Attributes:
        samples: the batch.
        relevance: the explanation: the inputs' rank, size 1 on axes not told apart.
        method: what explained, for metrics that must explain again; or None.
        truth: where the evidence lies, for metrics of localisation: see `evaluation.truth`; or None.
        known: what was measured of this explanation so far, by measurement.
    """

    samples: Samples
    relevance: Inputs
    method: Method | None = None
    truth: Tensor | None = None
    known: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The samples' task."""
        return self.samples.task

    def once(self, measurement: Measurement["Case", Found]) -> Found:
        """What this measurement finds; an equal one is not made twice."""
        found: Found = _once(self.known, measurement, self)
        return found

    def explain(self, inputs: Inputs, block: Block) -> Inputs:
        """The relevance of variants of the samples, explained by the same method for the same target."""
        return self.explain_in(self.task.on(inputs, block))

    def explain_in(self, task: Task) -> Inputs:
        """The relevance that the same method finds for a task that is another in its inputs, target or model."""
        if self.method is None:
            raise InputError("this metric explains again: give method=, the method that the relevance comes from")
        answer = self.method.attribute(task)
        relevance = answer.relevance if isinstance(answer, Attribution) else answer
        check_relevance(relevance, task.inputs, type(self.method).__name__)
        return each(Tensor.detach, relevance)

    def constant(self) -> Tensor:
        """Whether each sample's map is the same everywhere (n,): it has no order, and says nothing."""
        rows = flat(self.relevance).cpu()
        return (rows == rows[:, :1]).all(1)

    def finite(self) -> Tensor:
        """Whether each sample's relevance is finite everywhere (n,)."""
        return torch.isfinite(flat(self.relevance)).all(1).cpu()


def answers(task: Task, inputs: Inputs, sample: Tensor) -> Tensor:
    """What the model says of some variants in one chunk: the three columns of `Answers`, float64 (k, 3) on the CPU."""
    target = task.target.rows(sample)
    if target.layer is not None:
        score = task.forward(inputs, sample).cpu().double()
        missing = torch.full_like(score, torch.nan)
        return torch.stack((score, missing, missing), 1)
    output = task.output(inputs, sample)
    score = target.score(output).cpu().double()
    return torch.stack((score, *(part.cpu().double() for part in _as_class(target, output, score))), 1)


def _as_class(target: Target, output: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of the target's class, and whether it is the predicted one."""
    missing = torch.full_like(score, torch.nan)
    if type(target) not in (Logit, Probability, LogProbability):
        return missing, missing
    index: Any = target.index  # type: ignore[attr-defined]
    probability = Probability(index).score(output)
    if output.ndim > 2 and not isinstance(index, tuple):
        probability = probability / output[0, 0].numel()
    if isinstance(index, tuple) or output.ndim != 2 or output.shape[1] == 1:
        return probability, missing
    return probability, output.argmax(1).cpu() == index


@dataclass(frozen=True)
class _Originals:
    """The answers for the inputs themselves."""

    def measure(self, samples: Samples) -> Answers:
        task = samples.task
        with torch.no_grad():
            found = task.map(lambda inputs, sample: answers(task, inputs, sample), task.inputs, gradient=False)
        return Answers(*found.unbind(1))


@dataclass(frozen=True)
class _Filled:
    """Every sample replaced by an infill."""

    infill: Infill

    def measure(self, samples: Samples) -> Inputs:
        return samples.task.everything().fill(self.infill)


def _once(known: dict[Hashable, Any], measurement: Any, subject: Any) -> Any:
    if measurement not in known:
        known[measurement] = measurement.measure(subject)
    return known[measurement]
