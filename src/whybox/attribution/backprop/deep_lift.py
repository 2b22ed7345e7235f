"""DeepLIFT."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

import whybox.attribution.backprop.kinds  # noqa: F401 (fills the table)
from whybox.attribution.backprop.lift.network import Network
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.model import Model
from whybox.core.reference import Infill, Zero
from whybox.core.start import started
from whybox.core.target import Target
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple, like

SUMMATION = (
    "|Sum of the relevance − (score of the input − score of the baseline)|, as a share of the larger of the scores. "
    "A large gap means that part of the difference has gone nowhere: an index that the input chooses, or rounding "
    "where differences cancel."
)


@dataclass(frozen=True)
class DeepLIFT(Method):
    """Relevance R_i = m_i · (x_i − x′_i): what each difference from a baseline x′ adds, operation by operation.

    The multipliers m chain like derivatives, but are quotients of differences. A linear map has its weights; an
    activation Δy / Δx ("rescale"), or one for the positive and one for the negative contributions to Δx, each averaged
    over being added first and last ("reveal_cancel", which sees what cancels); of a product each factor takes its
    Shapley value. In a maximum the winner takes the difference, or that of the baseline where it has lost more;
    quotients, softmax and normalisation are split so that no small denominator of a blank baseline counts alone.
    Signed, in the shape of the input; the sum is f(x) − f(x′), reported as a check. On a ReLU net without biases, with
    the baseline zero, "rescale" is input × gradient and LRP-0.
    Cost: two forward passes and one backward pass; with "reveal_cancel" about twice that.
    Limits: depends on the baseline. Where x and x′ differ little the multipliers are gradients. What is chosen by an
    index that the input decides (sorting, embedding by arg max) gets no share in the choice; `details` then say where.
    Control flow in Python follows the input in both runs. What is not known is refused by name.
    Source: Shrikumar, Greenside & Kundaje 2017, arXiv 1704.02685.

    Args:
        rule: "rescale" or "reveal_cancel": how activations share their difference.
        baseline: what the input is compared with.
    """

    rule: Literal["rescale", "reveal_cancel"] = "rescale"
    baseline: Infill = field(default_factory=Zero)

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def __post_init__(self) -> None:
        if self.rule not in ("rescale", "reveal_cancel"):
            raise InputError(f"the rule is 'rescale' or 'reveal_cancel', not {self.rule!r}")

    def attribute(self, task: Task) -> Attribution:
        baseline = task.everything().fill(self.baseline)
        chosen: dict[str, None] = {}

        def explain(inputs: Inputs, sample: Tensor) -> tuple[Tensor, Tensor, Inputs]:
            leaves = tuple(map(leaf, as_tuple(inputs)))
            starts = tuple(b[sample.to(b.device)] for b in as_tuple(baseline))
            network = Network(task.model.module, self.rule)
            with network:
                signals = tuple(map(network.explain, leaves, starts))
                score = network.current(task.forward(like(inputs, signals), sample))
            task.cost.add_forwards(len(sample))  # those of the baseline
            chosen.update(dict.fromkeys(network.chosen))
            multipliers = task.backward(score, leaves)
            relevance = (m * (x.detach() - b) for m, x, b in zip(multipliers, leaves, starts, strict=True))
            return score.detach(), network.baseline(score), like(inputs, tuple(relevance))

        here, there, relevance = task.map(explain, task.inputs, gradient=True)
        details: dict[str, Any] = {"baseline": baseline}
        if chosen:
            details["chosen by the input"] = tuple(f"in {where!r}" for where in chosen)
        return Attribution(relevance, details=details, checks=(summation_gap("summation gap", relevance, here, there),))

    def evidence(
        self, model: Model, inputs: Inputs, target: Target, **options: Any
    ) -> tuple[dict[str, Any], tuple[Check, ...]]:
        with started(model, inputs, target, **options) as task:
            answer = self.attribute(task)
            scores = task.score(task.inputs), task.score(answer.details["baseline"])
        return {}, (summation_gap("summation gap by the model's own scores", answer.relevance, *scores),)


def summation_gap(name: str, relevance: Inputs, score: Tensor, start: Tensor) -> Check:
    """How far the relevance is from the difference of these scores."""
    total = torch.stack([r.flatten(1).sum(1, dtype=torch.float64).cpu() for r in as_tuple(relevance)]).sum(0)
    score, start = score.double().cpu(), start.double().cpu()
    gap, size = (total - (score - start)).abs(), torch.maximum(score.abs(), start.abs())
    return Check(name, torch.where(gap == 0, gap, gap / size), 1e-4, SUMMATION)
