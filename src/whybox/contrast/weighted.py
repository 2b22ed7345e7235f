"""Weighted contrast: two maps of any method, one less the other, by the weights that tell their classes apart."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from whybox.attribution.cam import GradCAM
from whybox.contrast.problem import pair_of
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.target import Logit, class_scores
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple

# The largest weight.
HEAVIEST = 2.0


@dataclass(frozen=True)
class WeightedContrast(Method):
    """Relevance R = mean of E_t − w·E_p over the weights w that tell the true class from the probe.

    E_t and E_p are the maps of `of` for the two classes, w = 2/weights, …, 2. A weight is kept if x' = clip(x − s·E_w)
    to the model's domain has a lower probability of the true class and a higher one of the probe than x. The source
    does not give s: here s·E_w changes some value by `strength` of its domain, and none by more. The target is a
    `Contrast(t, p)`; a class is contrasted with its runner-up. Details, per sample: `classes` t and p, `kept` (n,
    weights), which weights are, and `of`, what the two maps were. Where none is, R is NaN, and a check says so.
    Cost: twice that of `of`, and `weights` + 1 forward passes.
    Limits: moves in the space of pixels, where few changes look natural; the mean of the kept need not be kept itself.
    Source: section 4.1 of Feghahati, Shelton, Pazzani & Tang 2020, "CDeepEx", ECAI 2020.

    Args:
        of: the method of the two maps.
        weights: how many are tried.
        strength: s, as the share of the domain by which the most changed value changes.
    """

    of: Method = field(default_factory=GradCAM)
    weights: int = 400
    strength: float = 1.0

    taxonomy = Taxonomy(shows="contrast", needs="gradients", relation="closed-form")

    def __post_init__(self) -> None:
        if not isinstance(self.of, Method):
            raise InputError(f"`of` is the method of the maps, such as GradCAM(), not {self.of!r}")
        if self.weights < 1 or not 0 < self.strength < math.inf:
            raise InputError(f"weights is at least 1 and strength positive, not {self.weights}, {self.strength}")

    def needs(self) -> str:
        return self.of.needs()

    def attribute(self, task: Task) -> Attribution:
        if isinstance(task.inputs, tuple) or not task.inputs.is_floating_point():
            raise InputError("a map is imposed on one input, of numbers")
        pair = pair_of(task)
        found = (self.of.attribute(replace(task, target=Logit(classes))) for classes in pair.unbind(1))
        answers = [a if isinstance(a, Attribution) else Attribution(a) for a in found]
        true, probe = (as_tuple(answer.relevance)[0] for answer in answers)
        kept = self._kept(task, pair, true, probe)
        # The mean of E_t − w·E_p over the kept w is E_t less E_p by their mean weight.
        share = kept.to(true)
        mean = (share * self._weight(torch.arange(self.weights)).to(true)).sum(1) / share.sum(1)
        relevance = true - _spread(mean, probe) * probe
        details = {"classes": pair, "kept": kept, "of": tuple(answer.details for answer in answers)}
        says = (
            "Whether no weight tells the two classes apart: imposing the maps' difference never both lowers the one's "
            "probability and raises the other's. Then there is no map."
        )
        return Attribution(relevance, details, (Check("no weight kept", (~kept.any(1)).double(), 0.0, says),))

    def _weight(self, number: Tensor) -> Tensor:
        return HEAVIEST * (number + 1) / self.weights

    def _kept(self, task: Task, pair: Tensor, true: Tensor, probe: Tensor) -> Tensor:
        """Which weights tell the classes apart (n, weights)."""
        x = as_tuple(task.inputs)[0]
        low, high = task.domains()[0].bounds(x)

        def probabilities(inputs: Inputs, sample: Tensor) -> Tensor:
            with torch.no_grad():
                likely = class_scores(task.output(inputs, sample)).softmax(1)
            return likely.gather(1, pair[sample].to(likely.device))

        before = task.map(probabilities, x, gradient=False)
        kept = torch.zeros(task.size, self.weights, dtype=torch.bool)
        for block in task.blocks(self.weights):
            here = block.sample.to(x.device)
            map = true[here] - _spread(self._weight(block.draw).to(true), probe) * probe[here]
            widest = (map.abs() / (high - low).clamp_min(torch.finfo(x.dtype).tiny)).flatten(1).amax(1)
            step = self.strength * map / _spread(widest.clamp_min(torch.finfo(x.dtype).tiny), map)
            changed = (x[here] - step).clamp(low, high)
            after = task.map(probabilities, changed, block.sample, gradient=False)
            told = (after[:, 0] < before[here, 0]) & (after[:, 1] > before[here, 1])
            kept[block.sample, block.draw] = told.cpu()
        return kept


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """One value a sample, to be multiplied with tensors of that rank."""
    return values.view(-1, *(1,) * (like.ndim - 1))
