"""The engine with a ledger: the same rules, and what passes through every operation is booked."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop import refusal
from whybox.attribution.backprop.absorbed import Charge, by_offset, by_rule, by_spreading, tangents
from whybox.attribution.backprop.engine import Engine
from whybox.attribution.backprop.inplace import same_view
from whybox.attribution.backprop.kinds import activations, averages, elementwise, products
from whybox.attribution.backprop.nodes import Through
from whybox.attribution.backprop.provenance import Entry, Provenance, entry_of, mapped, provenance, tensors
from whybox.attribution.backprop.rules import Rule
from whybox.attribution.backprop.sharing import LinearMap
from whybox.attribution.backprop.table import Handler, out_of_place
from whybox.attribution.backprop.trace import Account, Ledger, Step, Trace, on_arrival

_HOMOGENEOUS: tuple[Handler, ...] = (
    activations.relu, activations.spread_and_mean, averages.average, averages.resampling,
    averages.dropout, elementwise.product, elementwise.quotient, products.matmul, products.einsum,
)  # fmt: skip
_CAUSES: dict[Any, str] = {activations.softmax: "softmax", activations.logarithm_of_softmax: "softmax"}


class TracedEngine(Engine):
    """Applies the rules as the engine does, over a batch of one sample, and books each operation's relevance.

    Cost: the values of all tensors are kept, and each operation is run once more for what it absorbs.
    """

    stepwise = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ledger = Ledger()
        self._handler: Handler | None = None
        self._rule = self._function = self._within = ""
        self._charges: list[tuple[tuple[Any, int], Charge]] = []  # by node: a tensor may yet be written into
        self._makers: dict[Any, int] = {}  # autograd node of a tensor → the step that made it

    def explain(self, leaf: Tensor, *bounds: Any, **options: Any) -> Tensor:
        x = super().explain(leaf, *bounds, **options)
        entry = entry_of(x)
        assert entry is not None
        with torch._C.DisableTorchFunction():
            self.ledger.know(x, x.detach().clone())
            self.ledger.know(entry.slot, None)
        return x

    def _dispatch(self, function: Any, args: Any, kwargs: Any, inplace: bool = False) -> Any:
        if self._handler is not None:  # a part of the operation that is running
            return super()._dispatch(function, args, kwargs, inplace)
        self._function = refusal.name(function)
        self._handler = self.handler(function) or self.handler(out_of_place(function)) or _unknown
        given = [x.grad_fn for x in tensors((args, kwargs)) if provenance(x) is not None]
        inputs = tuple(self._makers.get(node, -1) for node in given)
        try:
            output = super()._dispatch(function, args, kwargs, inplace)
            self._book(inputs, [x for x in tensors((output, args, kwargs)) if provenance(x) is not None])
        finally:
            self._handler, self._rule = None, ""
            self._charges.clear()
        return output

    def _book(self, inputs: tuple[int, ...], signals: list[Tensor]) -> None:
        """Open an account for the operation that has just run, if it made anything."""
        assert self._handler is not None
        kind = self._handler.__name__.lstrip("_")
        step = Step(self._function, self.where, kind, self._rule, self.layer, inputs, self._within)
        made = [self._written(x) for x in signals]
        outputs: list[tuple[Tensor, Tensor | None]] = [(x, x.detach().clone()) for x in made]
        outputs += [(entry.slot, None) for x in made if (entry := entry_of(x)) is not None]
        account = self.ledger.open(step, outputs)
        if account is None:
            return
        for x in signals:
            self._makers.setdefault(x.grad_fn, len(self.ledger.accounts) - 1)
        for edge, charge in self._charges:
            on_arrival(edge, partial(account.absorb, charge))

    def _charge(self, x: Tensor, charge: Charge) -> None:
        """Let the operation that is running absorb this of the relevance that arrives at x as it now is."""
        self._charges.append(((x.grad_fn, x.output_nr), charge))

    def _written(self, x: Tensor) -> Tensor:
        """What the operation has written, where it wrote into a view: all that shares the memory is made from that."""
        base = x._base
        return x if base is None or provenance(base) is None or self.ledger.knows(base) else base

    def rule(self, kind: str, record: Provenance) -> Rule:
        chosen = super().rule(kind, record)
        self._rule = chosen.label
        return chosen

    def linear(
        self,
        kind: str,
        linear: LinearMap,
        x: Tensor,
        run: Callable[[], Tensor],
        channel: int = 1,
        rule: Rule | None = None,
    ) -> Tensor:
        record = provenance(x)
        assert record is not None
        rule = rule or self.rule(kind, record)
        self._rule = rule.label
        if rule.plain and linear.scale is not None:  # from its own input, not through the map that it is folded into
            weight = linear.weight
            run = lambda: linear.apply(x, weight, linear.bias)  # noqa: E731
        output = super().linear(kind, linear, x, run, channel, rule)
        a, z, entry = x.detach().clone(), output.detach().clone(), record.entry
        if rule.at_zero and entry is not None:
            self._charge(output, by_spreading(linear, rule, a, z, entry.low, entry.high))
        else:
            self._charge(output, by_rule(linear, rule, a, z))
        return output

    def diluted(self, entry: Entry, run: Callable[[Tensor], Tensor], share: Tensor) -> Entry:
        after = super().diluted(entry, run, share)
        self._charge(after.slot, lambda r: {"bias": r * (1 - share)})
        return after

    def filled(self, slot: Tensor, own: Callable[[], Tensor]) -> None:
        constant = 1 - own()
        self._charge(slot, lambda r: {"constant": r * constant})

    def constant(self, value: Tensor, beside: Tensor) -> Tensor:
        value = Through.apply(lambda _: torch.zeros_like(beside), beside, value)  # type: ignore[no-untyped-call]
        self._charge(value, lambda c: {"constant": c * value.detach()})
        return value

    def native(self, function: Any, args: Any, kwargs: Any, **facts: Any) -> Any:
        output = super().native(function, args, kwargs, **facts)
        if self._handler not in _HOMOGENEOUS:
            self._charge_offset(_CAUSES.get(self._handler, "constant"), function, args, kwargs, output)
        return output

    def decomposed(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        around = self._handler, self._rule, self._charges, self._function, self._within
        self._handler, self._rule, self._charges = None, "", []  # each operation inside is a step of its own
        self._within = self._within or self._function
        try:
            return super().decomposed(run, *args, **kwargs)
        finally:
            self._handler, self._rule, self._charges, self._function, self._within = around

    def surrogate(self, run: Callable[[], Tensor], stand_in: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        output = super().surrogate(run, stand_in, x)
        self._charge(output, by_offset("bias", output.detach().clone(), *tangents(stand_in, [x])))
        return output

    def put(self, x: Tensor, put: Callable[[Tensor, Any], Any], value: Any) -> Tensor:
        base = x if x._base is None else x._base
        after = (base if provenance(base) is not None else torch.zeros_like(base)).detach().clone()
        given = value.detach() if isinstance(value, Tensor) else 0.0
        put(same_view(after, base, x), given if provenance(value) is not None else given * 0)
        output = super().put(x, put, value)
        self._charge(base, by_offset("constant", base.detach().clone(), after))
        entry = entry_of(base)
        if entry is not None:
            own = torch.ones_like(base)
            put(same_view(own, base, x), given * 0 + (0.0 if entry_of(value) is None else 1.0))
            self.filled(entry.slot, lambda: own)
        return output

    def _without_rule(self, function: Any, args: Any, kwargs: Any) -> Any:
        output = super()._without_rule(function, args, kwargs)
        if self.unknown == "gradient":
            self._charge_offset("unknown", function, args, kwargs, output)
        return output

    def _charge_offset(self, cause: str, function: Any, args: Any, kwargs: Any, output: Any) -> None:
        signals = [x for x in tensors((args, kwargs)) if provenance(x) is not None]
        places = {id(x): i for i, x in enumerate(signals)}
        made = [x for x in tensors(output) if provenance(x) is not None and id(x) not in places]
        if not made:
            return

        def of(*duals: Tensor) -> Any:
            def put(x: Tensor) -> Tensor:
                return duals[places[id(x)]] if id(x) in places else x.detach()

            return list(tensors(function(*mapped(args, put), **mapped(kwargs, put))))

        try:
            found = tangents(of, signals)
        except NotImplementedError:  # no forward derivative: what it may absorb shows as a gap
            return
        for x, tangent in zip(tensors(output), found, strict=True):
            if any(x is y for y in made):
                self._charge(x, by_offset(cause, x.detach().clone(), tangent))

    def trace(self, score: Tensor, relevance: Tensor) -> Trace:
        """What has been booked, once the relevance (a sum) has been computed from this score (1,)."""
        accounts = self.ledger.accounts

        def row(values: list[float]) -> Tensor:
            return torch.tensor([values], dtype=torch.float64)

        return Trace(
            tuple(account.step for account in accounts),
            row([account.at_output for account in accounts]),
            row([account.at_input for account in accounts]),
            {cause: row([account.absorbed[cause] for account in accounts]) for cause in accounts[0].absorbed},
            row([max(account.out_size, account.in_size) for account in accounts]),
            score.detach().double().cpu().reshape(1),
            relevance.detach().double().cpu().reshape(1),
            (next((a.step for a in (*(a for a in accounts if a.is_nan), *_spoiling(accounts))), None),),
        )


def _spoiling(accounts: list[Account]) -> Iterator[Account]:
    """Where relevance became NaN or infinite, in the order of the backward pass."""
    return (account for account in reversed(accounts) if account.spoils)


def _unknown() -> None:
    """Stands for an operation that the table does not have."""
