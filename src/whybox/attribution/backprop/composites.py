"""Composites: which rule an operation gets, as an ordered tuple of (match, rule); the first match decides."""

from dataclasses import dataclass
from collections.abc import Callable
from fnmatch import fnmatchcase

from torch import Tensor

from whybox.attribution.backprop import rules
from whybox.attribution.backprop.rules import Rule
from whybox.core.errors import InputError, UnknownNameError


@dataclass(frozen=True)
class Operation:
    """One operation as a composite sees it: its kind, the dotted path of the module it runs in, its position."""

    kind: str
    module: str
    first: bool
    pixels: bool


@dataclass(frozen=True)
class Match:
    """Which operations a rule is for; every condition given must hold.

    Attributes:
        kind: "convolution", "dense", "average", "scale" (one input per output, as a batch norm by itself),
            "activation" or "relu"; several separated by "|".
        module: a pattern for the dotted module path, as in "features.*".
        first: whether it is a first linear map that the explained input reaches.
    """

    kind: str | None = None
    module: str | None = None
    first: bool | None = None

    def fits(self, operation: Operation) -> bool:
        """Whether this operation is meant."""
        return (
            (self.kind is None or operation.kind in self.kind.split("|"))
            and (self.module is None or fnmatchcase(operation.module, self.module))
            and (self.first is None or operation.first == self.first)
        )


@dataclass(frozen=True)
class Composite:
    """An ordered table from operations to rules; operations that nothing matches keep the ε rule.

    A user's own: `Composite(((Match(first=True), flat()), (Match(kind="convolution"), gamma(0.1))))`.
    """

    table: tuple[tuple[Match, Rule], ...] = ()
    otherwise: Rule = rules.zero()
    relu: "Callable[[Tensor, Tensor, Tensor], Tensor] | None" = None

    def rule(self, operation: Operation) -> Rule:
        """The rule of the first match."""
        return next((rule for match, rule in self.table if match.fits(operation)), self.otherwise)


FIRST = Match(first=True, kind="convolution|dense")
CONVOLUTION = Match(kind="convolution")
DENSE = Match(kind="dense")
SCALE = Match(kind="scale")
NAMES = (
    "epsilon",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "deep_taylor",
    "excitation",
)


def composite(name: str, epsilon: float = 1e-6, gamma: float = 0.25) -> Composite:
    """A composite by name.

    `epsilon`: the ε rule everywhere. The others give ε to dense layers, and to convolutions z⁺ (`epsilon_plus`), αβ with
    α = 2, β = 1 (`epsilon_alpha2_beta1`) or γ (`epsilon_gamma_box`); `_flat` and `_box` give the first layer the flat
    or the zB rule. `deep_taylor` is z⁺ everywhere with zB at the pixels; `excitation` is z⁺ everywhere.
    """
    if epsilon < 0 or gamma < 0:
        raise InputError(f"epsilon and gamma are not negative; got {epsilon} and {gamma}")
    small = rules.epsilon(epsilon) if epsilon else rules.zero()
    plus, two_one = rules.z_plus(epsilon), rules.alpha_beta(2.0, 1.0, epsilon)
    tables = {
        "epsilon": (),
        "epsilon_plus": ((CONVOLUTION, plus),),
        "epsilon_plus_flat": ((FIRST, rules.flat(epsilon)), (CONVOLUTION, plus)),
        "epsilon_alpha2_beta1": ((CONVOLUTION, two_one),),
        "epsilon_alpha2_beta1_flat": ((FIRST, rules.flat(epsilon)), (CONVOLUTION, two_one)),
        "epsilon_gamma_box": ((FIRST, rules.box(epsilon)), (CONVOLUTION, rules.gamma(gamma, epsilon))),
        "deep_taylor": ((FIRST, rules.box(epsilon)), (CONVOLUTION, plus), (DENSE, plus)),
        "excitation": ((CONVOLUTION, plus), (DENSE, plus)),
    }
    if name not in tables:
        raise UnknownNameError("composite", name, NAMES)
    table = tables[name]
    if name != "epsilon":
        table = (*table, (SCALE, rules.PASS))
    return Composite((*table, (Match(kind="convolution|dense|scale"), small)))
