"""Reversed networks: the model's own gradient, but for ReLUs and local response normalisation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whybox.attribution.backprop import refusal
from whybox.attribution.backprop.interception import Interception
from whybox.attribution.backprop.kinds import writing
from whybox.attribution.backprop.nodes import Through
from whybox.attribution.backprop.provenance import Provenance, provenance
from whybox.attribution.backprop.table import KINDS, Handler, named, out_of_place
from whybox.core.errors import ModelError
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple, like


@dataclass(frozen=True)
class Reversal:
    """What reversed networks differ in (Mahendran & Vedaldi 2016): how the signal passes back through two layers.

    Attributes:
        masked: through a ReLU only where it was open in the forward pass, as the gradient does.
        rectified: through a ReLU only where the signal is positive.
        skips_lrn: through local response normalisation unchanged, not by its gradient.
    """

    masked: bool
    rectified: bool
    skips_lrn: bool


def reverse(task: Task, reversal: Reversal, name: str) -> Inputs:
    """What the reversed network makes, at the task's inputs, of the score's gradient; `name` is that of the method."""

    def explain(inputs: Inputs, sample: Tensor) -> Inputs:
        leaves = tuple(map(leaf, as_tuple(inputs)))
        network = ReversedNetwork(task.model.module, reversal)
        with network:
            score = network.current(task.forward(like(inputs, tuple(map(network.explain, leaves))), sample))
        if score.requires_grad and not network.rectifiers:
            raise ModelError(
                f"{name} changes nothing but the backward pass of ReLUs, and no ReLU runs between what is explained "
                "and the score: it would be the plain gradient; use gradient"
            )
        return like(inputs, task.backward(score, leaves))

    signal: Inputs = task.map(explain, task.inputs, gradient=True)
    return signal


class ReversedNetwork(Interception):
    """Lets every operation keep its own gradient while one forward pass runs, but reverses ReLUs as it is told."""

    def __init__(self, module: nn.Module, reversal: Reversal) -> None:
        super().__init__(module)
        self.reversal = reversal
        self.rectifiers = 0

    def explain(self, leaf: Tensor) -> Tensor:
        """What the model is to be given in this leaf's place."""
        with torch._C.DisableTorchFunction():
            self.leaves.append(leaf)
            x = leaf.clone()
            return self.signal(x, Provenance(x.grad_fn))

    def handler(self, function: Any) -> Handler | None:
        if function in _HANDLERS:
            return _HANDLERS[function]
        if function in refusal.NEVER or out_of_place(function) is not None:
            return None
        module = getattr(function, "__module__", None) or "torch"
        return _opaque if module.split(".")[0] != "torch" or module.startswith("torch._ops") else _native

    def through(self, back: Callable[[Tensor], Tensor], x: Tensor, value: Tensor) -> Tensor:
        """The value, from which `back` of what arrives goes straight to x."""
        output = Through.apply(back, x.expand_as(value), value)  # type: ignore[no-untyped-call]
        return self.signal(output, Provenance(output.grad_fn))

    def _answer(self, function: Any, args: Any, kwargs: Any) -> Any:
        if function is torch._C._set_grad_enabled:  # what a model computes under no_grad is a constant of the gradient
            return function(*args, **kwargs)
        return super()._answer(function, args, kwargs)


def _native(network: ReversedNetwork, function: Any, args: Any, kwargs: Any) -> Any:
    return network.native(function, args, kwargs)


def _relu(network: ReversedNetwork, function: Any, args: Any, kwargs: Any) -> Any:
    """A ReLU under any name; a clamp or maximum that is none keeps its gradient."""
    output = network.native(function, args, kwargs)
    x = rectified(function, args, kwargs)
    if x is None:
        return output
    network.rectifiers += 1
    back = _positive if network.reversal.rectified else _unchanged
    return network.through(back, output if network.reversal.masked else x, output)


def _lrn(network: ReversedNetwork, function: Any, args: Any, kwargs: Any) -> Any:
    output = network.native(function, args, kwargs)
    x = args[0] if args else kwargs["input"]
    return network.through(_unchanged, x, output) if network.reversal.skips_lrn else output


def _opaque(network: ReversedNetwork, function: Any, args: Any, kwargs: Any) -> Any:
    raise refusal.circumstance(
        f"the operation {refusal.name(function)}", network.where, "its ReLUs cannot be seen; write it out in torch"
    )


def _positive(signal: Tensor) -> Tensor:
    return signal.clamp_min(0)


def _unchanged(signal: Tensor) -> Tensor:
    return signal


_ALWAYS, _MAXIMA, _THRESHOLDS = (
    {function for name in names for function in named(name)}
    for names in (("relu", "relu6"), ("maximum", "fmax", "max"), ("threshold",))
)
_CLAMPS = {function for name in ("clamp", "clip", "clamp_min", "hardtanh") for function in named(name)}
RECTIFIERS = _ALWAYS | _MAXIMA | _THRESHOLDS | _CLAMPS
"""What may be a ReLU, by its arguments."""
_NAMES = ("input", "other", "min", "min_val", "threshold", "value")


def rectified(function: Any, args: Any, kwargs: Any) -> Tensor | None:
    """The tensor of which a call of a RECTIFIER takes the positive part, perhaps up to a highest value; else None."""
    given: list[Any] = [*args, *(kwargs[name] for name in _NAMES if name in kwargs)]
    x, *rest = given
    if function in _MAXIMA:  # max(x, dim) is none: zero is a tensor here
        x, zero = (rest[0], x) if rest and provenance(x) is None else (x, rest[0] if rest else None)
        return x if isinstance(zero, Tensor) and _is_zero(zero) else None
    floors = rest[: 2 if function in _THRESHOLDS else 1]
    return x if function in _ALWAYS or (floors and all(map(_is_zero, floors))) else None


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return provenance(value) is None and not bool(value.any())
    return isinstance(value, (int, float)) and value == 0


_HANDLERS: dict[Any, Handler] = {
    **{function: handler for function, handler in KINDS.items() if handler.__module__ == writing.__name__},
    **dict.fromkeys(RECTIFIERS, _relu),
    **dict.fromkeys((*named("rnn_relu"), *named("rnn_relu_cell"), *named("_addmm_activation")), _opaque),
    F.local_response_norm: _lrn,
}
