"""Multipliers: differences of what comes out, per difference of what goes in."""

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Tensor]


class Multiplied(torch.autograd.Function):
    """Forward: the given value. Backward: c times each signal's multiplier."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *signals_and_multipliers: Tensor) -> Tensor:
        count = len(signals_and_multipliers) // 2
        ctx.shapes = [x.shape for x in signals_and_multipliers[:count]]
        ctx.save_for_backward(*signals_and_multipliers[count:])
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        back = [(c[0] * m).sum_to_size(shape) for m, shape in zip(ctx.saved_tensors, ctx.shapes, strict=True)]
        return None, *back, *(None,) * len(back)


def negligible(step: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """Where a difference is nothing but rounding, so that a quotient with it says nothing."""
    return ~(step.abs() > 16 * torch.finfo(x.dtype).eps * torch.maximum(x.abs(), other.abs()))


def secant(rise: Tensor, x: Tensor, other: Tensor, function: Function) -> Tensor:
    """rise / (x − other), and the derivative of the elementwise function at x where these are the same."""
    return slope(rise, x - other, negligible(x - other, x, other), function, x)


def slope(rise: Tensor, step: Tensor, same: Tensor, function: Function, at: Tensor) -> Tensor:
    """rise / step, and where the step is the same as none the derivative of the elementwise function."""
    found = rise / step
    return torch.where(same, derivative(function, at), found) if bool(same.any()) else found


def derivative(function: Function, x: Tensor) -> Tensor:
    """The derivative of an elementwise function; where it is infinite, or there is none, zero."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = function(leaf)
        if not value.requires_grad:
            return torch.zeros_like(x)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return slope.nan_to_num_(0.0, 0.0, 0.0)


def rectified(rise: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """The same for ReLU, whose quotient is exact wherever there is a difference at all."""
    step = x - other
    return torch.where(step == 0, (x > 0).to(x.dtype), rise / step)


def shapley(function: Function, xs: list[Tensor], others: list[Tensor], value: Tensor, other: Tensor) -> list[Tensor]:
    """The multiplier of each argument of an elementwise function: its Shapley value per difference of its own.

    The Shapley value is what the argument adds as it goes from its baseline to x, averaged over all orders in which
    the arguments do so. The values add up to `value`, with all at x, less `other`, with all at their baselines.
    """
    count = len(xs)
    values = {frozenset(): other, frozenset(range(count)): value}
    for size in range(1, count):
        for some in combinations(range(count), size):
            values[frozenset(some)] = function(*(xs[i] if i in some else others[i] for i in range(count)))
    return [_share(i, values, function, xs, others) for i in range(count)]


def _share(
    i: int, values: dict[frozenset[int], Tensor], function: Function, xs: list[Tensor], others: list[Tensor]
) -> Tensor:
    count, rise = len(xs), torch.zeros_like(values[frozenset()])
    for present, without in values.items():
        if i not in present:
            rise += (values[present | {i}] - without) / (count * comb(count - 1, len(present)))

    def alone(x: Tensor) -> Tensor:
        return function(*((a + b) / 2 if j != i else x for j, (a, b) in enumerate(zip(xs, others, strict=True))))

    return secant(rise, xs[i].expand_as(rise), others[i].expand_as(rise), alone)


def logarithmic_mean(s: Tensor, other: Tensor, step: Tensor) -> Tensor:
    """(s − other) / step of positive numbers, where step = log s − log other; without cancellation, zero at zero."""
    distance = torch.where(s == other, 0, step.abs())
    shrunk = torch.where(distance == 0, 1, -torch.expm1(-distance) / torch.where(distance == 0, 1, distance))
    return torch.maximum(s, other) * shrunk


def parts_of_product(a: Tensor, a_other: Tensor, b: Tensor, b_other: Tensor, weight: Tensor) -> list[Tensor]:
    """The multipliers of a · b, with a weight for the order in which a changes last: a half gives Shapley values."""
    return [weight * b + (1 - weight) * b_other, weight * a_other + (1 - weight) * a]


def parts_of_quotient(a: Tensor, a_other: Tensor, b: Tensor, b_other: Tensor) -> list[Tensor]:
    """The multipliers of a / b.

    Where b keeps its sign they solve Δa = b̄ Δq + q̄ Δb, the Shapley values of the product a = q · b, with the means of
    both runs: Δq = (Δa − q̄ Δb) / b̄. The Shapley values of the quotient itself have 1/b and 1/b′ in them, of which one
    is huge where the baseline is blank and b a deviation. They are taken where b changes its sign.
    """
    weight = torch.where(b * b_other > 0, b / (b + b_other), 0.5)
    above, inverse = parts_of_product(a, a_other, 1 / b, 1 / b_other, weight)
    return [above, -inverse / (b * b_other)]
