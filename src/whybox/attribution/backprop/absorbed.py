"""What is absorbed on the way, by cause, each from a formula of its own and never as what came in minus what went out.

A linear map's contributions, bias and stabiliser add up to its denominator, so each takes its share of the relevance
that arrives. Any other operation has an offset, y − J x for y = f(x) with the derivative J: the constant that a sum
adds, the share that a softmax does not hand on; nothing where f is homogeneous, as pooling is. J x is computed
forward, so that it also checks the backward pass.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from whybox.attribution.backprop.rules import Group, Mix, Rule
from whybox.attribution.backprop.sharing import LinearMap, stabilised

with warnings.catch_warnings():  # forward derivatives load this on their first use, by a part of torch now deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("torch._decomp.decompositions_for_jvp")

Charge = Callable[[Tensor], dict[str, Tensor]]
"""From c at an operation's output to what each cause absorbs there, entry by entry."""


def by_rule(linear: LinearMap, rule: Rule, x: Tensor, z: Tensor) -> Charge:
    """What a linear map absorbs by a rule that carries c, given its input and its output."""
    if rule.kind == "pass":
        return lambda c: {"zero": torch.where(x.abs() < torch.finfo(x.dtype).tiny, c * z, 0)}
    if rule.kind == "gradient":
        return lambda c: {"bias": c * _bias(linear, linear.bias, x, z)}

    def charge(c: Tensor) -> dict[str, Tensor]:
        unshared = 1 - torch.stack([group.factor * _acts(group, z) for group in rule.groups]).sum(0)
        return {**_added(_of_group(linear, rule, group, x, z, c) for group in rule.groups), "rule": c * z * unshared}

    return charge


def by_spreading(
    linear: LinearMap, rule: Rule, x: Tensor, z: Tensor, low: Tensor | None, high: Tensor | None
) -> Charge:
    """The same for a rule that shares out R itself, among inputs that may be zero: it has no bias."""
    if rule.kind == "box":
        assert low is not None
        assert high is not None
        above, below = linear.weight.clamp_min(0), linear.weight.clamp_max(0)
        total = linear.apply(x - low, above, None) + linear.apply(x - high, below, None)
    else:
        weight = torch.ones_like(linear.weight) if rule.kind == "flat" else linear.weight.square()
        total = linear.apply(torch.ones_like(x), weight, None)
    return lambda c: _denominator(c * z, total, rule.epsilon, None)


def by_offset(cause: str, y: Tensor, tangent: Tensor | None) -> Charge:
    """What an operation's offset takes: c · (y − J x)."""
    offset = y if tangent is None else y - tangent
    return lambda c: {cause: torch.where(c == 0, 0, c * offset)}


def tangents(function: Callable[..., Any], signals: list[Tensor]) -> list[Tensor | None]:
    """J x for each tensor that a function of some tensors gives out; a masked score, −∞, takes part in nothing."""
    with forward_ad.dual_level():
        pairs = ((x.detach().clone(), torch.where(x.isinf(), 0, x).detach()) for x in signals)
        output = function(*(forward_ad.make_dual(*pair) for pair in pairs))
        given = output if isinstance(output, (tuple, list)) else (output,)
        found = [forward_ad.unpack_dual(y).tangent if isinstance(y, Tensor) else None for y in given]
    return [None if x is None else x.detach() for x in found]


def _of_group(linear: LinearMap, rule: Rule, group: Group, x: Tensor, z: Tensor, c: Tensor) -> dict[str, Tensor]:
    """One group of contributions: the bias and the stabiliser stand in its denominator."""

    def mixed(value: Tensor, mix: Mix) -> Tensor:
        return mix[0] * value.clamp_min(0) + mix[1] * value.clamp_max(0)

    bias = _bias(linear, None if linear.bias is None else mixed(linear.bias, group.bias), x, z)
    contributions = linear.apply(x.clamp_min(0), mixed(linear.weight, group.positive), None)
    contributions = contributions + linear.apply(x.clamp_max(0), mixed(linear.weight, group.negative), None)
    return _denominator(group.factor * _acts(group, z) * c * z, contributions + bias, rule.epsilon, bias)


def _acts(group: Group, z: Tensor) -> Tensor:
    """1 where the group is for an output, else 0."""
    return {"all": torch.ones_like(z), "z>0": (z > 0).to(z.dtype), "z<=0": (z <= 0).to(z.dtype)}[group.where]


def _denominator(relevance: Tensor, total: Tensor, epsilon: float, bias: Tensor | None) -> dict[str, Tensor]:
    """What the bias and the stabiliser take by their part in a denominator; one of zero hands nothing on."""
    below = stabilised(total, epsilon)
    share = relevance / below
    causes = {"epsilon": torch.where(below.isinf(), 0, share * (below - total))} if epsilon else {}
    if bias is not None:
        causes["bias"] = share * bias
    return {**causes, "zero": torch.where(below.isinf(), relevance, 0)}


def _bias(linear: LinearMap, bias: Tensor | None, x: Tensor, z: Tensor) -> Tensor:
    """The bias in the shape of the output."""
    return torch.zeros_like(z) if bias is None else linear.apply(torch.zeros_like(x), linear.weight, bias)


def _added(parts: Any) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for part in parts:
        for cause, amount in part.items():
            total[cause] = total[cause] + amount if cause in total else amount
    return total
