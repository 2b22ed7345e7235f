"""Linear maps by name: each may be met with a backward pass of its own, while all else keeps its gradient."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whybox.attribution.backprop import refusal
from whybox.attribution.backprop.composites import Composite
from whybox.attribution.backprop.engine import Engine
from whybox.attribution.backprop.graph import Node
from whybox.attribution.backprop.kinds import activations, averages, elementwise, linear, products, shapes, writing
from whybox.attribution.backprop.nodes import Through
from whybox.attribution.backprop.provenance import Produced, Provenance, mapped, provenance, tensors
from whybox.attribution.backprop.reversal import RECTIFIERS, rectified
from whybox.attribution.backprop.rules import Rule
from whybox.attribution.backprop.sharing import LinearMap
from whybox.attribution.backprop.table import KINDS, Handler, named

Back = Callable[[Tensor], Tensor]
"""From what arrives at an operation's output to what goes on to its input."""


class Maps(Engine):
    """Gives every linear map that runs in the model a name, and asks what its backward pass is to be.

    A map has the name of the module in which it runs ("features.0"); the second one there, or the same run again, is
    "features.0:2". One with a batch norm folded in has both names, "conv1+bn1". A sum of two branches is a linear map
    too, with the weights 1 and 1 for each channel (axis 1), and has the name of the module that adds.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(Composite(), module)
        self._runs: Counter[str] = Counter()
        self._makers: dict[Node, str] = {}

    def met(self, name: str, linear: LinearMap, x: Tensor, z: Tensor, channel: int) -> Back:
        """The backward pass of the map of this name, which has made z from x; its outputs lie along axis `channel`."""
        raise NotImplementedError

    def met_scale(self, _weight: Tensor) -> Back:
        """The backward pass of a map with one input per output and this weight, which broadcasts against both."""
        return lambda c: c

    def met_rectifier(self, _name: str) -> None:
        """Told of a map whose output a ReLU takes in."""

    def explain(self, leaf: Tensor, *_bounds: Any, **_options: Any) -> Tensor:
        """What the model is to be given in this leaf's place."""
        with torch._C.DisableTorchFunction():
            self.leaves.append(leaf)
            x = leaf.clone()
            return self.signal(x, Provenance(x.grad_fn))

    def handler(self, function: Any) -> Handler | None:
        known = KINDS.get(function)
        if known is None or known in _WRITING:
            return known
        return _unchanged if self.layer is None else _ANSWERS.get(known)  # outside the model the target picks its score

    def no_rule(self, function: Any) -> str:
        return str(
            refusal.circumstance(
                f"the operation {refusal.name(function)}",
                self.where,
                "patterns are those of linear and convolutional layers, of batch norm and of sums of two branches",
            )
        )

    def linear(
        self,
        kind: str,
        linear: LinearMap,
        x: Tensor,
        run: Callable[[], Tensor],
        channel: int = 1,
        rule: Rule | None = None,
    ) -> Tensor:
        """A linear map with weights; `rule` has the name of the map into which a batch norm is folded here."""
        if linear.layout is None:
            raise refusal.circumstance("a dense layer of a single output", self.where, "give its weight two axes")
        if rule is None:
            self._runs[self.where] += 1
            again = self._runs[self.where]
            name = self.where if again == 1 else f"{self.where}:{again}"
        else:
            name = f"{rule.label}+{self.where}"
        with torch.no_grad():
            z = run()
        output = self.through(self.met(name, linear, x.detach(), z, channel), x, z)
        self._makers[output.grad_fn] = name
        produced = Produced(linear, x, x.grad_fn, None, channel, Rule(name))
        return self.signal(output, Provenance(output.grad_fn, produced=produced))

    def scale(self, linear: LinearMap, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        return self.through(self.met_scale(linear.weight), x, run(x.detach()))

    def through(self, back: Back, x: Tensor, value: Tensor) -> Tensor:
        """The value, from which `back` of what arrives goes straight to x."""
        output = Through.apply(back, x, value)  # type: ignore[no-untyped-call]
        return self.signal(output, Provenance(output.grad_fn))

    def maker(self, x: Tensor) -> str | None:
        """The name of the map whose output this is, perhaps rearranged or the largest of it."""
        return self._makers.get(x.grad_fn)

    def same(self, x: Tensor, outputs: Any) -> None:
        """Say that these are values of x."""
        name = self.maker(x)
        if name is not None:
            self._makers |= {output.grad_fn: name for output in tensors(outputs) if output.grad_fn is not None}


def _signals(args: Any, kwargs: Any) -> list[Tensor]:
    return [x for x in tensors((args, kwargs)) if provenance(x) is not None]


def _unchanged(maps: Maps, function: Any, args: Any, kwargs: Any) -> Any:
    x = rectified(function, args, kwargs) if function in RECTIFIERS else None
    name = None if x is None else maps.maker(x)
    if name is not None:
        maps.met_rectifier(name)
    return maps.native(function, args, kwargs)


def _chosen(maps: Maps, function: Any, args: Any, kwargs: Any) -> Any:
    """What picks some of its input's values: a ReLU behind it is one of the map before it."""
    output = _unchanged(maps, function, args, kwargs)
    signals = _signals(args, kwargs)
    if len(signals) == 1:
        maps.same(signals[0], output)
    return output


def _scaled(maps: Maps, function: Any, args: Any, kwargs: Any) -> Any:
    """A product with a constant, a quotient, a shift: one input per output."""
    signals = _signals(args, kwargs)
    x = signals[0]
    below = KINDS[function] is elementwise.quotient and (function in _REVERSED or x is not (*args, *kwargs.values())[0])
    if len(signals) > 1 or below:
        return maps._without_rule(function, args, kwargs)

    def run(value: Tensor) -> Tensor:
        def put(given: Tensor) -> Tensor:
            return value if given is x else given.detach()

        result: Tensor = function(*mapped(args, put), **mapped(kwargs, put))
        return result

    with torch.no_grad():
        weight = run(torch.ones_like(x)) - run(torch.zeros_like(x))
    back = maps.met_scale(weight)
    return maps.through(lambda c: back(c).sum_to_size(x.shape), x, run(x.detach()))


def _sum(maps: Maps, function: Any, args: Any, kwargs: Any) -> Any:
    """Two branches are one input of a linear map, stacked, with a weight for each of them and each channel."""
    if len(_signals(args, kwargs)) < 2:
        return _scaled(maps, function, args, kwargs)
    a, b, rest = elementwise.two(args, kwargs)
    if a.ndim == b.ndim == 1:
        columns = tuple(maps.native(torch.unsqueeze, (branch, 1), {}) for branch in (a, b))
        return maps.native(torch.squeeze, (_sum(maps, function, columns, rest), 1), {})
    x = torch.stack(torch.broadcast_tensors(a, b))
    maps.signal(x, Provenance(x.grad_fn))
    with torch.no_grad():
        one, none = a.new_ones(()), a.new_zeros(())
        weight = torch.stack((function(one, none, **rest), function(none, one, **rest)))
    outputs = [-1 if axis == 1 else 1 for axis in range(x.ndim - 1)]

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        value = (x * weight.T.reshape(2, *outputs)).sum(0)
        return value if bias is None else value + bias.view(outputs)

    added = LinearMap(apply, weight.expand(x.shape[2], 2), None, layout="dense")
    return maps.linear("sum", added, x, lambda: function(a, b, **rest))


def _matmul(maps: Maps, function: Any, args: Any, kwargs: Any) -> Any:
    """x @ W with a constant matrix W is a dense layer."""
    x, weight = args if len(args) == 2 else (None, None)
    if function not in _MATMULS or provenance(weight) is not None or not isinstance(weight, Tensor) or weight.ndim != 2:
        return maps._without_rule(function, args, kwargs)
    return linear.dense(maps, F.linear, (x, weight.mT), {})


_MATMULS = {function for name in ("matmul", "__matmul__", "mm") for function in named(name)}
_REVERSED = {Tensor.__rtruediv__, Tensor.__rdiv__}
_WRITING = {handler for handler in KINDS.values() if handler.__module__ == writing.__name__}
_OWN = (linear.convolution, linear.transposed_convolution, linear.dense, linear.batch_norm, shapes.question)
_NATIVE = (
    activations.relu, activations.activation, activations.softmax, activations.logarithm_of_softmax, averages.chosen,
    averages.average, averages.resampling, shapes.pad, shapes.selection,
)  # fmt: skip
_ANSWERS: dict[Handler, Handler] = {
    **{handler: handler for handler in _OWN},
    **dict.fromkeys(_NATIVE, _unchanged),
    **dict.fromkeys((averages.winner, averages.dropout, shapes.rearrangement), _chosen),
    **dict.fromkeys((elementwise.product, elementwise.quotient), _scaled),
    elementwise.addition: _sum,
    products.matmul: _matmul,
}
"""What stands in the table for an operation → what is done with it here; nothing for what is refused."""
