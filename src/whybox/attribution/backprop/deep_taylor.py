"""Deep Taylor decomposition."""

from dataclasses import dataclass
from typing import Any

from whybox.attribution.backprop.lrp import LRP
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.model import Model
from whybox.core.target import Target
from whybox.core.task import Task
from whybox.core.tree import Inputs


@dataclass(frozen=True)
class DeepTaylor(Method):
    """Relevance R_i = Σ_j (x_i w⁺_ij / Σ_i′ x_i′ w⁺_i′j) · R_j: a first-order Taylor expansion of every neuron.

    LRP with the z⁺ rule at every layer but the first: there zB, (x w − l w⁺ − h w⁻) over its sum, for pixels between l
    and h, and w², w²_ij / Σ_i′ w²_i′j, for real values whose domain is not known. Equals LRP(composite="deep_taylor").
    In the shape of the input; on a plain ReLU net non-negative where the score is positive, and without biases its sum
    is the score.
    Cost: one forward and one backward pass, which takes up to about twice as long as the gradient's.
    Limits: those of LRP; derived for ReLU nets without positive biases. Blind to evidence against: each layer passes
    relevance on to what contributes positively only.
    Source: Montavon, Lapuschkin, Binder, Samek & Müller 2017, doi 10.1016/j.patcog.2016.11.008.
    """

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Attribution:
        return LRP("deep_taylor").attribute(task)

    def evidence(
        self, model: Model, inputs: Inputs, target: Target, **options: Any
    ) -> tuple[dict[str, Any], tuple[Check, ...]]:
        return LRP("deep_taylor").evidence(model, inputs, target, **options)
