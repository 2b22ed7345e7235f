"""Interception: every torch call on what depends on the explained input is seen, answered or refused."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from whybox.attribution.backprop import refusal
from whybox.attribution.backprop.graph import Graph, is_view
from whybox.attribution.backprop.inplace import Memory, become, private_among, renew, through, written
from whybox.attribution.backprop.provenance import Provenance, forget, mapped, provenance, remember, tensors
from whybox.attribution.backprop.running import Running, inside_compiled
from whybox.attribution.backprop.table import KINDS, TRUSTED, Handler, out_of_place, strip_inplace
from whybox.core.errors import ModelError

_Getter = type(Tensor.shape.__get__)  # type: ignore[attr-defined]
_Self = TypeVar("_Self", bound="Interception")


class Interception(TorchFunctionMode):
    """Intercepts every torch call of one forward pass in this thread and hands it to the table's handler.

    It knows which tensors depend on the explained input, refuses what it cannot see or has no handler for, and lets
    operations in place be in place. Nothing of the model is touched.
    """

    def __init__(self, module: nn.Module, unknown: Literal["refuse", "gradient"] = "refuse") -> None:
        super().__init__()
        for name, part in module.named_modules():
            if type(part).__name__ == "OptimizedModule" or part._compiled_call_impl is not None:
                raise refusal.compiled(name)
        self._dynamo = sys.modules.get("torch._dynamo")
        self.unknown = unknown
        self.leaves: list[Tensor] = []
        self.blocked: list[str] = []
        self.as_gradient: list[tuple[str, str]] = []
        self._buffers = tuple(module.buffers())
        self._running = Running(module)
        self._graph = Graph()
        self._memory = Memory()
        self._marked: list[Tensor] = []
        self.made: Tensor | None = None  # by the last operation; nothing needs its values but rules, where c arrives
        self.overwritable: Tensor | None = None
        self._contexts = ExitStack()
        self._entered = 0

    def __enter__(self: _Self) -> _Self:
        if not self._entered:
            if self._dynamo is not None:  # a compiled function would compile the engine as well
                self._answer = self._dynamo.disable(self._answer)  # type: ignore[method-assign]
            self._contexts.enter_context(torch.enable_grad())
            self._contexts.enter_context(self._running.watched(self._check_output))
            self._contexts.callback(self._clean)
        self._entered += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._entered -= 1
        if not self._entered:
            self._contexts.close()

    def _clean(self) -> None:
        """Leave nothing behind on tensors that are not the engine's own."""
        for x in self._marked:
            forget(x)
        for buffer in self._buffers:
            if buffer.grad_fn is not None:
                buffer.detach_()
        self.__dict__.pop("_answer", None)
        self._marked.clear()
        self._memory.clear()
        self._graph.clear()
        self.made = self.overwritable = None

    @property
    def where(self) -> str:
        """The dotted path of the module that is running."""
        return self._running.where

    @property
    def layer(self) -> str | None:
        """The type of torch.nn's own layer that is running; "" in any other module, None outside the model."""
        return self._running.layer

    def current(self, score: Tensor) -> Tensor:
        """The score, once it is sure that nothing unseen has happened to it."""
        with torch._C.DisableTorchFunction():
            self.is_signal(score)
            return score

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._answer(function, args, kwargs or {})

    def _answer(self, function: Any, args: Any, kwargs: Any) -> Any:
        if type(function) is _Getter and function not in KINDS:
            return function(*args, **kwargs)
        if not self._any_signal(args) and not (kwargs and self._any_signal(kwargs.values())):
            return None if function is torch._C._set_grad_enabled else function(*args, **kwargs)
        unseen = TRUSTED or self.unknown == "gradient"  # what is not seen may have read the tensor meanwhile
        self.made, self.overwritable = None, None if unseen else self.made
        if not torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)  # inside an autograd function, which the walk over the graph will find
        self._check_circumstances()
        if torch._C._autograd._top_saved_tensors_default_hooks(False) is None:
            return self._dispatch(function, args, kwargs)
        with saved_tensors_hooks(Tensor.detach, lambda x: x):  # what checkpoints would make anew stays as it is
            return self._dispatch(function, args, kwargs)

    def handler(self, function: Any) -> Handler | None:
        """What answers a torch function; None for what works in place and for what has no rule."""
        return KINDS.get(function)

    def _dispatch(self, function: Any, args: Any, kwargs: Any, inplace: bool = False) -> Any:
        handler = self.handler(function)
        if handler is None:
            plain = out_of_place(function)
            if plain is not None:
                return self._dispatch(plain, args, kwargs, inplace=True)
            handler = type(self)._without_rule
        elif kwargs.get("out") is not None:
            raise refusal.circumstance("an operation with out=", self.where, "use what the operation returns")
        asked, args, kwargs = strip_inplace(function, args, kwargs)
        inplace |= asked
        if not inplace:
            self.overwritable = None
        private = private_among((args, kwargs))
        output = handler(self, function, args, kwargs)
        for base, record in private:
            if provenance(base) is record:  # it has been read, not written into: the operation may have saved it
                remember(base, replace(record, private=False))
        return self.write(args[0] if args else kwargs["input"], output) if inplace else output

    def _any_signal(self, values: Any) -> bool:
        for x in values:
            if isinstance(x, Tensor):
                if self.is_signal(x):
                    return True
            elif isinstance(x, (tuple, list)):
                if self._any_signal(x):
                    return True
            elif isinstance(x, dict) and self._any_signal(x.values()):
                return True
        return False

    def is_signal(self, x: Tensor) -> bool:
        """Whether the tensor depends on the explained input; one that went through something unseen is refused."""
        node = x.grad_fn
        if node is None:
            return self._wrapped_signal(x)
        record = provenance(x)
        if record is not None and record.node is node:
            return True
        if node in self._graph:  # a view whose history autograd has made anew
            remember(x, Provenance(node))
            return True
        return self._unseen_signal(x)

    def _unseen_signal(self, x: Tensor) -> bool:
        """The same for a tensor whose node nobody has answered for."""
        start = x.grad_fn
        assert start is not None
        while (node := self._graph.unseen(start)) is not None:
            if x._is_view() and is_view(x):
                node = start
            elif self.unknown == "gradient":
                self.as_gradient.append((node.name(), self.where))
            elif node.name() not in TRUSTED:
                become(x, self._refuse(refusal.unseen(node, self.where), x))
                return True
            self._graph.add(node)
            if node is start:
                self.signal(x, Provenance(node))
                return True
        return False

    def _wrapped_signal(self, x: Tensor) -> bool:
        """Inside a transform of torch.func the tensors that depend on the input are wrapped."""
        if torch._C._are_functorch_transforms_active():
            while torch._C._functorch.is_functorch_wrapped_tensor(x):
                x = torch._C._functorch.get_unwrapped(x)
            if x.grad_fn is not None and x.grad_fn in self._graph:
                raise refusal.circumstance(
                    "a transform of torch.func", self.where, "write out vmap as batched operations"
                )
        return False

    def _check_circumstances(self) -> None:
        """Refuse modes under which the model's own values cannot be followed."""
        if torch.is_inference_mode_enabled():
            raise refusal.circumstance("inference_mode", self.where, "use torch.no_grad in the model instead")
        if self._dynamo and inside_compiled():
            raise refusal.compiled(self.where)
        if torch._C._is_any_autocast_enabled():
            raise refusal.circumstance("autocast", self.where, "run the model in one dtype")

    def _check_output(self, output: Any) -> None:
        with torch._C.DisableTorchFunction():
            for x in tensors(output):
                self.is_signal(x)

    def _without_rule(self, function: Any, args: Any, kwargs: Any) -> Any:
        """An operation that is not in the table: a question, if it gives no numbers, else refused or by gradient."""
        if function in refusal.NEVER:
            raise refusal.circumstance("a gradient that the model takes", self.where, "the rules would change it")
        output = function(*args, **kwargs)
        made = [x for x in tensors(output) if x.is_floating_point() or x.is_complex()]
        if not made or (len(made) == 1 and made[0] is output and any(output is x for x in tensors((args, kwargs)))):
            return output
        if self.unknown == "gradient":
            self.as_gradient.append((refusal.name(function), self.where))
            for x in made:
                if x.grad_fn is not None:
                    self.signal(x, Provenance(x.grad_fn))
            return output
        message = self.no_rule(function)
        if any(x.is_complex() for x in made):
            raise ModelError(message)
        return mapped(output, lambda x: self._refuse(message, x) if any(x is y for y in made) else x)

    def no_rule(self, function: Any) -> str:
        """What to say of an operation without a rule."""
        return refusal.unknown(function, self.where)

    def _refuse(self, message: str, x: Tensor) -> Tensor:
        output = refusal.Refused.apply(message, x.detach(), *self.leaves)  # type: ignore[no-untyped-call]
        return self.signal(output, Provenance(output.grad_fn))

    def signal(self, x: Tensor, record: Provenance) -> Tensor:
        """Remember that x depends on the explained input, and how it came about."""
        if type(x) is not Tensor:
            raise refusal.circumstance(f"a tensor of type {type(x).__name__}", self.where, "use plain tensors")
        self._graph.add(x.grad_fn)
        if x._is_view():
            self._memory.note(x)
        return remember(x, record)

    def native(self, function: Any, args: Any, kwargs: Any, **facts: Any) -> Any:
        """Run the operation with torch's own backward; what does not depend on the input counts as a constant."""
        output = function(*mapped(args, _constant), **mapped(kwargs, _constant))
        for x in tensors(output):
            node, known = x.grad_fn, provenance(x)
            if node is not None and (known is None or known.node is not node):  # else it is one of the arguments
                self.signal(x, Provenance(node, **facts))
        return output

    def write(self, x: Tensor, value: Tensor) -> Tensor:
        """Give x, in place, a value that was computed out of place."""
        if value is x:
            return x
        base = x._base
        if base is None and self.is_signal(x) and not self._memory.views(x):
            become(x, value)
            self._graph.add(x.grad_fn)
            self.made = x if self.made is value else None
            return x
        return self.put(x, lambda x, value: x.copy_(value), value)

    def put(self, x: Tensor, put: Callable[[Tensor, Any], Any], value: Any) -> Tensor:
        """Write the value into x in place by `put(x, value)`; what shares memory with x sees it."""
        base = x if x._base is None else x._base
        views = self._memory.views(base)
        if x is not base and not any(x is view for view in views):
            views.append(x)
        record = provenance(base)
        if record is None:
            self._marked += [base, *views]
        elif not record.private:
            renew(base, views)
        entry = written(base, x, put, value)
        put(x, value)
        new = provenance(value)
        nonnegative = record is not None and record.nonnegative and new is not None and new.nonnegative
        for part in (base, *views):
            if part.grad_fn is not None:
                self._graph.add(part.grad_fn)
                remember(part, Provenance(part.grad_fn, False, nonnegative, through(entry, base, part), private=True))
        return x


def _constant(x: Tensor) -> Tensor:
    return x.detach() if x.requires_grad and provenance(x) is None else x
