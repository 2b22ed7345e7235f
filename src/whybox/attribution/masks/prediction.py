"""What a mask is to keep, or to lose: a class, everything that the model says, or any other target's score."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.core.target import Labels, Logit, LogProbability, Target
from whybox.core.task import Task
from whybox.core.tree import Inputs


@dataclass(frozen=True, eq=False)
class MeanLogProbability(LogProbability):
    """The logarithm of the probability of a class; in a dense output its mean over all positions."""

    def score(self, output: Tensor) -> Tensor:
        positions = 1 if isinstance(self.index, tuple) else math.prod(output.shape[2:])
        return super().score(output) / positions

    def lost(self, output: Tensor) -> Tensor:
        """Whether another class is predicted (n,); a single output is the log-odds of its class, whose rival has 0."""
        columns, wanted = _with_rival(output), self.index
        if isinstance(wanted, tuple):
            wanted, *places = wanted
            for place in reversed(places):
                columns = columns.select(-1, place)
        return torch.as_tensor(Logit().pin(len(columns), columns).index) != torch.as_tensor(wanted)


@dataclass(frozen=True, eq=False)
class MeanLogOther(MeanLogProbability):
    """The logarithm of the probability that it is another class; in a dense output its mean over all positions."""

    def score(self, output: Tensor) -> Tensor:
        columns = _with_rival(output)
        own = torch.zeros_like(columns, dtype=torch.bool)
        if isinstance(self.index, tuple):
            own[:, self.index[0]] = True
        else:
            own[torch.arange(len(columns)), torch.as_tensor(self.index)] = True
        others = columns.masked_fill(own, -torch.inf).logsumexp(1) - columns.logsumexp(1)
        if isinstance(self.index, tuple):
            return others.movedim(0, -1)[self.index[1:]]
        return others.flatten(1).mean(1) if others.ndim > 1 else others


@dataclass(frozen=True, eq=False)
class Likeness(Target):
    """How like a given prediction p the output is: −KL(p ‖ softmax f), in a dense output the mean over all positions.

    Args:
        prediction: the logarithms of all classes' probabilities, (n, classes, …).
    """

    prediction: Tensor

    @classmethod
    def to_original(cls, task: Task) -> "Likeness":
        """To what the model says of the task's inputs. Cost: a forward pass for each."""

        def ask(inputs: Inputs, sample: Tensor) -> Tensor:
            with torch.no_grad():
                return _with_rival(task.output(inputs, sample)).log_softmax(1)

        return cls(task.map(ask, task.inputs, gradient=False))

    def score(self, output: Tensor) -> Tensor:
        found = _with_rival(output).log_softmax(1)
        apart = torch.nn.functional.kl_div(found, self.prediction.to(found), reduction="none", log_target=True)
        return -apart.flatten(2).sum(1).mean(1) if apart.ndim > 2 else -apart.sum(1)

    def describe(self, sample: int, labels: Labels = None) -> str:
        return "the whole prediction"


def wanted(task: Task) -> Target:
    """The task's target as masks have it: of a class, however it is given, the mean log-probability."""
    return MeanLogProbability(task.target.index) if isinstance(task.target, Logit) else task.target


def _with_rival(output: Tensor) -> Tensor:
    """A column for each class; a single output is the log-odds of its class, whose rival has 0."""
    columns = output[:, None] if output.ndim == 1 else output
    return torch.cat((columns, torch.zeros_like(columns)), 1) if columns.shape[1] == 1 else columns
