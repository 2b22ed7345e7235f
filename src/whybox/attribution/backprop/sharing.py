"""Sharing relevance among the inputs of a linear map: the one interpreter of all rules.

Relevance travels as c = R / a, per unit of activation (see `nodes`); only what falls on the explained input itself by a
rule that asks for nothing of the input's value travels as R.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.rules import Group, Mix, Rule


@dataclass(frozen=True)
class LinearMap:
    """z = apply(x, weight, bias).

    Attributes:
        apply: (input, weight, bias or None) → output; linear in the input and in the weight.
        own: the weight as the model has it.
        bias: the bias in the form that `apply` takes, or None; that of a batch norm folded in is in it.
        nonnegative: whether the input is known to be ≥ 0.
        layout: where weight and input keep their channels, for the rules that stack or merge them; None: unknown.
        scale: what a batch norm folded in multiplies the weight by, broadcasting against it; None: nothing.
    """

    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    own: Tensor
    bias: Tensor | None
    nonnegative: bool = False
    layout: Literal["convolution", "transposed", "dense"] | None = None
    scale: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The weight that counts, made when a rule asks for it: kept, it would take as much memory as the model."""
        return self.own if self.scale is None else self.own * self.scale

    def per_output(self, values: Tensor) -> Tensor:
        """One value for each output channel (outputs,), so that it broadcasts against the weight."""
        axes = self.own.ndim
        if self.layout != "transposed":
            return values.view(-1, *(1,) * (axes - 1))
        inputs, groups = len(self.own), len(values) // self.own.shape[1]
        spread = values.view(groups, 1, -1).expand(groups, inputs // groups, -1)
        return spread.reshape(inputs, -1, *(1,) * (axes - 2))

    def by_output(self, values: Tensor, outputs: int) -> Tensor:
        """The sums of values in the weight's shape over what each output channel has of them (outputs,)."""
        owner = self.per_output(torch.arange(outputs, device=values.device)).expand_as(values)
        return values.new_zeros(outputs).index_add_(0, owner.flatten(), values.flatten())


def redistribute(linear: LinearMap, rule: Rule, x: Tensor, z: Tensor, c: Tensor) -> Tensor:
    """c at the input from c at the output z, by a rule of kind "input" or "pass"."""
    if rule.kind == "pass":
        return torch.where(x.abs() < torch.finfo(x.dtype).tiny, 0, c * z / x)
    parts = [_group(linear, rule, group, x, z, c) for group in rule.groups if _acts(group, z, c)]
    return reduce(torch.add, parts) if parts else torch.zeros_like(x)


def share_out(
    linear: LinearMap, rule: Rule, x: Tensor, low: Tensor | None, high: Tensor | None, relevance: Tensor
) -> Tensor:
    """R at the input from R at the output, by a rule that asks for nothing of the input's value or for its domain."""
    if rule.kind == "box":
        assert low is not None
        assert high is not None
        return _box(linear, rule, x, low, high, relevance)
    if rule.kind == "flat" and linear.layout is not None:
        return _flat(linear, x, relevance)
    return _by_weight(linear, rule, x, relevance)


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """z moved away from zero by epsilon; with ε = 0 an exact zero gives relevance to nobody."""
    if epsilon == 0:
        return torch.where(z == 0, torch.inf, z)
    step = z.new_full((), epsilon)  # in z's dtype: two plain numbers would make float32
    return torch.where(z < 0, -step, step).add_(z)


def clamped(weight: Tensor, sign: int) -> Tensor:
    """The positive (sign = 1) or negative (−1) part of a weight."""
    return weight.clamp_min(0) if sign > 0 else weight.clamp_max(0)


def _mixed(value: Tensor, mix: Mix) -> Tensor:
    """p·value⁺ + n·value⁻."""
    p, n = mix
    if p == 0:
        return clamped(value if n == 1 else n * value, -1)
    scaled = value if p == 1 else p * value
    return scaled if p == n else F.leaky_relu(scaled, n / p)


def _acts(group: Group, z: Tensor, c: Tensor) -> bool:
    """Whether relevance reaches the outputs that the group is for; behind a ReLU none arrives where z ≤ 0."""
    return group.where != "z<=0" or bool(clamped(z, -1).mul_(c).count_nonzero())


def _group(linear: LinearMap, rule: Rule, group: Group, x: Tensor, z: Tensor, c: Tensor) -> Tensor:
    """One group's share of c at the input."""
    bias = None if linear.bias is None else _mixed(linear.bias, group.bias)
    one_sided = linear.nonnegative or group.positive == group.negative
    parts = [x.detach()] if one_sided else [clamped(x.detach(), sign) for sign in (1, -1)]
    weight, mixes = linear.weight, (group.positive, group.negative)[: len(parts)]
    total, back = _run(linear, parts, [_mixed(weight, mix) for mix in mixes], bias)
    on = z if group.where == "all" else clamped(z, 1 if group.where == "z>0" else -1)
    sign = group.sign if rule.epsilon else 0
    below = total.abs_().add_(rule.epsilon) if sign else stabilised(total, rule.epsilon)
    gradients = back(torch.div(c * on, below, out=below))  # where nothing needs the sum any more
    factor = group.factor * (sign or 1)
    share = gradients[0] if one_sided else torch.where(x > 0, gradients[0], gradients[1])
    return share if factor == 1 else share.mul_(factor)


def _run(
    linear: LinearMap, parts: list[Tensor], weights: list[Tensor], bias: Tensor | None
) -> tuple[Tensor, Callable[[Tensor], Sequence[Tensor]]]:
    """The sum of the parts' outputs, each with its own weight, and its transpose: back to the parts."""
    axis = {"dense": parts[0].ndim - 1, "convolution": 1}.get(linear.layout or "")
    stacks = len(parts) > 1 and axis is not None and parts[0].shape[axis] == linear.own.shape[1]  # not if grouped
    if stacks:  # in a single pass
        parts, weights = [torch.cat(parts, axis or 0)], [torch.cat(weights, 1)]
    with torch.enable_grad():
        leaves = [part.requires_grad_() for part in parts]
        biases = (bias, *(None,) * len(parts))
        total = reduce(torch.add, [linear.apply(*each) for each in zip(leaves, weights, biases, strict=False)])

    def back(share: Tensor) -> Sequence[Tensor]:
        gradients = torch.autograd.grad(total, leaves, share)
        return gradients[0].chunk(2, axis or 0) if stacks else gradients

    return total.detach(), back


def _by_weight(linear: LinearMap, rule: Rule, x: Tensor, relevance: Tensor) -> Tensor:
    """Flat and w²: R_i from the weights alone; at padding only the inputs inside count."""
    return _spread(linear, torch.ones_like(linear.own) if rule.kind == "flat" else linear.weight.square(), x, relevance)


def _flat(linear: LinearMap, x: Tensor, relevance: Tensor) -> Tensor:
    """The flat rule on one channel a group: all channels of a position get the same."""
    axis = x.ndim - 1 if linear.layout == "dense" else 1
    weight, outputs = linear.own, relevance.shape[axis]
    groups = {"dense": 1, "convolution": x.shape[axis] // weight.shape[1], "transposed": outputs // weight.shape[1]}
    count = groups[linear.layout or "dense"]
    alike = x.shape[axis] // count
    merged = relevance.unflatten(axis, (count, outputs // count)).sum(axis + 1) / alike
    kernel = weight.new_ones((count, 1, *weight.shape[2:]))
    one = x.unflatten(axis, (count, alike)).select(axis + 1, 0)
    shares = _spread(linear, kernel, one, merged)
    return shares.unsqueeze(axis + 1).expand_as(x.unflatten(axis, (count, alike))).flatten(axis, axis + 1)


def _spread(linear: LinearMap, weight: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
    """Σ_j weight_ij / Σ_i weight_ij · R_j; an output without any weight hands nothing on."""
    total, back = _run(linear, [torch.ones_like(x)], [weight], None)
    return back(relevance / stabilised(total, 0.0))[0]


def _box(linear: LinearMap, rule: Rule, x: Tensor, low: Tensor, high: Tensor, relevance: Tensor) -> Tensor:
    """zB: a w − l w⁺ − h w⁻ = (a − l) w⁺ + (a − h) w⁻ over its sum, no bias."""
    distances = [x.detach() - low.detach(), x.detach() - high.detach()]
    total, back = _run(linear, distances, [clamped(linear.weight, sign) for sign in (1, -1)], None)
    below = stabilised(total, rule.epsilon)
    gradients = back(torch.div(relevance, below, out=below))
    return reduce(torch.add, [part.detach() * each for part, each in zip(distances, gradients, strict=True)])
