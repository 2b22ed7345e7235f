"""Composites: which rule an operation gets, as an ordered tuple of (match, rule); the first match decides."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from whybox.attribution.backprop import rules
from whybox.attribution.backprop.rules import Rule
from whybox.core.annotations import fits
from whybox.core.errors import InputError, UnknownNameError

_EPSILON = rules.epsilon()
KINDS = ("convolution", "dense", "scale")


@dataclass(frozen=True)
class Operation:
    """One linear map as a composite sees it.

    Attributes:
        kind: "convolution", "dense" or "scale".
        module: the dotted path of the module that it runs in.
        first: whether it is a first linear map that the explained input reaches.
        pixels: whether the domain of its input's values is bounded and known.
    """

    kind: str
    module: str
    first: bool
    pixels: bool


@dataclass(frozen=True)
class Match:
    """Which linear maps a rule is for; every condition given must hold.

    Attributes:
        kind: "convolution" (transposed ones too), "dense", or "scale" (one input per output: a batch norm that stands
            alone, the model's own rescaling of its input); several separated by "|".
        module: a pattern for the dotted module path, as in "features.*".
        first: whether it is a first linear map that the explained input reaches.
        pixels: whether the domain of its input's values is bounded and known, as that of pixels is.
    """

    kind: str | None = None
    module: str | None = None
    first: bool | None = None
    pixels: bool | None = None

    def __post_init__(self) -> None:
        for kind in self.kind.split("|") if self.kind is not None else ():
            if kind not in KINDS:
                raise UnknownNameError("kind of linear map", kind, KINDS)

    def fits(self, operation: Operation) -> bool:
        """Whether this operation is meant."""
        return (
            (self.kind is None or operation.kind in self.kind.split("|"))
            and (self.module is None or fnmatchcase(operation.module, self.module))
            and (self.first is None or operation.first == self.first)
            and (self.pixels is None or operation.pixels == self.pixels)
        )


@dataclass(frozen=True)
class Composite:
    """An ordered table from linear maps to rules; what nothing matches keeps `otherwise`, by default the ε rule.

    A user's own: `Composite(((Match(first=True), rules.flat()), (Match(kind="convolution"), rules.gamma(0.1))))`.

    Args:
        table: pairs of a match and the rule for what it fits.
        otherwise: the rule of all other linear maps.

    Raises:
        InputError: the table is not made of such pairs.
    """

    table: tuple[tuple[Match, Rule], ...] = ()
    otherwise: Rule = _EPSILON

    def __post_init__(self) -> None:
        if not fits(self.table, tuple[tuple[Match, Rule], ...]) or not fits(self.otherwise, Rule):
            raise InputError(
                "a composite is a tuple of pairs and a rule, as in "
                f"Composite(((Match(first=True), rules.flat()),), otherwise=rules.epsilon()), not {self}"
            )

    def rule(self, operation: Operation) -> Rule:
        """The rule of the first match."""
        return next((rule for match, rule in self.table if match.fits(operation)), self.otherwise)

    def check(self, operations: Iterable[Operation]) -> None:
        """Refuse to run as something else than was meant: no match fits, or one by module name fits nothing.

        Raises:
            InputError: naming the matches and the linear maps that the model has.
        """
        operations = tuple(operations)
        idle = [match for match, _ in self.table if not any(match.fits(operation) for operation in operations)]
        named = [match for match in idle if match.module is not None]
        if named or (idle and len(idle) == len(self.table)):
            seen = ", ".join(sorted({f"{operation.module!r} ({operation.kind})" for operation in operations})) or "none"
            raise InputError(
                f"the composite's {(named or idle)[0]} fits no linear map that the explained input reaches; "
                f"they are: {seen}"
            )


LAYER = Match(kind="convolution|dense")
FIRST = Match(kind="convolution|dense", first=True)
PIXELS = Match(kind="convolution|dense", first=True, pixels=True)
CONVOLUTION = Match(kind="convolution")
FIRST_CONVOLUTION = Match(kind="convolution", first=True)
SCALE = Match(kind="scale")
PIXEL_SCALE = Match(kind="scale", pixels=True)
NAMES = (
    "epsilon",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "deep_taylor",
    "excitation",
    "attn_lrp",
)


def composite(name: str, epsilon: float = 1e-6, gamma: float = 0.25) -> Composite:
    """A composite by name.

    `epsilon`: the ε rule everywhere. The others give ε to dense layers, and to convolutions z⁺ (`epsilon_plus`), αβ
    with α = 2, β = 1 (`epsilon_alpha2_beta1`) or γ (`epsilon_gamma_box`); `_box` gives the first layer the zB rule, and
    `_flat` the flat rule, if it is a convolution: a dense one would spread relevance evenly over all of the input.
    `deep_taylor` is z⁺ everywhere with zB at pixels and w² at real-valued input whose domain is not known; `excitation`
    is z⁺ everywhere. These pass relevance through a batch norm that stands alone and through the model's own rescaling
    of its input; `epsilon` charges their shift as a bias. `attn_lrp` is `epsilon` but for that rescaling of pixels,
    which passes relevance on: attention, softmax, products and norms have rules of their own under every composite, and
    these with the ε rule are AttnLRP (Achtibat et al. 2024, arXiv 2402.05602).
    """
    small = rules.epsilon(epsilon) if epsilon else rules.zero()
    plus, two_one = rules.z_plus(epsilon), rules.alpha_beta(2.0, 1.0, epsilon)
    tables = {
        "epsilon": (),
        "epsilon_plus": ((CONVOLUTION, plus),),
        "epsilon_plus_flat": ((FIRST_CONVOLUTION, rules.flat()), (CONVOLUTION, plus)),
        "epsilon_alpha2_beta1": ((CONVOLUTION, two_one),),
        "epsilon_alpha2_beta1_flat": ((FIRST_CONVOLUTION, rules.flat()), (CONVOLUTION, two_one)),
        "epsilon_gamma_box": ((FIRST, rules.box(epsilon)), (CONVOLUTION, rules.gamma(gamma, epsilon))),
        "deep_taylor": ((PIXELS, rules.box(epsilon)), (FIRST, rules.w_squared()), (LAYER, plus)),
        "excitation": ((LAYER, plus),),
        "attn_lrp": ((PIXEL_SCALE, rules.PASS),),
    }
    if name not in tables:
        raise UnknownNameError("composite", name, NAMES)
    table = tables[name]
    if name not in ("epsilon", "attn_lrp"):
        table = (*table, (SCALE, rules.PASS))
    return Composite(table, small)


def default(module: nn.Module) -> str:
    """The composite for a model where none is named: told from its layers, without running it.

    `epsilon` where there is a recurrent layer; `attn_lrp` where there are at least as many layers of attention, told by
    their names, as convolutions; else `epsilon_plus_flat`. Nets of both kinds, most of whose layers are convolutions,
    are so taken for convolutional ones: what attention does is under every composite the same.
    """
    parts = [(part, type(part).__name__.lower()) for part in module.modules()]
    if any(isinstance(part, (nn.RNNBase, nn.RNNCellBase)) for part, _ in parts):
        return "epsilon"
    attention = sum("attention" in name or "attn" in name for _, name in parts)
    convolutions = sum(isinstance(part, nn.modules.conv._ConvNd) for part, _ in parts)
    return "attn_lrp" if attention and attention >= convolutions else "epsilon_plus_flat"
