"""What must hold whatever the weights: conservation, input times gradient, rules that are special cases of others."""

from collections.abc import Callable

import pytest
import torch
from test_dense import close
from torch import Tensor, nn
from torch.nn import functional as F
from toy_nets import TOYS, Net, Toy

from whybox import Model
from whybox.attribution.backprop.composites import Composite, Match
from whybox.attribution.backprop.lrp import LRP
from whybox.attribution.backprop.rules import alpha_beta, box, epsilon, flat, gamma, w_squared, z_plus, zero
from whybox.core.model import Domain

# Toys all of whose convolutions are followed by a ReLU, so that every output that gets relevance is positive.
BEHIND_RELU = {
    "conv1d", "conv3d", "conv", "valid conv", "strided conv", "wide padding", "dilated conv", "grouped conv",
    "depth-wise conv", "point-wise conv", "transposed conv", "depth-wise conv second", "dilated conv second",
    "strided conv second", "transposed conv second", "deep", "residual sum", "cat of a shared tensor",
    "functional convolution", "unet", "in-place relu and identity", "siamese halves", "siamese", "two first layers",
}  # fmt: skip


def by_name(name: str) -> Toy:
    return next(toy for toy in TOYS if toy.name == name)


def lrp(net: nn.Module, inputs: tuple[Tensor, ...], composite: str | Composite, epsilon: float = 0.0) -> tuple:
    model = Model(net, domain=Domain((-2.0,), (2.5,)), chunk=2)
    relevance = LRP(composite=composite, epsilon=epsilon)(model, inputs if len(inputs) > 1 else inputs[0], 1)
    return relevance if isinstance(relevance, tuple) else (relevance,)


def gradient(net: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(net(*(x.clone() for x in leaves))[:, 1].sum(), leaves)


def conserved(toy: Toy, composite: str) -> None:
    net = toy.net(bias=False)
    for nonnegative in (False, True):
        inputs = toy.example(nonnegative)
        score = net(*(x.clone() for x in inputs))[:, 1].detach()
        total = sum(r.flatten(1).sum(1) for r in lrp(net, inputs, composite))
        torch.testing.assert_close(total, score, rtol=1e-9, atol=0)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_gamma_box"])
@pytest.mark.parametrize("toy", [toy for toy in TOYS if toy.conserves], ids=lambda toy: toy.name)
def test_relevance_is_conserved_without_biases(toy: Toy, composite: str) -> None:
    conserved(toy, composite)


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_plus_flat", "deep_taylor", "excitation"])
@pytest.mark.parametrize("name", sorted(BEHIND_RELU))
def test_z_plus_conserves_where_outputs_are_positive(name: str, composite: str) -> None:
    conserved(by_name(name), composite)


@pytest.mark.parametrize("toy", [toy for toy in TOYS if toy.piecewise], ids=lambda toy: toy.name)
def test_lrp_0_is_input_times_gradient(toy: Toy) -> None:
    net, inputs = toy.net(), toy.example()
    wanted = tuple(x * g for x, g in zip(inputs, gradient(net, inputs), strict=True))
    close(lrp(net, inputs, "epsilon"), wanted, 1e-12)


def secant(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return x * (function(x) / x).detach()


def product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b.detach() + a.detach() * b) / 2


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    deviation = (x.var(-1, keepdim=True, correction=0) + norm.eps).sqrt().detach()
    return (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias


# The same nets with gates, norms and secant slopes detached and products halved.
SURROGATES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "gelu": lambda n, h: secant(F.gelu, n.b(h)),
    "silu": lambda n, h: secant(F.silu, n.b(h)),
    "tanh": lambda n, h: secant(torch.tanh, n.b(h)),
    "gate": lambda n, h: n.c(h) * torch.sigmoid(n.b(h)).detach(),
    "squeeze and excitation": lambda n, h: h * torch.sigmoid(n.b(h).mean((2, 3), keepdim=True)).detach(),
    "product": lambda n, h: product(n.b(h), n.c(h)),
}


@pytest.mark.parametrize("name", SURROGATES)
def test_lrp_0_is_input_times_gradient_of_the_detached_surrogate(name: str) -> None:
    net, (x,) = by_name(name).net(), by_name(name).example()

    def surrogate(x: Tensor) -> Tensor:
        return net.out(SURROGATES[name](net, net.a(x).relu()).flatten(1))

    close(lrp(net, (x,), "epsilon"), (x * gradient(surrogate, (x,))[0],), 1e-12)


def test_lrp_0_through_a_layer_norm_takes_its_denominator_as_a_constant() -> None:
    net, (x,) = by_name("layer norm").net(), by_name("layer norm").example()

    def surrogate(x: Tensor) -> Tensor:
        return net.out(net.b(layer_norm(net.n, net.a(x))).relu().flatten(1))

    close(lrp(net, (x,), "epsilon"), (x * gradient(surrogate, (x,))[0],), 1e-12)


def everywhere(rule: object) -> Composite:
    return Composite(((Match(kind="convolution|dense"), rule),))


@pytest.mark.parametrize("name", ["deep", "residual sum of signed", "batch norm after conv", "linear twice"])
def test_rules_that_are_special_cases_of_others(name: str) -> None:
    net, inputs = by_name(name).net(), by_name(name).example()
    close(lrp(net, inputs, everywhere(alpha_beta(1.0, 0.0, 0.01))), lrp(net, inputs, everywhere(z_plus(0.01))), 1e-14)
    close(lrp(net, inputs, everywhere(gamma(0.0, 0.01))), lrp(net, inputs, everywhere(epsilon(0.01))), 1e-12)
    close(lrp(net, inputs, everywhere(epsilon(0.0))), lrp(net, inputs, everywhere(zero())), 0)


def test_gamma_tends_to_z_plus_behind_a_relu() -> None:
    net, inputs = by_name("deep").net(), by_name("deep").example()
    table = Composite(((Match(kind="convolution"), gamma(1e9, 0.0)),), zero())
    close(
        lrp(net, inputs, table), lrp(net, inputs, Composite(((Match(kind="convolution"), z_plus(0.0)),), zero())), 1e-6
    )


def test_the_box_around_zero_is_the_zero_rule_without_bias() -> None:
    net, inputs = by_name("conv").net(bias=False), by_name("conv").example(nonnegative=True)
    model = Model(net, domain=Domain((0.0,), (0.0,)), chunk=2)
    found = LRP(composite=Composite(((Match(first=True), box(0.0)),)))(model, inputs[0], 1)
    close((found,), lrp(net, inputs, Composite(((Match(first=True), zero()),))), 1e-12)


@pytest.mark.parametrize("rule", [flat(), w_squared()])
def test_flat_and_squared_do_not_look_at_the_input(rule: object) -> None:
    net = by_name("conv").net(bias=False)
    (x,) = by_name("conv").example()
    (relevance,) = lrp(net, (x,), Composite(((Match(first=True), rule),), zero()))
    score = net(x)[:, 1].detach()
    torch.testing.assert_close(relevance.flatten(1).sum(1), score, rtol=1e-9, atol=0)
    assert bool((relevance[x == 0] != 0).any())


def test_a_layer_inside_the_model_gets_what_passes_through_it_from_above() -> None:
    net, (x,) = by_name("in-place relu and identity").net(bias=False), by_name("in-place relu and identity").example()
    model = Model(net, chunk=2)
    method = LRP(composite="epsilon_plus_flat", epsilon=0.0)
    inside = method(model, x, 1, at="body.2")
    assert inside.shape == (2, 3, 4, 4)
    torch.testing.assert_close(inside.flatten(1).sum(1), net(x)[:, 1].detach(), rtol=1e-9, atol=0)
    assert torch.equal(inside, LRP(composite="epsilon_plus", epsilon=0.0)(model, x, 1, at="body.2"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_about_the_same(dtype: torch.dtype) -> None:
    net, x = by_name("deep").net().float(), by_name("deep").example()[0].float()
    for composite in ("epsilon_plus_flat", "epsilon_gamma_box"):
        (wanted,) = lrp(net, (x,), composite, 1e-3)
        (found,) = lrp(by_name("deep").net().to(dtype), (x.to(dtype),), composite, 1e-3)
        assert found.dtype == dtype
        assert float((found.float() - wanted).abs().max()) < 0.1 * float(wanted.abs().max())
