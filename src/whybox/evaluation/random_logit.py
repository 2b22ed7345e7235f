"""RandomLogit: an explanation that is the same for every class does not explain the prediction of one."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whybox.attribution.perturbation.uniform import uniform
from whybox.core.errors import InputError
from whybox.core.target import Logit, LogProbability, Probability
from whybox.core.tree import each
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.likeness import Reading, likeness, read, unlike
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.places import all_places
from whybox.evaluation.similarity import Similarity


@dataclass(frozen=True)
class RandomLogit(Metric):
    """ρ(R, R_c) with R_c the map for another class c, drawn at random: low where the explanation is of the class.

    Details: the `signed`, `absolute` and `foreground` likeness, (n,), and the `other` class of each sample.
    Cost: that of the method once, and one forward.
    Limits: with two classes and probabilities the two maps are each other's negative, and so alike in size; where the
    evidence for all classes lies in the same place, a good explanation is alike too.
    Source: Sixt, Granz & Landgraf 2020, arXiv 1912.09818, with SSIM as the similarity.

    Args:
        compares: which likeness is the score; all are in the details.
        similarity: ρ, over the positions, the channels summed.
    """

    compares: Reading = "signed"
    similarity: Similarity = "spearman"

    family = "randomisation"
    higher_is_better = False
    explains_again = True

    def measure(self, case: Case) -> Scores:
        other = case.samples.once(_OtherClass())
        again = case.explain_in(replace(case.task, target=replace(case.task.target, index=other)))  # type: ignore[type-var]
        maps = (all_places(relevance, case.task.inputs) for relevance in (case.relevance, again))
        first, second = (read(case.samples, map, self.similarity) for map in maps)
        found = likeness(first, second)
        values = found.of(self.compares)
        why = "for the other class, a map with no order to compare"
        skipped = unlike(case, first.blank, torch.isnan(values), why)
        return Scores(values, {**found._asdict(), "other": other}, skipped)


@dataclass(frozen=True)
class _OtherClass:
    """A class for each sample (n,), uniform among all but its target's."""

    def measure(self, samples: Samples) -> Tensor:
        task = samples.task
        index = getattr(task.target, "index", None)
        if type(task.target) not in (Logit, Probability, LogProbability) or not isinstance(index, Tensor):
            raise InputError("RandomLogit explains another class: the target must be one class for each sample")
        with torch.no_grad():
            output = task.output(each(lambda x: x[:1], task.inputs), torch.zeros(1, dtype=torch.long))
        classes = output.shape[1] if output.ndim > 1 else 1
        if classes < 2:
            raise InputError("RandomLogit explains another class, but the model has a single output")
        draws = uniform(torch.tensor(task.keys), torch.zeros(task.size, dtype=torch.long), 1, salt=2)[:, 0]
        return (index + 1 + (draws * (classes - 1)).long()) % classes
