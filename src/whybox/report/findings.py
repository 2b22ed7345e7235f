"""Findings: what is known of one model's predictions for a batch, before it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.core.layout import by_position
from whybox.core.model import Domain
from whybox.core.passage import Passage
from whybox.core.target import Target
from whybox.evaluation.trials import Trial


@dataclass(frozen=True)
class Failure:
    """A method that could not explain this model.

    Attributes:
        method: its configuration.
        message: what went wrong and what to do, in the words of the error.
    """

    method: dict[str, Any]
    message: str


@dataclass(frozen=True)
class Contrasts:
    """For each sample, the maps of "why this class and not that one" against k other classes.

    Attributes:
        method: the configuration of the method that made the maps.
        this: the class argued for, (n,).
        others: the classes argued against, (n, k), each row's most probable first.
        relevance: for each of the k, the relevance of the whole batch (n, …).
    """

    method: dict[str, Any]
    this: Tensor
    others: Tensor
    relevance: tuple[Tensor, ...]

    def by_position(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """For each of the k, one value per position, (n, *grid)."""
        return tuple(by_position(relevance, inputs) for relevance in self.relevance)


@dataclass(frozen=True)
class Findings:
    """What several methods say of one model's predictions for n inputs.

    Attributes:
        model: the model's name.
        labels: the names of the classes, or None.
        domain: the lowest and the highest valid value of the (first) input.
        preprocess: how a picture became an input, or None.
        target: what is explained, pinned: the same for all methods.
        results: for each method that was asked its Explanation, or the Failure in its place; at least one explains.
        contrasts: "why this, not that", or None where there are no classes to compare.
        contrast_note: why there are none, or "".
        trials: what became of the prediction as each explanation's places were taken away, beside controls; or nothing.
        seed, at: as they were given.
    """

    model: str
    labels: tuple[str, ...] | None
    domain: Domain
    preprocess: Callable[..., Any] | None
    target: Target
    results: tuple[Explanation | Failure, ...]
    contrasts: Contrasts | None = None
    contrast_note: str = ""
    trials: tuple[Trial, ...] = ()
    seed: int = 0
    at: str | None = None

    @property
    def this(self) -> Tensor | None:
        """The class that is explained, (n,), or None where it is no class."""
        index = getattr(self.target, "a", getattr(self.target, "index", None))
        return index if isinstance(index, Tensor) else None

    @property
    def versus(self) -> Tensor | None:
        """The class that the target is contrasted with, (n,), or None."""
        index = getattr(self.target, "b", None)
        return index if isinstance(index, Tensor) else None

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """Those of the methods that could explain the model, in their order."""
        return tuple(result for result in self.results if isinstance(result, Explanation))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The methods that could not."""
        return tuple(result for result in self.results if isinstance(result, Failure))

    def of_texts(self, passages: tuple[Passage, ...]) -> "Findings":
        """The same, with what stands at the positions of each text."""
        results = (replace(one, passages=passages) if isinstance(one, Explanation) else one for one in self.results)
        return replace(self, results=tuple(results))

    def __len__(self) -> int:
        return len(self.explanations[0])
