"""RevealCancel: the positive and the negative part of every difference have multipliers of their own.

Beside a tensor x, whose difference from the baseline is Δx = Δx⁺ + Δx⁻, goes its negative part Δx⁻, as a tensor with a
history. With multipliers m⁺ and m⁻ of the parts, m⁺ Δx⁺ + m⁻ Δx⁻ = m⁺ Δx + (m⁻ − m⁺) Δx⁻: so m⁺ travels back from x and
m⁻ − m⁺ from its negative part, and an operation that knows of no parts need do nothing. Where none has been noted, the
negative part is Δx where that is below zero.
"""

from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.kinds import averages, elementwise, products
from whybox.attribution.backprop.lift import curves, maps, ratios
from whybox.attribution.backprop.lift.multipliers import Multiplied, negligible, slope
from whybox.attribution.backprop.lift.pairs import Pairs
from whybox.attribution.backprop.provenance import mapped, provenance, tensors
from whybox.attribution.backprop.sharing import clamped
from whybox.attribution.backprop.table import KINDS, Handler, named

_NAME = "_whybox_negative"
# Functions that have a value everywhere; others could be asked for it where they have none.
_EVERYWHERE = {
    function
    for name in (
        "relu", "elu", "selu", "celu", "leaky_relu", "softplus", "softsign", "hardsigmoid", "hardtanh", "relu6",
        "logsigmoid", "sigmoid", "expit", "tanh", "clamp", "clip", "clamp_min", "clamp_max", "erf", "atan", "arctan",
        "asinh", "gelu", "silu", "mish", "rrelu", "prelu", "tanhshrink", "hardswish", "softshrink", "hardshrink",
        "threshold",
    )
    for function in named(name)
}  # fmt: skip


def weighted(plain: Handler, pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """A linear map: each input counts with the part of the output that its contribution has the sign of."""
    if KINDS.get(function) is elementwise.product:
        return scaled(plain, pairs, function, args, kwargs)
    output = plain(pairs, function, args, kwargs)
    x = _only(pairs, args, kwargs)
    if x is None:
        return output
    step = _step(pairs, x)

    def part(value: Tensor, sign: int) -> Any:
        def put(y: Tensor) -> Tensor:
            return value if y is x else clamped(y.detach(), sign)

        return function(*mapped(args, put), **mapped(kwargs, put))

    kind = KINDS.get(function)
    if kind in (products.matmul, products.einsum):
        negative = part((step + step.abs()) / 2, -1) + part((step - step.abs()) / 2, 1)
    elif kind is products.matmul_and_sum:
        zero = torch.zeros_like(step)
        above, below = part((step + step.abs()) / 2, -1) - part(zero, -1), part((step - step.abs()) / 2, 1)
        negative = above + below - part(zero, 1)
    else:
        args = (*args[:2], *(None for _ in args[2:3]), *args[3:])  # without the bias
        kwargs = {name: value for name, value in kwargs.items() if name != "bias"}
        negative = part((step + step.abs()) / 2, -1) + part((step - step.abs()) / 2, 1)
    return _keep(output, negative)


def scaled(plain: Handler, pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """Sums, and what has one input per output: both parts go through, and change sides where the factor is negative."""
    output = plain(pairs, function, args, kwargs)
    signals = _signals(args, kwargs)
    if KINDS.get(function) is not elementwise.addition:
        x = _only(pairs, args, kwargs)
        below = args[0] if function in curves.REVERSED else args[1] if len(args) > 1 else kwargs.get("other")
        if x is None or (KINDS.get(function) is elementwise.quotient and below is x):
            return output
    if (len(signals) == 1 and _noted(signals[0]) is None) or not all(
        provenance(x) for x in _varying(pairs, args, kwargs)
    ):
        return output
    zeros = {id(x): torch.zeros_like(x.detach()) for x in signals}

    def value(changed: dict[int, Tensor]) -> Tensor:
        given = {**zeros, **changed}
        with torch.no_grad():
            result: Tensor = function(
                *mapped(args, lambda x: given.get(id(x), x.detach())),
                **mapped(kwargs, lambda x: given.get(id(x), x.detach())),
            )
        return result

    start, negative = value({}), torch.zeros((), dtype=output.dtype, device=output.device)
    for x in signals:
        factor, part = value({id(x): torch.ones_like(zeros[id(x)])}) - start, _negative(pairs, x)
        negative = negative + factor * torch.where(factor < 0, _step(pairs, x) - part, part)
    return _keep(output, negative)


def carried(plain: Handler, pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """Averages, and what moves values about: both parts do as the whole does."""
    if KINDS.get(function) is elementwise.addition:
        return scaled(plain, pairs, function, args, kwargs)
    output = plain(pairs, function, args, kwargs)
    signals = _signals(args, kwargs)
    if KINDS.get(function) not in (averages.average, averages.resampling) and all(_noted(x) is None for x in signals):
        return output
    if not all(provenance(x) for x in _varying(pairs, args, kwargs)):
        return output
    parts = {id(x): _negative(pairs, x) for x in signals}
    zeros = {id(x): torch.zeros_like(x.detach()) for x in signals}
    there, none = (
        function(*mapped(args, put), **mapped(kwargs, put))
        for put in (lambda x: parts.get(id(x), x.detach()), lambda x: zeros.get(id(x), x.detach()))
    )
    for x, part, constant in zip(tensors(output), tensors(there), tensors(none), strict=True):
        if provenance(x) is not None:
            _keep(x, part - constant)
    return output


def curve(plain: Handler, pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """An activation: what the positive part adds, before the negative one and after it, on average; and likewise."""
    x = _only(pairs, args, kwargs)
    negative = None if x is None else _noted(x)
    if function not in _EVERYWHERE or x is None or negative is None:
        return plain(pairs, function, args, kwargs)

    def run(value: Tensor) -> Tensor:
        def put(y: Tensor) -> Tensor:
            return value if y is x else y.detach()

        output: Tensor = function(*mapped(args, put), **mapped(kwargs, put))
        return output

    with torch.no_grad():
        a, b, n = x.detach(), pairs.baseline(x), negative.detach()
        p = a - b - n
        value, other, up, down = run(a), run(b), run(b + p), run(b + n)
        rises, falls = (up - other + value - down) / 2, (down - other + value - up) / 2
        above, below = (slope(rise, step, negligible(step, a, b), run, a) for rise, step in ((rises, p), (falls, n)))
    output = curves.multiplied(pairs, value, other, [x, negative], [above, below - above])
    return _keep(output, Multiplied.apply(falls, negative, below))  # type: ignore[no-untyped-call]


def noted(x: Tensor) -> Any:
    """What `follow` takes from one tensor to another that gets its value and history."""
    return x.__dict__.get(_NAME)


def follow(x: Tensor, kept: Any) -> None:
    """Let x have the parts of the tensor whose history it has been given."""
    setattr(x, _NAME, kept)


def _noted(x: Tensor) -> Tensor | None:
    kept = x.__dict__.get(_NAME)
    return kept[1] if kept is not None and kept[0] is x.grad_fn else None


def _keep(x: Tensor, negative: Tensor) -> Tensor:
    setattr(x, _NAME, (x.grad_fn, negative))
    return x


def _negative(pairs: Pairs, x: Tensor) -> Tensor:
    kept, step = _noted(x), _step(pairs, x)
    return (step - step.abs()) / 2 if kept is None else kept


def _step(pairs: Pairs, x: Tensor) -> Tensor:
    step: Tensor = x - pairs.baseline(x)
    return step


def _signals(args: Any, kwargs: Any) -> list[Tensor]:
    return list({id(x): x for x in tensors((args, kwargs)) if provenance(x) is not None}.values())


def _varying(pairs: Pairs, args: Any, kwargs: Any) -> list[Tensor]:
    return [x for x in tensors((args, kwargs)) if pairs.varies(x)]


def _only(pairs: Pairs, args: Any, kwargs: Any) -> Tensor | None:
    """The one argument that depends on the input, if there is but one and it carries relevance."""
    varying = _varying(pairs, args, kwargs)
    return varying[0] if len(varying) == 1 and provenance(varying[0]) is not None else None


HANDLERS: dict[Handler, Any] = {
    maps.affine: carried,
    maps.quadratic: weighted,
    curves.elementwise: curve,
    curves.relu: curve,
    curves.quotient: scaled,
    ratios.batch_norm: scaled,
}
"""What each handler is wrapped in; the others know of no parts."""
