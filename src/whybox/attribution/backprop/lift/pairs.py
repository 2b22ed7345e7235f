"""Two runs in one: every torch call of a forward pass is made for the input's values and for the baseline's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from whybox.attribution.backprop import refusal
from whybox.attribution.backprop.inplace import become, same_view
from whybox.attribution.backprop.interception import Interception
from whybox.attribution.backprop.nodes import Through
from whybox.attribution.backprop.provenance import Provenance, mapped, tensors

_NAME = "_whybox_baseline"
_AUGMENTED = {f"__{name}__" for name in ("setitem", "iadd", "isub", "imul", "itruediv", "iand", "ior", "ixor", "ipow")}


class Pairs(Interception):
    """Keeps, beside every tensor that depends on the input, the tensor that the baseline has in its place.

    Operations run on both, also those that work in place, so that what shares memory here shares it there; masks and
    indices have their own values there too. What is the baseline's has no history: relevance flows on the one side
    only. Subclasses say what carries it, by handlers.
    """

    stepwise = True
    """Operations that torch fuses run in single steps."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.chosen: list[str] = []  # modules where the input decides by an index what is taken
        self._run = object()
        self._given: list[Tensor] = []

    def explain(self, leaf: Tensor, baseline: Tensor) -> Tensor:
        """What the model is to be given in this leaf's place."""
        with torch._C.DisableTorchFunction():
            self.leaves.append(leaf)
            x, one = leaf.clone(), baseline[:1]
            same = len(baseline) > 1 and bool((baseline == one).all())
            self._keep(x, one.clone().expand_as(x) if same else torch.empty_like(x.detach()).copy_(baseline))
            return self.signal(x, Provenance(x.grad_fn))

    def baseline(self, x: Any) -> Any:
        """The same tensor in the baseline's run; what does not depend on the input is the same in both."""
        if not isinstance(x, Tensor):
            return x
        own = self._kept(x)
        if own is not None:
            return own
        base = x._base
        if base is None or self._kept(base) is None:
            return x
        return self._keep(x, same_view(self._laid_out(base), base, x))

    def _kept(self, x: Tensor) -> Tensor | None:
        kept = x.__dict__.get(_NAME)
        return kept[1] if kept is not None and kept[0] is self._run else None

    def _laid_out(self, base: Tensor) -> Tensor:
        """What the baseline has in this tensor's place, in memory of the same layout, as views need it."""
        whole = self._kept(base)
        assert whole is not None
        if whole.stride() != base.stride():
            whole = self._keep(base, torch.empty_strided(base.size(), base.stride()).to(whole).copy_(whole))
            for view in self._memory.views(base):
                self._keep(view, same_view(whole, base, view))
        return whole

    def varies(self, x: Any) -> bool:
        """Whether the value depends on the input."""
        return self.baseline(x) is not x

    def at_baseline(self, function: Any, args: Any, kwargs: Any) -> Any:
        """The operation in the baseline's run, for a single row where all rows are the same."""
        with torch.no_grad():
            rows = self._rows(function, args, kwargs) if self.rowwise(function) else 0
            if rows > 1:
                output = function(*mapped(args, self._first_row), **mapped(kwargs, self._first_row))
                if all(len(x) == 1 for x in tensors(output)):
                    return mapped(output, lambda x: x.expand(rows, *x.shape[1:]))
            return function(*mapped(args, self.baseline), **mapped(kwargs, self.baseline))

    def rowwise(self, function: Any) -> bool:
        """Whether every row of the output comes of the same row of what depends on the input."""
        return False

    def _rows(self, function: Any, *given: Any) -> int:
        """How many rows the arguments have in the baseline's run, all of them the same; 0 where they are not.

        What does not depend on the input is a weight or broadcasts, but in `cat`.
        """
        varying = [self.baseline(x) for x in tensors(given) if self.varies(x)]
        repeated, others = [x for x in varying if _repeats(x)], [x for x in varying if x.ndim and not _repeats(x)]
        if len({(len(x), x.ndim) for x in repeated}) != 1:
            return 0
        rows, axes = repeated[0].shape[0], repeated[0].ndim
        alike = all(len(x) != rows or x.ndim < axes for x in others) and all(x.ndim <= axes for x in tensors(given))
        return rows if alike and (function is not torch.cat or all(map(self.varies, tensors(given)))) else 0

    def _first_row(self, x: Any) -> Any:
        there = self.baseline(x)
        return there[:1] if self.varies(x) and _repeats(there) else there

    def pair(self, output: Any, other: Any) -> Any:
        """The output of an operation, beside which is kept what it is at the baseline.

        A mask or an index that is the same in both runs counts as a constant.
        """
        for x, there in zip(tensors(output), tensors(other), strict=True):
            if x is not there and (x.grad_fn is not None or not torch.equal(x, there)):
                self._keep(x, there)
        return output

    def affine(self, function: Any, args: Any, kwargs: Any) -> Any:
        """An operation whose own gradient is its multiplier."""
        return self.pair(self.native(function, args, kwargs), self.at_baseline(function, args, kwargs))

    def stand_in(self, carrier: Tensor, value: Tensor, other: Tensor) -> Tensor:
        """The value, whose multipliers are the gradients of the carrier."""
        output = Through.apply(_unchanged, carrier, value)  # type: ignore[no-untyped-call]
        self._keep(output, other)
        return self.signal(output, Provenance(output.grad_fn))

    def decomposed(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `run` computes, each operation in it by its own multipliers."""
        with self:
            return run(*args, **kwargs)

    def own(self, x: Tensor) -> Tensor:
        """The tensor to write into in the baseline's run: made where there was none, sharing memory as x does."""
        base = x if x._base is None else x._base
        if self._kept(base) is None:
            self._given.append(base)
            self._keep(base, base.detach().clone())
        self._laid_out(base)
        kept: Tensor = self.baseline(x)
        return kept

    def write(self, x: Tensor, value: Tensor) -> Tensor:
        if value is not x:
            there = self.baseline(value)
            alone = x._base is None and not self._memory.views(x)
            if alone and there is not value and there.dtype == x.dtype:
                self._keep(x, there)
            else:
                self.own(x).copy_(there.detach())
        return super().write(x, value)

    def _keep(self, x: Tensor, other: Tensor) -> Tensor:
        setattr(x, _NAME, (self._run, other))
        return other

    def _answer(self, function: Any, args: Any, kwargs: Any) -> Any:
        if self._any_signal((args, kwargs)):
            return super()._answer(function, args, kwargs)
        if not any(self.varies(x) for x in tensors((args, kwargs))):
            return super()._answer(function, args, kwargs)
        if _inplace(getattr(function, "__name__", "")):
            self.own(args[0])
        other = self.at_baseline(function, args, kwargs)
        return self.pair(function(*args, **kwargs), other)

    def _unseen_signal(self, x: Tensor) -> bool:
        found = super()._unseen_signal(x)
        if found and not self.varies(x):  # what somebody trusts has run for the input alone
            node = x.grad_fn
            if node is not None and not isinstance(node, refusal.Refused._backward_cls):
                become(x, self._refuse(refusal.unseen(node, self.where), x))
            self._keep(x, torch.full_like(x.detach(), torch.nan))  # unknown, but not the same as here
        return found

    def _without_rule(self, function: Any, args: Any, kwargs: Any) -> Any:
        """An operation that has no handler: a question, if it gives no numbers, else refused where c arrives."""
        if function in refusal.NEVER:
            raise refusal.circumstance("a gradient that the model takes", self.where, "it has no multiplier")
        output = function(*args, **kwargs)
        made = [x for x in tensors(output) if x.is_floating_point() or x.is_complex()]
        if not made:
            asked = next(tensors(output), None) is None
            return output if asked else self.pair(output, self.at_baseline(function, args, kwargs))
        if len(made) == 1 and made[0] is output and any(output is x for x in tensors((args, kwargs))):
            return output
        what = f"the operation {refusal.name(function)}"
        error = refusal.circumstance(what, self.where, "no multiplier is known for it; write it out in others")
        if any(x.is_complex() for x in made):
            raise error
        output = mapped(output, lambda x: self._refuse(str(error), x) if any(x is y for y in made) else x)
        return self.pair(output, self.at_baseline(function, args, kwargs))

    def _clean(self) -> None:
        for x in self._given:
            x.__dict__.pop(_NAME, None)
        self._given.clear()
        super()._clean()


def _inplace(name: str) -> bool:
    return name in _AUGMENTED or (name.endswith("_") and not name.endswith("__"))


def _repeats(x: Tensor) -> bool:
    """Whether all rows are one and the same place in memory."""
    return x.ndim > 0 and len(x) > 1 and x.stride(0) == 0


def _unchanged(c: Tensor) -> Tensor:
    return c
