"""The autograd functions that carry relevance backward.

What travels backward is c = R / a, relevance per unit of activation, not R itself: then sums, pooling, matrix products
and shape operations are plain autograd, and only operations with a rule of their own need a node. At the input R = x·c.

The explained input may get relevance where it is zero too (a black pixel, by the flat rule). This travels as R, as the
gradient of a slot: a tensor of zeros that goes along with the input as far as the first linear map (`Entry`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from whybox.attribution.backprop.rules import Rule
from whybox.attribution.backprop.sharing import LinearMap, redistribute

StandIn = Callable[..., Tensor]


class Surrogate(torch.autograd.Function):
    """Forward: the operation itself, bit for bit. Backward: the gradient of a stand-in with the rule built in."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], Tensor], stand_in: StandIn, *signals: Tensor) -> Tensor:
        ctx.stand_in = stand_in
        ctx.save_for_backward(*signals)
        return run()

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            value = ctx.stand_in(*leaves)
        return None, None, *torch.autograd.grad(value, leaves, c[0])


class Stabiliser(torch.autograd.Function):
    """Forward: nothing. Backward: c·|z| / (|z| + ε), the ε rule's share, with the sign of zero taken as +."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, epsilon: float) -> Tensor:
        ctx.epsilon = epsilon
        ctx.save_for_backward(z)
        return z.detach()

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        (z,) = ctx.saved_tensors
        below = z.abs().add_(ctx.epsilon)
        return torch.addcdiv(c[0], c[0], below, value=-ctx.epsilon, out=below), None


class Overwriting(torch.autograd.Function):
    """ReLU in the memory of its input, which the rule before it has saved: where the two differ no c arrives."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        with _unsafe_preserve_version_counter(z):
            output = torch.relu_(z.detach())
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        (output,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(c[0], output, 0)


class RuleNode(torch.autograd.Function):
    """Forward: a linear map's own value, bit for bit. Backward: its rule."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], Tensor], linear: LinearMap, rule: Rule, x: Tensor) -> Tensor:
        value = run()
        ctx.linear, ctx.rule = linear, rule
        ctx.save_for_backward(x, value)
        return value

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        x, z = ctx.saved_tensors
        return None, None, None, redistribute(ctx.linear, ctx.rule, x, z, c[0])


class Deposit(torch.autograd.Function):
    """Forward: the operation itself, bit for bit. Backward: `back` makes R at the input from (input, output, R)."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], Tensor], back: StandIn, x: Tensor, slot: Tensor) -> Tensor:
        value = run()
        ctx.back = back
        ctx.save_for_backward(x, value)
        return value

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        x, value = ctx.saved_tensors
        return None, None, None, ctx.back(x, value, c[0] * value)


class Through(torch.autograd.Function):
    """Forward: the given value. Backward: `back` of what arrives, straight to x, whatever made the value of it."""

    @staticmethod
    def forward(ctx: Any, back: Callable[[Tensor], Tensor], x: Tensor, value: Tensor) -> Tensor:
        ctx.back = back
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        return None, ctx.back(c[0]), None
