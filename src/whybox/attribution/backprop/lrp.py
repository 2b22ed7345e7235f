"""Layer-wise relevance propagation."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import whybox.attribution.backprop.kinds  # noqa: F401 (fills the table)
from whybox.attribution.backprop.composites import Composite, composite, default
from whybox.attribution.backprop.engine import Engine
from whybox.attribution.backprop.trace import Trace
from whybox.core.errors import InputError, ModelError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.model import Domain, Model
from whybox.core.start import started
from whybox.core.target import Target
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
    preparation, and what has no rule is refused by name. In recurrent nets the gates get nothing, and a cell shares
    among what it keeps and what is new (Arras et al. 2017). Signed, in the shape of the input. The score is the sum of
    the relevance and of what biases, stabilisers and constants absorb, which `trace` and `whybox.explain` report.
    With the ε rule alone and ε = 0 it equals input × gradient on a piecewise-linear net.
    Cost: one forward and one backward pass with the ε rule, up to about twice that with the others.
    Limits: scripted or compiled parts are refused. Softmax does not conserve: its offset is reported as absorbed.
    Relevance is about this decomposition: composites differ, and none of them is an intervention. LRP is described in a
    patent (Fraunhofer, TU Berlin): who sells it should take advice.
    Source: Bach, Binder, Montavon, Klauschen, Müller & Samek 2015, doi 10.1371/journal.pone.0130140; for attention
    Achtibat et al. 2024, arXiv 2402.05602; for recurrence Arras, Montavon, Müller & Samek 2017, arXiv 1706.07206.

    Args:
        composite: a name ("epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1",
            "epsilon_alpha2_beta1_flat", "epsilon_gamma_box", "deep_taylor", "excitation", "attn_lrp"), or a Composite;
            None for "epsilon" on recurrent nets, "attn_lrp" on transformers, else "epsilon_plus_flat", which `details`
            name. The flat rule is for a convolution that the input reaches first; a dense layer there would give a
            blank map.
        epsilon: the stabiliser of every denominator.
        gamma: how much more contributions of the output's sign count under the γ rule.
        unknown: "refuse" an operation without a rule, or take its "gradient"; `details` then say where.
    """

    composite: str | Composite | None = None
    epsilon: float = 1e-6
    gamma: float = 0.25
    unknown: Literal["refuse", "gradient"] = "refuse"

    def __post_init__(self) -> None:
        if self.unknown not in ("refuse", "gradient"):
            raise InputError(f"unknown is 'refuse' or 'gradient', not {self.unknown!r}")
        if self.composite is not None:
            self._table(self.composite)

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Attribution:
        chosen = self.composite or default(task.model.module)
        table = self._table(chosen)
        notes: dict[str, dict[str, None]] = {}

        def explain(inputs: Inputs, sample: Tensor) -> tuple[Tensor, Inputs]:
            engine = Engine(table, task.model.module, self.unknown)
            score, relevance = self._relevance(task, engine, inputs, sample)
            for name, where in engine.as_gradient:
                notes.setdefault("taken by gradient", {})[f"{name} in {where!r}"] = None
            for where in engine.blocked:
                notes.setdefault("detached", {})[f"in {where!r}"] = None
            return score.detach(), relevance

        scores, relevance = task.map(explain, task.inputs, gradient=True)
        finite = torch.stack(
            [torch.isfinite(r).flatten(1).all(1).cpu() for r in (scores[:, None], *as_tuple(relevance))]
        )
        finite = finite.all(0)
        if not bool(finite.all()):
            _blame(self._trace(task, int((~finite).nonzero()[0])))
        named = {} if self.composite else {"composite": chosen}
        return Attribution(relevance, details={**named, **{what: tuple(places) for what, places in notes.items()}})

    def trace(self, model: Model | nn.Module, inputs: Inputs, target: Any = None, **options: Any) -> Trace:
        """Where the relevance goes: for each operation what arrives, is handed on, and is absorbed by which cause.

        Args:
            model, inputs, target, options: as in `run`.

        Cost: a few times that of `run`; samples go through the model one by one, and all values inside are kept.
        """
        with started(model, inputs, target, **options) as task:
            return Trace.joined(self._traces(task))

    def evidence(
        self, model: Model, inputs: Inputs, target: Target, **options: Any
    ) -> tuple[dict[str, Any], tuple[Check, ...]]:
        with started(model, inputs, target, **options) as task:
            traces = self._traces(task)
        says = (
            "|Score − sum of the relevance − all that biases, stabilisers and constants took|, as a share of the "
            "largest sum of magnitudes on the way; likewise at each operation, of which the worst counts. A failure "
            "means that relevance went where the rules do not account for it."
        )
        gap = torch.cat([torch.maximum(trace.total_gap, trace.gap.amax(1)) for trace in traces])
        check = Check("conservation gap", gap, 1e-3, says)
        try:
            return Trace.joined(traces).details(), (check,)
        except ModelError:  # no table is common to samples that go different ways through the model
            return {}, (check,)

    def _table(self, chosen: str | Composite) -> Composite:
        return composite(chosen, self.epsilon, self.gamma) if isinstance(chosen, str) else chosen

    def _traces(self, task: Task) -> list[Trace]:
        return [self._trace(task, sample) for sample in range(task.size)]

    def _trace(self, task: Task, sample: int) -> Trace:
        from whybox.attribution.backprop.traced import TracedEngine

        rows = torch.tensor([sample])
        table = self._table(self.composite or default(task.model.module))
        engine = TracedEngine(table, task.model.module, self.unknown)
        inputs = each(lambda x: x[sample : sample + 1], task.inputs)
        score, relevance = self._relevance(task, engine, inputs, rows)
        return engine.trace(score, torch.stack([r.sum(dtype=torch.float64) for r in as_tuple(relevance)]).sum())

    def _relevance(self, task: Task, engine: Engine, inputs: Inputs, sample: Tensor) -> tuple[Tensor, Inputs]:
        """The scores of these variants, and the relevance by this engine."""
        leaves = as_tuple(each(lambda x: x.detach().requires_grad_(), inputs))
        with engine:
            signals = (
                engine.explain(x, *domain.bounds(x), first=task.at is None, pixels=pixels(x, domain))
                for x, domain in zip(leaves, task.domains(), strict=True)
            )
            score = engine.current(task.forward(like(inputs, tuple(signals)), sample))
        if isinstance(self.composite, Composite):
            self.composite.check(engine.operations)
        back = task.backward(score, (*leaves, *engine.slots))
        c, r = back[: len(leaves)], back[len(leaves) :]
        return score, like(inputs, tuple(x.detach() * c + r for x, c, r in zip(leaves, c, r, strict=True)))


def _blame(trace: Trace) -> None:
    """Name the operation where relevance stopped to be finite."""
    step = trace.not_finite[0]
    if step is not None:
        raise ModelError(
            f"relevance became NaN or infinite at the operation {step.name} in module {step.module!r}: what it divides "
            "by is zero or its derivative is infinite there; give the composite a larger epsilon, or change the "
            "operation (as x / (y + eps))"
        )
