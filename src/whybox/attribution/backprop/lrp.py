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
    """Layer-wise relevance propagation."""

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
