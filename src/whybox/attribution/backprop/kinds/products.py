"""Matrix products: with a constant they are dense layers, of two signals each takes half."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.provenance import Provenance, provenance
from whybox.attribution.backprop.refusal import circumstance
from whybox.attribution.backprop.sharing import LinearMap

_SECOND = ("other", "mat2", "vec", "vec2", "tensor", "b")


@handles("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "dot", "inner", "outer", "tensordot", "kron")
def matmul(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """A product of two tensors."""
    rest = dict(kwargs)
    first = args[0] if args else rest.pop("input", None)
    second = args[1] if len(args) > 1 else next(rest.pop(name) for name in _SECOND if name in rest)

    def run(a: Tensor, b: Tensor) -> Tensor:
        value: Tensor = function(a, b, *args[2:], **rest)
        return value

    return bilinear(engine, run, first, second)


@handles(torch.einsum)
def einsum(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """A product, or a rearrangement, by Einstein's summation."""
    if not isinstance(args[0], str):
        raise circumstance("einsum with sublists", engine.where, "write the equation as a string")
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    if len(operands) == 1:
        return engine.native(function, args, kwargs)
    if len(operands) > 2:
        raise circumstance("einsum of more than two operands", engine.where, "write it as two products")
    return bilinear(engine, lambda a, b: function(equation, a, b), *operands)


@handles("addmm", "baddbmm", "addbmm", "addmv")
def matmul_and_sum(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """A matrix product with a bias."""
    rest = dict(kwargs)
    given = [
        *args[:3],
        *(rest.pop(name) for name in ("input", "batch1", "mat1", "mat", *_SECOND, "batch2") if name in rest),
    ]
    bias, first, second = given
    if provenance(bias) is not None:
        name = getattr(function, "__name__", "addmm")
        raise circumstance(f"{name} onto what depends on the input", engine.where, "write x + a @ b")
    kept = bias.detach()
    return bilinear(engine, lambda a, b: function(kept, a, b, *args[3:], **rest), first, second, kept)


def bilinear(
    engine: Engine, run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, bias: Tensor | None = None
) -> Tensor:
    """A map that is linear in each of two tensors: a dense layer if one is constant, else each takes half."""
    records = provenance(a), provenance(b)
    if records[0] is not None and records[1] is not None:
        if bias is not None:
            raise circumstance("a product of two signals with a bias", engine.where, "write x + a @ b")
        return halved(engine, engine.native(run, (a, b), {}))
    left = records[0] is not None
    x, weight = (a, b.detach()) if left else (b, a.detach())
    record = provenance(x)
    assert record is not None

    def value(x: Tensor, weight: Tensor) -> Tensor:
        return run(x, weight) if left else run(weight, x)

    def apply(x: Tensor, weight: Tensor, given: Tensor | None) -> Tensor:
        if bias is None:
            return value(x, weight)
        linear = value(x, weight) - value(torch.zeros_like(x), weight)
        return linear if given is None else linear + given

    shift = None if bias is None else value(torch.zeros_like(x.detach()), weight)
    linear = LinearMap(apply, weight, shift, record.nonnegative)
    return engine.linear("dense", linear, x, lambda: value(x, weight), channel=-1)


def halved(engine: Engine, product: Tensor, nonnegative: bool = False) -> Tensor:
    """The product of two signals, of whose relevance each takes half: c · ½ behind it."""
    output = Half.apply(product)  # type: ignore[no-untyped-call]
    return engine.signal(output, Provenance(output.grad_fn, nonnegative=nonnegative))


class Half(torch.autograd.Function):
    """Forward: nothing. Backward: half."""

    @staticmethod
    def forward(ctx: Any, product: Tensor) -> Tensor:
        return product.detach()

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        return c[0] / 2
