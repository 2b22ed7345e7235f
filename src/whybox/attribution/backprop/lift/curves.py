"""Elementwise operations: the Rescale rule, for several arguments by their Shapley values."""

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.kinds import activations, averages
from whybox.attribution.backprop.kinds import elementwise as sums
from whybox.attribution.backprop.lift.multipliers import Multiplied, parts_of_quotient, rectified, secant, shapley
from whybox.attribution.backprop.lift.pairs import Pairs
from whybox.attribution.backprop.provenance import Provenance, detached, mapped, provenance, tensors
from whybox.attribution.backprop.table import KINDS, named

# Beside those that the table of relevance knows.
CURVES = {
    function
    for name in (
        "__rpow__", "rsqrt", "reciprocal",
        "sign", "sgn", "round", "floor", "ceil", "trunc", "frac", "tan", "sinh", "cosh", "asinh",
        "acosh", "atanh", "asin", "acos", "erfc", "erfinv", "logit", "hypot", "atan2", "arctan2", "logaddexp",
        "logaddexp2", "heaviside", "lgamma", "digamma", "xlogy", "fmod", "remainder", "copysign", "nan_to_num",
    )
    for function in named(name)
}  # fmt: skip

REVERSED = {Tensor.__rtruediv__, Tensor.__rdiv__}


@cache
def pointwise() -> set[Any]:
    """All operations whose outputs depend on their own place alone."""
    kinds = {activations.relu, activations.activation, averages.chosen, sums.addition, sums.product, sums.quotient,
             sums.multiplied_and_added}  # fmt: skip
    known = {function for function, handler in KINDS.items() if handler in kinds}
    return known | CURVES | {function for name in ("where", "masked_fill") for function in named(name)}


def elementwise(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """Any elementwise operation. What depends on the input by a comparison counts with what is compared."""
    signals = list({id(x): x for x in tensors((args, kwargs)) if provenance(x) is not None}.values())
    places = {id(x): i for i, x in enumerate(signals)}

    def run(*values: Tensor) -> Tensor:
        def value(x: Tensor) -> Tensor:
            return values[places[id(x)]] if id(x) in places else x.detach()

        output: Tensor = function(*mapped(args, value), **mapped(kwargs, value))
        return output

    with torch.no_grad():
        xs, others = [x.detach() for x in signals], [pairs.baseline(x) for x in signals]
        value, other = run(*xs), pairs.at_baseline(function, args, kwargs)
        if len(signals) == 1:
            x, there = xs[0].expand_as(value), others[0].expand_as(value)
            multipliers = [secant(value - other, x, there, run)]
        else:
            multipliers = shapley(run, xs, others, value, other)
    return multiplied(pairs, value, other, signals, multipliers)


def relu(pairs: Pairs, _function: Any, args: Any, kwargs: Any) -> Tensor:
    """ReLU."""
    x = args[0] if args else kwargs["input"]
    a, b = detached(x), pairs.baseline(x)
    value, other = a.relu(), b.relu()
    return multiplied(pairs, value, other, [x], [rectified(value - other, a, b)])


def quotient(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """A quotient."""
    a, b = (*args, *(kwargs[name] for name in ("input", "other") if name in kwargs))[:2]
    if function in REVERSED:
        a, b = b, a
    signals = [x for x in (a, b) if provenance(x) is not None]
    if a is b or len(signals) < 2 or kwargs.get("rounding_mode") is not None:
        plain = provenance(a) is not None and not pairs.varies(b) and kwargs.get("rounding_mode") is None
        return (pairs.affine if plain else partial(elementwise, pairs))(function, args, kwargs)
    with torch.no_grad():
        here, there = (a.detach(), b.detach()), (pairs.baseline(a), pairs.baseline(b))
        multipliers = parts_of_quotient(here[0], there[0], here[1], there[1])
        value, other = here[0] / here[1], there[0] / there[1]
    return multiplied(pairs, value, other, signals, multipliers)


def multiplied(pairs: Pairs, value: Tensor, other: Tensor, signals: list[Tensor], multipliers: list[Tensor]) -> Tensor:
    """The value, of whose difference each signal takes its multiplier times its own."""
    output = Multiplied.apply(value, *signals, *multipliers)  # type: ignore[no-untyped-call]
    pairs.pair(output, other)
    return pairs.signal(output, Provenance(output.grad_fn))
