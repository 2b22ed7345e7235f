"""Lead: by how much a class is ahead of the others, for the target of a task."""

from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.core.start import check_outputs
from whybox.core.target import Logit, Target
from whybox.core.task import Task
from whybox.core.tree import Inputs


@dataclass(frozen=True)
class Lead:
    """Functions of variants (k, …) of samples (k,), as `Task.map` asks them.

    A single output is the log-odds of its class, with a rival at 0; a target that is no class has one rival, at 0.

    Attributes:
        task: what is explained.
        margin: the least lead at the inputs themselves (n,).
        wanted: the class of each sample (n,); None for a target that is no class.
        rivals: the classes with the highest scores besides (n, count), highest first; None where there are no classes.
    """

    task: Task
    margin: Tensor
    wanted: Tensor | None
    rivals: Tensor | None

    @classmethod
    def of(cls, task: Task, most: int) -> "Lead":
        """The lead over at most so many rivals. Cost: a forward for each sample."""
        if not isinstance(task.target, Logit):
            return cls(task, task.score(task.inputs).cpu().double(), None, None)

        def ask(inputs: Inputs, sample: Tensor) -> Tensor:
            with torch.no_grad():
                output = task.output(inputs, sample)
                task.target.rows(sample).score(output)  # which refuses a class that there is not
                return _scores(output, task.target)

        scores = task.map(ask, task.inputs, gradient=False).cpu().double()
        check_outputs(scores)
        index = task.target.index
        wanted = torch.as_tensor(index[0] if isinstance(index, tuple) else index).expand(len(scores))
        own = scores.gather(1, wanted[:, None])[:, 0]
        best, rivals = scores.scatter(1, wanted[:, None], -torch.inf).topk(min(most, scores.shape[1] - 1), 1)
        return cls(task, own - best[:, 0], wanted, rivals)

    @property
    def count(self) -> int:
        """The number of rivals."""
        return 1 if self.rivals is None else self.rivals.shape[1]

    def each(self, inputs: Inputs, sample: Tensor) -> Tensor:
        """The lead over each rival (k, count), differentiable."""
        if self.wanted is None or self.rivals is None:
            return self.task.forward(inputs, sample)[:, None]
        scores = _scores(self.task.output(inputs, sample), self.task.target)
        own, others = (index[sample].to(scores.device) for index in (self.wanted[:, None], self.rivals))
        return scores.gather(1, own) - scores.gather(1, others)

    def least(self, inputs: Inputs, sample: Tensor) -> Tensor:
        """The lead over the strongest of all other classes (k,), without gradients."""
        with torch.no_grad():
            if self.wanted is None:
                return self.task.forward(inputs, sample)
            scores = _scores(self.task.output(inputs, sample), self.task.target)
            own = self.wanted[sample].to(scores.device)[:, None]
            return scores.gather(1, own)[:, 0] - scores.scatter(1, own, -torch.inf).amax(1)

    def excess(self, inputs: Inputs, sample: Tensor) -> Tensor:
        """By how much other classes are more probable (k,), averaged over all classes; differentiable."""
        if self.wanted is None:
            return (-self.task.forward(inputs, sample)).relu()
        chances = _scores(self.task.output(inputs, sample), self.task.target).softmax(1)
        own = chances.gather(1, self.wanted[sample].to(chances.device)[:, None])
        return (chances - own).relu().mean(1)


def _scores(output: Tensor, target: Target) -> Tensor:
    """The scores of all classes (k, classes ≥ 2), at the target's place where the output is dense."""
    columns = output[:, None] if output.ndim == 1 else output
    index = target.index if isinstance(target, Logit) else None
    for place in reversed(index[1:]) if isinstance(index, tuple) else ():
        columns = columns.select(-1, place)
    scores = columns.flatten(2).sum(2) if columns.ndim > 2 else columns
    return torch.cat((scores, torch.zeros_like(scores)), 1) if scores.shape[1] == 1 else scores
