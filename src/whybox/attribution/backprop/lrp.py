"""Layer-wise relevance propagation."""

from dataclasses import dataclass

from torch import Tensor

import whybox.attribution.backprop.kinds  # noqa: F401 (fills the table)
from whybox.attribution.backprop.composites import Composite, composite
from whybox.attribution.backprop.engine import Engine
from whybox.core.method import Method, Taxonomy
from whybox.core.model import Domain
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each, like


def pixels(x: Tensor, domain: Domain) -> bool:
    """Whether the values are bounded by a known domain, as pixels are; pictures are taken to be so."""
    return x.ndim > 3 or domain.source != "measured on the batch"


@dataclass(frozen=True)
class LRP(Method):
    """Relevance R_i = Σ_j (share of input i in output j) · R_j: the score, shared out operation by operation.

    What an input's share is says the composite's rule for the operation; sums, products, pooling, normalisation and
    shape operations have rules of their own, so residual, concatenated, gated and reused parts are right without any
    preparation, and what has no rule is refused by name. Signed, in the shape of the input. With the ε rule alone and
    ε = 0 it equals input × gradient on a piecewise-linear net.
    Cost: one forward and one backward pass with the ε rule, up to about twice that with the others.
    Limits: attention, recurrence, and scripted or compiled parts are refused; what biases and stabilisers take is not
    reported yet, so the sum may differ from the score. LRP is described in a patent (Fraunhofer, TU Berlin): who sells
    it should take advice.
    Source: Bach, Binder, Montavon, Klauschen, Müller & Samek 2015, doi 10.1371/journal.pone.0130140.

    Args:
        composite: a name ("epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1",
            "epsilon_alpha2_beta1_flat", "epsilon_gamma_box", "deep_taylor", "excitation"), or a Composite.
        epsilon: the stabiliser of every denominator.
        gamma: how much more contributions of the output's sign count under the γ rule.
    """

    composite: str | Composite = "epsilon_plus_flat"
    epsilon: float = 1e-6
    gamma: float = 0.25

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Inputs:
        table = self.composite
        table = composite(table, self.epsilon, self.gamma) if isinstance(table, str) else table
        own = isinstance(self.composite, Composite)

        def explain(inputs: Inputs, sample: Tensor) -> Inputs:
            leaves = as_tuple(each(lambda x: x.detach().requires_grad_(), inputs))
            engine = Engine(table, task.model.module)
            with engine:
                signals = (
                    engine.explain(x, *domain.bounds(x), first=task.at is None, pixels=pixels(x, domain))
                    for x, domain in zip(leaves, task.domains(), strict=True)
                )
                score = engine.current(task.forward(like(inputs, tuple(signals)), sample))
            if own:
                table.check(engine.operations)
            back = task.backward(score, (*leaves, *engine.slots))
            c, r = back[: len(leaves)], back[len(leaves) :]
            return like(inputs, tuple(x.detach() * c + r for x, c, r in zip(leaves, c, r, strict=True)))

        relevance: Inputs = task.map(explain, task.inputs, gradient=True)
        return relevance
