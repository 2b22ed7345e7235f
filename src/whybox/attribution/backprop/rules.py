"""Rules of linear maps as data, and the one interpreter for all of them.

A linear map gives z_j = Σ_i a_i w_ij + b_j. A rule shares the relevance R_j of each output among the inputs in groups:
each group has its own contributions and its own denominator,

    R_i = Σ_groups factor · Σ_j contribution_ij / Σ_i contribution_ij · R_j,

where a group's contribution is a_i times a mix p·w⁺ + n·w⁻ of the positive and negative weights, which may differ for
positive and negative inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mix = tuple[float, float]
# Stands for an activation of exactly zero where a rule gives it relevance all the same, so that c = R / a exists.
TINY = 1e-30


@dataclass(frozen=True)
class LinearMap:
    """z = apply(x, weight) + bias; `apply` is linear in x and in the weight.

    Attributes:
        apply: (input, weight) → output, without bias.
        weight: the weight, or None for maps that have none (average pooling).
        bias: broadcastable to the output, or None.
        nonnegative: whether the input is known to be ≥ 0.
        low, high: the input's lowest and highest valid values, broadcastable to it, for the box rule.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None
    nonnegative: bool = False
    low: Tensor | None = None
    high: Tensor | None = None


@dataclass(frozen=True)
class Group:
    """One group of contributions with a denominator of its own.

    Attributes:
        positive: (p, n), the mix of weights for positive inputs.
        negative: the mix for negative inputs.
        bias: the mix of the bias in the denominator.
        factor: what share of the relevance the group hands on.
        where: on which outputs it acts: all, or those whose z is > 0 or ≤ 0.
    """

    positive: Mix = (1.0, 1.0)
    negative: Mix = (1.0, 1.0)
    bias: Mix = (1.0, 1.0)
    factor: float = 1.0
    where: Literal["all", "z>0", "z<=0"] = "all"


@dataclass(frozen=True)
class Rule:
    """How a linear map shares relevance.

    Attributes:
        name: what to call it.
        groups: the groups of contributions.
        epsilon: added to every denominator, away from zero.
        kind: "input" weighs by the inputs; "flat" and "w2" by ones and squared weights; "box" by the input's
            distance from its domain; "pass" hands relevance on unchanged (maps with one input per output);
            "gradient" is the plain gradient.
    """

    name: str
    groups: tuple[Group, ...] = (Group(),)
    epsilon: float = 0.0
    kind: Literal["input", "flat", "w2", "box", "pass", "gradient"] = "input"


def zero() -> Rule:
    """LRP-0: R_i = Σ_j a_i w_ij / z_j · R_j."""
    return Rule("zero")


def epsilon(value: float = 1e-6) -> Rule:
    """LRP-ε: R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) · R_j, the bias in z."""
    return Rule("epsilon", epsilon=value)


def gamma(value: float = 0.25, epsilon: float = 1e-6) -> Rule:
    """LRP-γ for inputs of any sign: contributions of z's sign count 1 + γ times (Andéol et al. 2021)."""
    more = 1.0 + value
    return Rule(
        "gamma",
        (
            Group(positive=(more, 1.0), negative=(1.0, more), bias=(more, 1.0), where="z>0"),
            Group(positive=(1.0, more), negative=(more, 1.0), bias=(1.0, more), where="z<=0"),
        ),
        epsilon,
    )


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6) -> Rule:
    """LRP-αβ, α − β = 1: the positive contributions hand on α times the relevance, the negative −β times."""
    if abs(alpha - beta - 1) > 1e-9 or beta < 0:
        raise ValueError(f"the αβ rule needs α − β = 1 and β ≥ 0, not α = {alpha}, β = {beta}")
    plus = Group(positive=(1.0, 0.0), negative=(0.0, 1.0), bias=(1.0, 0.0), factor=alpha)
    minus = Group(positive=(0.0, 1.0), negative=(1.0, 0.0), bias=(0.0, 1.0), factor=-beta)
    return Rule("alpha_beta" if beta else "z_plus", (plus, minus) if beta else (plus,), epsilon)


def z_plus(epsilon: float = 1e-6) -> Rule:
    """The z⁺ rule, αβ with α = 1, β = 0: only positive contributions count."""
    return alpha_beta(1.0, 0.0, epsilon)


def flat(epsilon: float = 1e-6) -> Rule:
    """Every input of an output gets the same share."""
    return Rule("flat", epsilon=epsilon, kind="flat")


def w_squared(epsilon: float = 1e-6) -> Rule:
    """Inputs share in proportion to their squared weights."""
    return Rule("w_squared", epsilon=epsilon, kind="w2")


def box(epsilon: float = 1e-6) -> Rule:
    """zB: contributions a w − l w⁺ − h w⁻ for inputs between l and h."""
    return Rule("box", epsilon=epsilon, kind="box")


PASS = Rule("pass", kind="pass")
GRADIENT = Rule("gradient", kind="gradient")


def redistribute(linear: LinearMap, rule: Rule, x: Tensor, z: Tensor, c: Tensor) -> Tensor:
    """c at the input from c at the output z, by the rule."""
    relevance = c * stretched(z)
    if rule.kind == "input":
        return sum((_group(linear, rule, group, x, z, relevance) for group in rule.groups[1:]), _group(linear, rule, rule.groups[0], x, z, relevance))
    if rule.kind == "pass":
        return relevance / stretched(x)
    shares = _box if rule.kind == "box" else _by_weight
    return shares(linear, rule, x, relevance) / stretched(x)


def stretched(a: Tensor) -> Tensor:
    """The activation with zeros replaced by a tiny number, so that relevance on a zero survives the division."""
    return torch.where(a == 0, TINY, a)


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """z moved away from zero by epsilon; an exact zero gives relevance to nobody."""
    moved = z + torch.where(z < 0, -epsilon, epsilon)
    return torch.where(moved == 0, torch.inf, moved) if epsilon == 0 else moved


def _mixed(value: Tensor, mix: Mix) -> Tensor:
    p, n = mix
    if p == n:
        return value if p == 1 else p * value
    if n == 0:
        return p * value.clamp_min(0) if p != 1 else value.clamp_min(0)
    if p == 0:
        return n * value.clamp_max(0) if n != 1 else value.clamp_max(0)
    return torch.where(value > 0, p * value, n * value)


def _group(linear: LinearMap, rule: Rule, group: Group, x: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
    """One group's share of c at the input."""
    one_sided = linear.nonnegative or group.positive == group.negative
    with torch.enable_grad():
        if one_sided:
            parts = [x.detach().requires_grad_()]
        else:
            parts = [x.detach().clamp_min(0).requires_grad_(), x.detach().clamp_max(0).requires_grad_()]
        mixes = (group.positive, group.negative)[: len(parts)]
        outputs = [linear.apply(part, _mixed(linear.weight, mix)) for part, mix in zip(parts, mixes, strict=True)]
    denominator = sum((output.detach() for output in outputs[1:]), outputs[0].detach())
    if linear.bias is not None:
        denominator = denominator + _mixed(linear.bias, group.bias)
    share = relevance / stabilised(denominator, rule.epsilon)
    if group.factor != 1:
        share = group.factor * share
    if group.where != "all":
        share = torch.where(z > 0 if group.where == "z>0" else z <= 0, share, 0)
    c = [torch.autograd.grad(output, part, share)[0] for output, part in zip(outputs, parts, strict=True)]
    return c[0] if one_sided else torch.where(x > 0, c[0], c[1])


def _by_weight(linear: LinearMap, rule: Rule, x: Tensor, relevance: Tensor) -> Tensor:
    """Flat and w²: R_i from the weights alone; at padding only the inputs inside count."""
    weight = torch.ones_like(linear.weight) if rule.kind == "flat" else linear.weight.square()
    with torch.enable_grad():
        ones = torch.ones_like(x[:1]).requires_grad_()
        total = linear.apply(ones, weight)
        probe = torch.zeros_like(x).requires_grad_()
        output = linear.apply(probe, weight)
    share = relevance / stabilised(total.detach(), rule.epsilon)
    return torch.autograd.grad(output, probe, share)[0]


def _box(linear: LinearMap, rule: Rule, x: Tensor, relevance: Tensor) -> Tensor:
    """zB: R_i = a_i T(w) − l_i T(w⁺) − h_i T(w⁻) of the shares, no bias."""
    assert linear.low is not None
    assert linear.high is not None
    with torch.enable_grad():
        parts = [x.detach(), linear.low.expand_as(x).detach(), linear.high.expand_as(x).detach()]
        parts = [part.clone().requires_grad_() for part in parts]
        weights = (linear.weight, linear.weight.clamp_min(0), linear.weight.clamp_max(0))
        a, low, high = (linear.apply(part, weight) for part, weight in zip(parts, weights, strict=True))
        total = a - low - high
    share = relevance / stabilised(total.detach(), rule.epsilon)
    gradients = torch.autograd.grad(total, parts, share)
    return sum((part.detach() * g for part, g in zip(parts[1:], gradients[1:], strict=True)), parts[0].detach() * gradients[0])
