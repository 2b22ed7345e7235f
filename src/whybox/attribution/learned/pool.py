"""The pool of past classifiers: what a masker has learned against one classifier should fool the earlier ones too."""

import copy

import torch
from torch import Tensor, nn

# How often the masker meets the present classifier; otherwise one of the pool, each as likely.
PRESENT = 0.5


class Pool:
    """The classifier as it was at some steps of its training.

    Args:
        classifier: the one that is trained; its parameters are read whenever it is added.
        size: how many are kept; where one more is added, one by chance leaves.
        generator: of the draws.
    """

    def __init__(self, classifier: nn.Module, size: int, generator: torch.Generator) -> None:
        self._classifier, self._size, self._generator = classifier, size, generator
        self._past = copy.deepcopy(classifier).requires_grad_(False)
        self._states: list[list[Tensor]] = []

    def __len__(self) -> int:
        return len(self._states)

    def add(self) -> None:
        """Keep the classifier as it is now."""
        if len(self) == self._size:
            self._states.pop(self._index())
        self._states.append([parameter.detach().clone() for parameter in self._classifier.parameters()])

    def draw(self) -> nn.Module:
        """The present classifier, or a past one; its parameters take part in no gradient that is asked for."""
        if float(torch.rand((), generator=self._generator)) < PRESENT:
            return self._classifier
        with torch.no_grad():
            for mine, kept in zip(self._past.parameters(), self._states[self._index()], strict=True):
                mine.copy_(kept)
        return self._past

    def _index(self) -> int:
        return int(torch.randint(len(self), (), generator=self._generator))
