"""Rules and composites: all sign patterns, every shape of linear map, and what is refused."""

import itertools

import numpy as np
import pytest
import torch
from dense_reference import Rule as Reference
from dense_reference import share, unrolled
from test_dense import close
from torch import Tensor, nn
from torch.nn import functional as F
from toy_nets import Net

import whybox
from whybox import Model
from whybox.attribution.backprop import rules
from whybox.attribution.backprop.composites import NAMES, Composite, Match, Operation, composite
from whybox.attribution.backprop.lrp import LRP
from whybox.attribution.backprop.rules import Rule
from whybox.attribution.backprop.sharing import LinearMap, redistribute, share_out, stabilised
from whybox.core.errors import InputError, UnknownNameError
from whybox.core.model import Domain

EPSILON = 0.01
RULES: dict[str, tuple[Rule, Reference]] = {
    "zero": (rules.zero(), ("epsilon", 0, 0)),
    "epsilon": (rules.epsilon(EPSILON), ("epsilon", 0, 0)),
    "gamma": (rules.gamma(0.5, EPSILON), ("gamma", 0.5, 0)),
    "z plus": (rules.z_plus(EPSILON), ("alpha_beta", 1, 0)),
    "alpha beta": (rules.alpha_beta(3.0, 2.0, EPSILON), ("alpha_beta", 3, 2)),
    "flat": (rules.flat(), ("flat", 0, 0)),
    "w squared": (rules.w_squared(), ("squared", 0, 0)),
    "box": (rules.box(EPSILON), ("box", 0, 0)),
}


def linear(weight: Tensor, bias: Tensor | None, nonnegative: bool = False, layout: str | None = "dense") -> LinearMap:
    return LinearMap(lambda x, w, b: F.linear(x, w, b), weight, bias, nonnegative, layout)


def by_rule(linear: LinearMap, rule: Rule, x: Tensor, low: Tensor, high: Tensor, relevance: Tensor) -> Tensor:
    """R at the input, from R at the output."""
    if rule.at_zero:
        return share_out(linear, rule, x, low, high, relevance)
    z = linear.apply(x, linear.weight, linear.bias)
    c = torch.where(z == 0, 0, relevance / torch.where(z == 0, 1, z))
    return x * redistribute(linear, rule, x, z, c)


@pytest.mark.parametrize("name", RULES)
def test_all_sign_patterns_of_inputs_weights_and_biases(name: str) -> None:
    """Three inputs, every triple of weights in {−2, 0, 1} as an output, with every bias, so that z has every sign."""
    rule, reference = RULES[name]
    epsilon = 0 if name == "zero" else EPSILON
    weight = torch.tensor(list(itertools.product((-2.0, 0.0, 1.0), repeat=3)), dtype=torch.float64)
    low, high = torch.full((1, 3), -2.0).double(), torch.full((1, 3), 3.0).double()
    relevance = torch.linspace(-1, 2, len(weight), dtype=torch.float64)[None]
    for inputs in itertools.product((-2.0, -0.5, 0.0, 1.5), repeat=3):
        x = torch.tensor([inputs], dtype=torch.float64)
        for constant in (-0.5, 0.0, 1.0, None):
            bias = None if constant is None else torch.full((len(weight),), constant, dtype=torch.float64)
            b = np.zeros(len(weight)) if bias is None else bias.numpy()
            z = weight.numpy() @ x[0].numpy() + b
            given = relevance if rule.at_zero else torch.where(torch.from_numpy(z) == 0, 0, relevance)
            touches = np.ones(weight.shape, dtype=bool)
            wanted = share(
                reference,
                x[0].numpy(),
                weight.numpy(),
                b,
                touches,
                given[0].numpy(),
                low[0].numpy(),
                high[0].numpy(),
                epsilon,
            )
            nonnegative = min(inputs) >= 0
            for known in {nonnegative, False}:
                found = by_rule(linear(weight, bias, known), rule, x, low, high, given)
                np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["flat", "box"])
@pytest.mark.parametrize("layout", ["dense", "convolution", "transposed", "grouped", "grouped transposed"])
def test_merged_and_stacked_channels_change_nothing(name: str, layout: str) -> None:
    """The flat rule on one channel and the box rule in one pass equal the plain computation."""
    generator = torch.Generator().manual_seed(0)
    groups = 2 if "grouped" in layout else 1
    rule = RULES[name][0]

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if layout == "dense":
        x, weight = random(2, 3, 4), random(5, 4)

        def apply(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return F.linear(x, w, b)
    elif "transposed" in layout:
        x, weight = random(2, 4, 5, 5), random(4, 3, 3, 3)

        def apply(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return F.conv_transpose2d(x, w, b, 2, 1, 1, groups)
    else:
        x, weight = random(2, 4, 6, 6), random(6, 4 // groups, 3, 3)

        def apply(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return F.conv2d(x, w, b, 2, 2, 1, groups)

    known = {"grouped": "convolution", "grouped transposed": "transposed"}.get(layout, layout)
    relevance = random(*apply(x, weight, None).shape)
    bounds = torch.full_like(x, -4), torch.full_like(x, 4)
    merged = share_out(LinearMap(apply, weight, None, False, known), rule, x, *bounds, relevance)
    plain = share_out(LinearMap(apply, weight, None, False, None), rule, x, *bounds, relevance)
    torch.testing.assert_close(merged, plain, rtol=1e-12, atol=1e-12)


def test_the_flat_rule_counts_the_inputs_inside_at_a_padded_edge() -> None:
    w = torch.ones(1, 1, 3, dtype=torch.float64)
    conv = LinearMap(lambda x, w, b: F.conv1d(x, w, b, padding=1), w, None, False, "convolution")
    x = torch.zeros(1, 1, 4, dtype=torch.float64)
    relevance = torch.tensor([[[6.0, 6.0, 6.0, 6.0]]], dtype=torch.float64)
    found = share_out(conv, rules.flat(), x, x, x, relevance)
    assert found.tolist() == [[[5.0, 7.0, 7.0, 5.0]]]
    assert unrolled(lambda v: conv.apply(v, w, None), x.shape).sum(1).tolist() == [2, 3, 3, 2]


def test_epsilon_is_not_rounded_to_float32() -> None:
    z = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64)
    assert stabilised(z, 0.01).tolist() == [0.01, -1.01, 2.01]
    assert stabilised(z, 0.0).tolist() == [float("inf"), -1.0, 2.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: rules.alpha_beta(1.0, 1.0),
        lambda: rules.alpha_beta(0.0, -1.0),
        lambda: rules.epsilon(-1.0),
        lambda: rules.gamma(-0.5),
        lambda: rules.box(float("nan")),
        lambda: composite("epsilon_plus", epsilon=-1.0),
        lambda: composite("epsilon_gamma_box", gamma=float("inf")),
    ],
)
def test_impossible_constants_are_refused(make: object) -> None:
    with pytest.raises(InputError):
        make()


def test_names() -> None:
    for name in NAMES:
        assert isinstance(composite(name), Composite)
    with pytest.raises(UnknownNameError, match="epsilon_plus"):
        composite("epsilon_pluss")
    with pytest.raises(UnknownNameError, match="convolution"):
        Match(kind="convolutions")


def test_the_first_match_decides_and_the_rest_keeps_the_epsilon_rule() -> None:
    table = Composite(
        ((Match(module="features.*", first=False), rules.z_plus()), (Match(kind="convolution"), rules.zero()))
    )
    assert table.rule(Operation("convolution", "features.3", False, False)).label == "z_plus"
    assert table.rule(Operation("convolution", "features.0", True, True)).label == "zero"
    assert table.rule(Operation("dense", "classifier.1", False, False)).label == "epsilon"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)]
    return nn.Sequential(*layers).double().eval()


X = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    "match", [Match(module="encoder.*"), Match(kind="scale"), Match(kind="dense", first=True)], ids=repr
)
def test_a_composite_that_fits_nothing_says_so(match: Match) -> None:
    with pytest.raises(InputError, match=r"fits no linear map.*'0' \(convolution\).*'5' \(dense\)"):
        LRP(composite=Composite(((match, rules.z_plus()),)))(net(), X, 1)


def test_a_module_pattern_that_fits_nothing_is_refused_even_beside_one_that_does() -> None:
    table = Composite(((Match(kind="convolution"), rules.z_plus()), (Match(module="head"), rules.zero())))
    with pytest.raises(InputError, match="module='head'"):
        LRP(composite=table)(net(), X, 1)
    # a kind that the model does not have is no mistake: the same composite serves many models
    table = Composite(((Match(kind="convolution"), rules.z_plus()), (Match(kind="scale"), rules.PASS)))
    assert torch.equal(LRP(composite=table)(net(), X, 1), LRP(composite="epsilon_plus")(net(), X, 1))


@pytest.mark.parametrize("rule", [rules.flat(), rules.w_squared(), rules.box()], ids=lambda rule: rule.label)
def test_rules_for_the_input_are_refused_inside_the_model(rule: Rule) -> None:
    with pytest.raises(InputError, match=rf"{rule.label} in module '2'.*first=True"):
        LRP(composite=Composite(((Match(module="2"), rule),)))(net(), X, 1)
    assert LRP(composite=Composite(((Match(module="0"), rule),)))(net(), X, 1).isfinite().all()


def test_the_box_rule_is_refused_where_the_bounds_are_lost() -> None:
    squared = Net(lambda n, x: n.net(x.square()), net=net())
    with pytest.raises(InputError, match="bounds"):
        LRP(composite="epsilon_gamma_box")(squared, X, 1)
    assert LRP(composite="epsilon_plus_flat")(squared, X, 1).isfinite().all()


def test_each_input_has_bounds_of_its_own() -> None:
    """Two inputs of very different ranges: what each gets is what it gets alone."""
    sides = nn.ModuleList([net(), net()])
    both = Net(lambda n, x, y: n.sides[0](x) + n.sides[1](y), sides=sides)
    x, y = X, 100 * X + 50
    together = LRP(composite="epsilon_gamma_box")(both, (x, y), 1)
    for part, side, value in zip(together, sides, (x, y), strict=True):
        alone = LRP(composite="epsilon_gamma_box")(side, value, 1)
        close((part,), (alone,), 1e-9)


def test_deep_taylor_takes_the_box_at_pixels_and_squared_weights_at_real_values() -> None:
    torch.manual_seed(0)
    table = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    x = torch.randn(3, 5, dtype=torch.float64)
    squared = Composite(((Match(first=True), rules.w_squared()), (Match(kind="dense"), rules.z_plus())))
    boxed = Composite(((Match(first=True), rules.box()), (Match(kind="dense"), rules.z_plus())))
    known = Model(table, domain=Domain((-4.0,), (4.0,)))
    assert torch.equal(LRP(composite="deep_taylor")(table, x, 1), LRP(composite=squared)(table, x, 1))
    assert torch.equal(LRP(composite="deep_taylor")(known, x, 1), LRP(composite=boxed)(known, x, 1))
    pixels = Composite(((Match(first=True), rules.box()), (Match(kind="convolution|dense"), rules.z_plus())))
    assert torch.equal(LRP(composite="deep_taylor")(net(), X, 1), LRP(composite=pixels)(net(), X, 1))


def test_black_pixels_get_relevance_by_the_flat_rule_through_the_models_own_normalisation() -> None:
    """The relevance of a pixel of zero must not depend on how the model scales its input."""
    scaled = Net(lambda n, x: n.net(x / 0.25), net=net())
    x = torch.where(X.abs() < 0.5, 0, X)
    inside = LRP(composite="epsilon_plus_flat")(scaled, x, 1)
    outside = LRP(composite="epsilon_plus_flat")(net(), x / 0.25, 1)
    close((inside,), (outside,), 1e-12)
    assert bool((inside[x == 0] != 0).float().mean() > 0.9)


def test_the_flat_rule_is_for_convolutions_and_a_table_gets_a_map_by_default() -> None:
    """Behind a dense layer that sees all of the input it would give every value the same relevance."""
    torch.manual_seed(0)
    table, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double(), torch.randn(4, 6).double()
    assert torch.equal(LRP()(table, x, 1), LRP(composite="epsilon")(table, x, 1))
    flat = Composite(((Match(first=True), rules.flat()),))
    spread = LRP(composite=flat)(table, x, 1)
    torch.testing.assert_close(spread, spread.mean(1, keepdim=True).expand_as(x))
    assert (LRP()(table, x, 1).std(1) > 0.01).all()


def test_large_and_tiny_scores_neither_overflow_nor_vanish_in_single_precision() -> None:
    plain = LRP(composite="epsilon_plus_flat", epsilon=0.0)(net().float(), X.float(), 1)
    for size in (1e15, 1e-15):
        scaled = Net(lambda n, x, size=size: n.net(x) * size, net=net().float())
        relevance = LRP(composite="epsilon_plus_flat", epsilon=0.0)(scaled, X.float(), 1)
        torch.testing.assert_close(relevance / size, plain, rtol=1e-4, atol=1e-6)


def test_nothing_is_left_on_the_model() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in NAMES:
        LRP(composite=name)(model, X, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())
    assert whybox.__file__
