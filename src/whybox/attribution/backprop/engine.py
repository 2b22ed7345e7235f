"""The engine: while a model's own forward runs, every operation on what depends on the input gets its rule."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode, resolve_name

from whybox.attribution.backprop.composites import Composite, Operation
from whybox.attribution.backprop.nodes import Deposit, RuleNode, Stabiliser
from whybox.attribution.backprop.provenance import Entry, Produced, Provenance, entry_of, mapped, provenance, remember, tensors
from whybox.attribution.backprop.rules import LinearMap, Rule, redistribute, share_out, stabilised
from whybox.core.errors import InputError, ModelError

Handler = Callable[..., Any]
KINDS: dict[Any, Handler] = {}
"""The public table: torch function → handler(engine, function, arguments, keywords) → output."""


def handles(*functions: Any) -> Callable[[Handler], Handler]:
    """Register a handler for torch functions: `@handles(torch.relu, F.relu)`."""

    def register(handler: Handler) -> Handler:
        for function in functions:
            KINDS[function] = handler
        return handler

    return register


class Engine(TorchFunctionMode):
    """Intercepts every torch call of one forward pass in this thread; nothing of the model is touched.

    Use as a context around the forward pass, after `explain(leaf)` has named what the relevance is asked for. The
    score that comes out has an autograd graph whose backward is the composite's rules; the gradient that it gives at
    a leaf x is c, and x·c the relevance, to which comes the gradient at the leaf's slot, in the order of `slots`.
    """

    def __init__(self, composite: Composite, module: nn.Module) -> None:
        super().__init__()
        self.composite = composite
        self.slots: list[Tensor] = []
        self.operations: list[Operation] = []
        self._names = {id(part): name for name, part in module.named_modules()}
        self._running: list[str] = []
        self._known: set[Node] = set()
        self._replaced: dict[int, tuple[Tensor, Tensor]] = {}
        self._hooks = ExitStack()
        self._owner = threading.get_ident()
        self.blocked: list[str] = []

    def __enter__(self) -> "Engine":
        def entered(part: nn.Module, _given: Any) -> None:
            if threading.get_ident() == self._owner:
                self._running.append(self._names.get(id(part), type(part).__name__))

        def left(part: nn.Module, _given: Any, _output: Any) -> None:
            if threading.get_ident() == self._owner and self._running:
                self._running.pop()

        modules = torch.nn.modules.module
        self._hooks.callback(modules.register_module_forward_pre_hook(entered).remove)
        self._hooks.callback(modules.register_module_forward_hook(left, always_call=True).remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.close()
        super().__exit__(*error)

    @property
    def where(self) -> str:
        """The dotted path of the module that is running."""
        return self._running[-1] if self._running else ""

    def explain(
        self,
        leaf: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
        first: bool = True,
        pixels: bool = True,
    ) -> Tensor:
        """Take this leaf as what relevance is asked for; its lowest and highest values broadcast to it."""
        view = leaf.view_as(leaf)
        slot = leaf.new_zeros(()).expand_as(leaf).requires_grad_()
        self.slots.append(slot)
        low, high = (None if bound is None else bound.detach().expand_as(leaf) for bound in (low, high))
        entry = Entry(slot.view_as(slot), low, high, first, pixels)
        return self.signal(view, Provenance(view.grad_fn, nonnegative=bool((leaf >= 0).all()), entry=entry))

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._replaced:
            args, kwargs = mapped(args, self.current), mapped(kwargs, self.current)
        if not any(self.is_signal(x) for x in tensors((args, kwargs))):
            return None if function is torch._C._set_grad_enabled else function(*args, **kwargs)
        handler = KINDS.get(function)
        if handler is None:
            raise ModelError(
                f"no rule for the operation {resolve_name(function) or function} in module {self.where!r}; register "
                f"one with `@whybox.attribution.backprop.handles({getattr(function, '__name__', function)})`"
            )
        return handler(self, function, args, kwargs)

    def is_signal(self, x: Tensor) -> bool:
        """Whether the tensor depends on the explained input; refuses one that went through something unseen."""
        record = provenance(x)
        if record is not None and record.node is x.grad_fn:
            return True
        if x.grad_fn is None:
            return False
        unseen = self._unseen(x.grad_fn)
        if unseen is None:
            return False
        raise ModelError(
            f"the operation {unseen.name()} in module {self.where!r} cannot be seen: a scripted or compiled part, a "
            "user's autograd function or a reentrant checkpoint. Use the eager version of that part"
        )

    def _unseen(self, start: Node) -> Node | None:
        """The first node below `start` on a path to the explained input that the engine has not made, if any."""
        stack, seen = [start], {start}
        while stack:
            node = stack.pop()
            for following, _ in node.next_functions:
                if following in self._known:
                    return node
                if following is not None and following not in seen:
                    seen.add(following)
                    stack.append(following)
        return None

    def current(self, x: Tensor) -> Tensor:
        """What stands for this tensor since an in-place operation on it was run out of place."""
        while id(x) in self._replaced:
            x = self._replaced[id(x)][1]
        return x

    def replace(self, old: Tensor, new: Tensor) -> Tensor:
        """Let `new` stand for `old` from now on."""
        self._replaced[id(old)] = (old, new)
        return new

    def signal(self, x: Tensor, record: Provenance) -> Tensor:
        """Remember that x depends on the explained input, and how it came about."""
        if x.grad_fn is not None:
            self._known.add(x.grad_fn)
        return remember(x, record)

    def native(self, function: Any, args: Any, kwargs: Any, **facts: Any) -> Any:
        """Run the operation with torch's own backward; what does not depend on the input counts as a constant."""
        before = {x.grad_fn for x in tensors((args, kwargs)) if x.grad_fn is not None}
        args, kwargs = mapped(args, self._constant), mapped(kwargs, self._constant)
        with torch.enable_grad():
            output = function(*args, **kwargs)
        for x in tensors(output):
            if x.grad_fn is not None:
                self._learn(x.grad_fn, before)
                remember(x, Provenance(x.grad_fn, **facts))
        return output

    def _learn(self, node: Node, before: set[Node | None]) -> None:
        """Know this node and those that the operation put below it."""
        stack = [node]
        while stack:
            node = stack.pop()
            if node in self._known or node in before:
                continue
            self._known.add(node)
            stack.extend(following for following, _ in node.next_functions if following is not None)

    def _constant(self, x: Tensor) -> Tensor:
        return x if provenance(x) is not None else x.detach() if x.requires_grad else x

    def rule(self, kind: str, record: Provenance) -> Rule:
        """The composite's rule for a linear map of this kind that runs now."""
        entry = record.entry
        first = entry is not None and entry.first
        operation = Operation(kind, self.where, first, first and entry is not None and entry.pixels)
        self.operations.append(operation)
        return self.composite.rule(operation)

    def linear(self, kind: str, linear: LinearMap, x: Tensor, run: Callable[[], Tensor], channel: int = 1) -> Tensor:
        """A linear map with the rule that the composite has for it. `run` computes the model's own value."""
        record = provenance(x)
        assert record is not None
        rule = self.rule(kind, record)
        if rule.at_zero:
            raw = output = self._first(linear, rule, x, record.entry, run)
        elif rule.plain:
            with torch.enable_grad():
                raw = run()
            self._learn(raw.grad_fn, {x.grad_fn})  # type: ignore[arg-type]
            output = Stabiliser.apply(raw, rule.epsilon) if rule.epsilon else raw  # type: ignore[no-untyped-call]
        elif rule.kind == "gradient":
            with torch.enable_grad():
                raw = output = run()
        else:
            raw = output = RuleNode.apply(run, linear, rule, x)  # type: ignore[no-untyped-call]
        made: Tensor = self.signal(output, Provenance(output.grad_fn, produced=Produced(linear, x, raw, channel)))
        return made

    def _first(
        self, linear: LinearMap, rule: Rule, x: Tensor, entry: Entry | None, run: Callable[[], Tensor]
    ) -> Tensor:
        """A linear map at the explained input with a rule that gives relevance to inputs of zero."""
        if entry is None:
            raise InputError(
                f"the rule {rule.name} in module {self.where!r} gives relevance to activations that are zero, which "
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
        entry = record.entry.through(run, record.entry.slot * share)
        return self.signal(output, Provenance(output.grad_fn, entry=entry))

    def passed(self, run: Callable[[], Tensor], x: Tensor, bounds: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """An operation with one input per output at the explained input: all relevance passes, on zeros too.

        `bounds` is the operation as a monotone function of the input, for the box rule; None if it is not monotone.
        """
        entry = entry_of(x)
        assert entry is not None

        def back(x: Tensor, _y: Tensor, relevance: Tensor) -> Tensor:
            return relevance.sum_to_size(x.shape)

        output = Deposit.apply(run, back, x.detach(), entry.slot)  # type: ignore[no-untyped-call]
        return self.signal(output, Provenance(output.grad_fn, entry=entry.through(bounds, entry.slot.expand_as(output))))

