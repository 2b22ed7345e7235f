"""The engine: while a model's own forward runs, every operation on what depends on the input gets its rule."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whybox.attribution.backprop.composites import Composite, Operation
from whybox.attribution.backprop.interception import Interception
from whybox.attribution.backprop.nodes import Deposit, RuleNode, Stabiliser, Surrogate
from whybox.attribution.backprop.provenance import Entry, Produced, Provenance, entry_of, provenance
from whybox.attribution.backprop.rules import Rule
from whybox.attribution.backprop.sharing import LinearMap, redistribute, share_out, stabilised
from whybox.attribution.backprop.table import KINDS, Handler, handles, trust
from whybox.core.errors import InputError

__all__ = ["KINDS", "Engine", "Handler", "handles", "trust"]


class Engine(Interception):
    """Applies the rules of a composite while one forward pass runs in this thread; nothing of the model is touched.

    Use as a context around the forward pass, after `explain(leaf)` has named what the relevance is asked for. The
    score that comes out, by way of `current`, has an autograd graph whose backward is the composite's rules; the
    gradient that it gives at a leaf x is c, and x·c the relevance, to which comes the gradient at the leaf's slot, in
    the order of `slots`.

    Args:
        composite: the rules of linear maps.
        module: the model, for the names of its parts.
        unknown: "refuse" operations without a rule, or take their "gradient"; what was so taken is in `as_gradient`.
    """

    stepwise = False
    """Whether operations that torch fuses are to run in single steps even where the whole has a rule."""

    def __init__(
        self, composite: Composite, module: nn.Module, unknown: Literal["refuse", "gradient"] = "refuse"
    ) -> None:
        super().__init__(module, unknown)
        self.composite = composite
        self.slots: list[Tensor] = []
        self.operations: list[Operation] = []

    def explain(
        self,
        leaf: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
        first: bool = True,
        pixels: bool = True,
    ) -> Tensor:
        """Take this leaf as what relevance is asked for; its lowest and highest values broadcast to it."""
        if type(leaf) not in (Tensor, nn.Parameter):
            raise InputError(
                f"the input is a {type(leaf).__name__}; explain a plain tensor: .as_subclass(torch.Tensor)"
            )
        with torch._C.DisableTorchFunction():
            x = leaf.clone()
            slot = leaf.new_zeros(()).expand_as(leaf).requires_grad_()
            self.leaves.append(leaf)
            self.slots.append(slot)
            low, high = (None if bound is None else bound.detach().expand_as(leaf) for bound in (low, high))
            entry = Entry(slot.view_as(slot), low, high, first, pixels)
            return self.signal(x, Provenance(x.grad_fn, nonnegative=bool((leaf >= 0).all()), entry=entry))

    def rule(self, kind: str, record: Provenance) -> Rule:
        """The composite's rule for a linear map of this kind that runs now."""
        entry = record.entry
        first = entry is not None and entry.first
        operation = Operation(kind, self.where, first, first and entry is not None and entry.pixels)
        self.operations.append(operation)
        return self.composite.rule(operation)

    def linear(
        self,
        kind: str,
        linear: LinearMap,
        x: Tensor,
        run: Callable[[], Tensor],
        channel: int = 1,
        rule: Rule | None = None,
    ) -> Tensor:
        """A linear map with the given rule, else the one that the composite has for it. `run` computes the value."""
        record = provenance(x)
        assert record is not None
        rule = rule or self.rule(kind, record)
        if rule.at_zero:
            raw = output = self._first(linear, rule, x, record.entry, run)
        elif rule.plain:
            raw = run()
            output = Stabiliser.apply(raw, rule.epsilon) if rule.epsilon else raw  # type: ignore[no-untyped-call]
        elif rule.kind == "gradient":
            raw = output = run()
        else:
            raw = output = RuleNode.apply(run, linear, rule, x)  # type: ignore[no-untyped-call]
        self._graph.add(raw.grad_fn)
        produced = Produced(linear, x, x.grad_fn, None if raw is output else raw, channel, rule)
        self.made = self.signal(output, Provenance(output.grad_fn, produced=produced))
        return self.made

    def _first(
        self, linear: LinearMap, rule: Rule, x: Tensor, entry: Entry | None, run: Callable[[], Tensor]
    ) -> Tensor:
        """A linear map at the explained input with a rule that gives relevance to inputs of zero."""
        if entry is None:
            raise InputError(
                f"the rule {rule.label} in module {self.where!r} gives relevance to activations that are zero, which "
                "only the explained input itself can take; restrict it with Match(first=True)"
            )
        low, high = entry.low, entry.high
        if rule.kind == "box" and (low is None or high is None):
            raise InputError(
                f"the box rule in module {self.where!r} needs the bounds of its input, but the model has transformed "
                "the input before in a way that loses them; choose another rule for the first layer, as flat()"
            )

        def back(x: Tensor, _z: Tensor, relevance: Tensor) -> Tensor:
            return share_out(linear, rule, x, low, high, relevance)

        output: Tensor = Deposit.apply(run, back, x.detach(), entry.slot)  # type: ignore[no-untyped-call]
        return output

    def scale(self, linear: LinearMap, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """A linear map with one input per output that stands alone. At the explained input it is part of the entry."""
        record = provenance(x)
        assert record is not None
        if record.entry is None:
            output = self.linear("scale", linear, x, lambda: run(x))
            return self.signal(output, Provenance(output.grad_fn))
        rule = self.rule("scale", record)
        if rule.at_zero or rule.kind == "pass":
            return self.passed(lambda: run(x), x, run)
        output = self.linear("scale", linear, x, lambda: run(x))
        with torch.no_grad():
            z = output.detach()
            share = x.detach() * redistribute(linear, rule, x.detach(), z, 1 / stabilised(z, 0.0))
        return self.signal(output, Provenance(output.grad_fn, entry=self.diluted(record.entry, run, share)))

    def diluted(self, entry: Entry, run: Callable[[Tensor], Tensor], share: Tensor) -> Entry:
        """The entry behind a map with one input per output of whose relevance only a share goes to the input."""
        return entry.through(run, entry.slot * share)

    def filled(self, slot: Tensor, own: Callable[[], Tensor]) -> None:
        """Told of a slot some of whose places may be constants': `own` is one where they are the input's, else zero."""

    def decomposed(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `run` computes, each operation in it by its own rule."""
        with self:
            return run(*args, **kwargs)

    def constant(self, value: Tensor, _beside: Tensor) -> Tensor:
        """Told of a constant with a part of its own in the operation that runs; what is to be used in its place."""
        return value

    def _charge(self, x: Tensor, charge: Callable[[Tensor], dict[str, Tensor]]) -> None:
        """Told of what the operation that runs absorbs, by cause, of the c that arrives at x as it now is."""

    def surrogate(self, run: Callable[[], Tensor], stand_in: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """An operation whose value is that of `run` and whose rule is the gradient of `stand_in`."""
        output: Tensor = Surrogate.apply(run, stand_in, x)  # type: ignore[no-untyped-call]
        return output

    def passed(self, run: Callable[[], Tensor], x: Tensor, bounds: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """An operation with one input per output at the explained input: all relevance passes, on zeros too.

        `bounds` is the operation as a monotone function of the input, for the box rule; None if it is not monotone.
        """
        entry = entry_of(x)
        assert entry is not None

        def back(x: Tensor, _y: Tensor, relevance: Tensor) -> Tensor:
            return relevance.sum_to_size(x.shape)

        output = Deposit.apply(run, back, x.detach(), entry.slot)  # type: ignore[no-untyped-call]
        return self.signal(
            output, Provenance(output.grad_fn, entry=entry.through(bounds, entry.slot.expand_as(output)))
        )
