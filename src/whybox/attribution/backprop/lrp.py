"""Layer-wise relevance propagation."""

from dataclasses import dataclass

from torch import Tensor

import whybox.attribution.backprop.kinds  # noqa: F401 (fills the table)
from whybox.attribution.backprop.composites import Composite, composite
from whybox.attribution.backprop.engine import Engine
from whybox.attribution.backprop.rules import stretched
from whybox.core.method import Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each, like


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
        bounds = [domain.bounds(x) for domain, x in zip(task.domains(), as_tuple(task.inputs), strict=True)]

        def explain(inputs: Inputs, sample: Tensor) -> Inputs:
            leaves = each(lambda x: x.detach().requires_grad_(), inputs)
            engine = Engine(table, task.model.module, *bounds[0])
            with engine:
                signals = each(engine.explain, leaves)
                score = engine.current(task.forward(signals, sample))
            c = task.backward(score, as_tuple(leaves))
            return each(lambda x, c: stretched(x) * c, inputs, like(inputs, c))

        relevance: Inputs = task.map(explain, task.inputs, gradient=True)
        return relevance
