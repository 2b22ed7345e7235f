"""DeepLIFT."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

import whybox.attribution.backprop.kinds  # noqa: F401 (fills the table)
from whybox.attribution.backprop.lift.network import Network
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.reference import Infill, Zero
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple, each, like


@dataclass(frozen=True)
class DeepLIFT(Method):
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
            task.cost.add_forwards(len(sample))
            chosen.update(dict.fromkeys(network.chosen))
            multipliers = task.backward(score, leaves)
            relevance = (m * (x.detach() - b) for m, x, b in zip(multipliers, leaves, starts, strict=True))
            return score.detach(), network.baseline(score), like(inputs, tuple(relevance))

        here, there, relevance = task.map(explain, task.inputs, gradient=True)
        total = torch.stack([r.flatten(1).sum(1, dtype=torch.float64) for r in as_tuple(relevance)]).sum(0)
        gap = (total - (here - there)).abs() / torch.maximum(here.abs(), there.abs())
        details: dict[str, Any] = {"baseline": baseline}
        if chosen:
            details["chosen by the input"] = tuple(f"in {where!r}" for where in chosen)
        check = Check("summation gap", gap, 1e-4, "")
        return Attribution(relevance, details=details, checks=(check,))
