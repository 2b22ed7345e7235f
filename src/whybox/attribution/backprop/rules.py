"""Rules of linear maps as data; `sharing` applies them all.

A linear map gives z_j = Σ_i a_i w_ij + b_j. A rule shares the relevance R_j of each output among the inputs in groups:
each group has its own contributions and its own denominator,

    R_i = Σ_groups factor · Σ_j contribution_ij / Σ_i contribution_ij · R_j,

where a group's contribution is a_i times a mix p·w⁺ + n·w⁻ of the positive and negative weights, which may differ for
positive and negative inputs.
"""

from dataclasses import dataclass
from typing import Literal

from whybox.core.errors import InputError

Mix = tuple[float, float]


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

    @property
    def sign(self) -> int:
        """The sign that its denominator is sure to have where it acts: 1, −1, or 0 for either."""
        more, less = self.positive
        if self.negative != (less, more) or self.bias != self.positive or min(more, less) < 0:
            return 0
        if (self.where == "z>0" and more >= less) or (more and not less):
            return 1
        return -1 if (self.where == "z<=0" and less >= more) or (less and not more) else 0


@dataclass(frozen=True)
class Rule:
    """How a linear map shares relevance.

    Attributes:
        label: what to call it.
        groups: the groups of contributions.
        epsilon: added to every denominator, away from zero.
        kind: "input" weighs by the inputs; "flat" and "w2" by ones and squared weights; "box" by the input's
            distance from its domain; "pass" hands relevance on unchanged (maps with one input per output);
            "gradient" is the plain gradient.
    """

    label: str
    groups: tuple[Group, ...] = (Group(),)
    epsilon: float = 0.0
    kind: Literal["input", "flat", "w2", "box", "pass", "gradient"] = "input"

    @property
    def at_zero(self) -> bool:
        """Whether it gives relevance to inputs that are zero, which only the explained input itself can take."""
        return self.kind in ("flat", "w2", "box")

    @property
    def plain(self) -> bool:
        """Whether it is the ε rule: the gradient with a stabiliser."""
        return self.kind == "input" and self.groups == (Group(),)


def zero() -> Rule:
    """LRP-0: R_i = Σ_j a_i w_ij / z_j · R_j."""
    return Rule("zero")


def epsilon(value: float = 1e-6) -> Rule:
    """LRP-ε: R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) · R_j, the bias in z."""
    return Rule("epsilon", epsilon=_positive("epsilon", value))


def gamma(value: float = 0.25, epsilon: float = 1e-6) -> Rule:
    """LRP-γ for inputs of any sign: contributions of z's sign count 1 + γ times (Andéol et al. 2021)."""
    more = 1.0 + _positive("gamma", value)
    return Rule(
        "gamma",
        (
            Group(positive=(more, 1.0), negative=(1.0, more), bias=(more, 1.0), where="z>0"),
            Group(positive=(1.0, more), negative=(more, 1.0), bias=(1.0, more), where="z<=0"),
        ),
        _positive("epsilon", epsilon),
    )


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6) -> Rule:
    """LRP-αβ, α − β = 1: the positive contributions hand on α times the relevance, the negative −β times.

    Raises:
        InputError: α − β is not 1, or β is negative. (The LRP Toolbox writes α + β = 1, with a negative β.)
    """
    if abs(alpha - beta - 1) > 1e-9 or beta < 0:
        raise InputError(f"the αβ rule needs α − β = 1 and β ≥ 0, not α = {alpha}, β = {beta}")
    plus = Group(positive=(1.0, 0.0), negative=(0.0, 1.0), bias=(1.0, 0.0), factor=alpha)
    minus = Group(positive=(0.0, 1.0), negative=(1.0, 0.0), bias=(0.0, 1.0), factor=-beta)
    groups = (plus, minus) if beta else (plus,)
    return Rule("alpha_beta" if beta else "z_plus", groups, _positive("epsilon", epsilon))


def z_plus(epsilon: float = 1e-6) -> Rule:
    """The z⁺ rule, αβ with α = 1, β = 0: only positive contributions count."""
    return alpha_beta(1.0, 0.0, epsilon)


def flat() -> Rule:
    """Every input of an output gets the same share. For the layer that the explained input reaches first."""
    return Rule("flat", kind="flat")


def w_squared() -> Rule:
    """Inputs share in proportion to their squared weights. For the layer that the explained input reaches first."""
    return Rule("w_squared", kind="w2")


def box(epsilon: float = 1e-6) -> Rule:
    """zB: contributions a w − l w⁺ − h w⁻ for inputs between l and h. For the layer that the input reaches first."""
    return Rule("box", epsilon=_positive("epsilon", epsilon), kind="box")


PASS = Rule("pass", kind="pass")
"""Relevance passes unchanged, sign and all; where an activation inside the model is zero it is absorbed."""

GRADIENT = Rule("gradient", kind="gradient")


def _positive(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise InputError(f"{name} is a number that is not negative, not {value}")
    return value
