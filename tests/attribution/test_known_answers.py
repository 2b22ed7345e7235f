"""Closed forms: models so simple that every relevance is known on paper, and sums that can be done by hand."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from whybox import (
    CAM,
    Constant,
    Contrast,
    Domain,
    ExpectedGradients,
    GradCAM,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    Model,
    Probability,
    SensitivityAnalysis,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
)
from whybox.attribution.path import GOLDEN, MOST_STEPS, ROUND, quadrature
from whybox.core.method import Method
from whybox.core.task import Task

FLOAT64 = {"rtol": 1e-12, "atol": 1e-12}


class Formula(nn.Module):
    """A model that is a formula from (n, features) to scores (n,)."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x)


class CountRows(nn.Module):
    """Counts for itself how many samples pass forward and backward."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.forwards, self.backwards = module, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        output = self.module(x)
        if output.requires_grad:
            output.register_hook(lambda gradient: setattr(self, "backwards", self.backwards + len(gradient)))
        return output


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(module: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """The module in float64, its parameters drawn from a seed, without touching torch's own generator."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * scale)
            parameter.div_(math.sqrt(fan_in))
    return module


def deep_relu_net(seed: int = 0) -> nn.Module:
    widths = (12, 64, 64, 64, 64, 5)
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return seeded(nn.Sequential(*layers[:-1]), seed, scale=1.4)


def convolutional(inplace: bool = False) -> nn.Sequential:
    """Keeps the input's size up to a global average pooling, so that no map needs upsampling."""
    return seeded(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace),
            nn.Conv2d(8, 6, 3, padding=1),
            nn.ReLU(inplace),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
    )


def gap(relevance: Tensor, difference: Tensor) -> Tensor:
    return (relevance.flatten(1).sum(1) - difference).abs() / difference.abs()


def noisy_copies(x: Tensor, samples: int, share: float, seed: int = 0) -> Tensor:
    """The copies (n, samples, ...) that a method with noise hands to the method that it wraps."""
    seen: list[Tensor] = []

    @dataclass(frozen=True)
    class Copies(Method):
        taxonomy = Gradient.taxonomy

        def attribute(self, task: Task) -> Tensor:
            seen.append(task.inputs)
            return task.inputs

    mean = SmoothGrad(of=Copies(), samples=samples, noise=share)(nn.Flatten(), x, 0, seed=seed)
    copies = torch.cat(seen).view(len(x), samples, *x.shape[1:])
    torch.testing.assert_close(mean, copies.mean(1), **FLOAT64)
    return copies


# --- A linear model


@pytest.fixture
def linear() -> nn.Linear:
    return seeded(nn.Linear(6, 3))  # type: ignore[return-value]


def test_linear_gradients(linear):
    x, w = normal(4, 6), linear.weight[1].detach().expand(4, -1)
    assert torch.equal(Gradient()(linear, x, 1), w)
    assert torch.equal(SensitivityAnalysis()(linear, x, 1), w.abs())
    assert torch.equal(InputXGradient()(linear, x, 1), x * w)


def test_linear_targets(linear):
    x, w = normal(4, 6), linear.weight.detach()
    assert torch.equal(Gradient()(linear, x, [0, 1, 2, 1]), w[[0, 1, 2, 1]])
    torch.testing.assert_close(Gradient()(linear, x, Contrast(2, 0)), (w[2] - w[0]).expand(4, -1), **FLOAT64)
    p = linear(x).softmax(1).detach()
    slope = p[:, [1]] * (w[1] - p @ w)
    torch.testing.assert_close(Gradient()(linear, x, Probability(1)), slope, **FLOAT64)


@pytest.mark.parametrize("rule", ["gauss-legendre", "riemann"])
@pytest.mark.parametrize("steps", [None, 1, 7])
def test_linear_integrated_gradients(linear, steps, rule):
    x = normal(4, 6)
    answer = IntegratedGradients(steps=steps, rule=rule, baseline=Constant(0.3)).run(linear, x, 1)
    torch.testing.assert_close(answer.relevance, linear.weight[1].detach() * (x - 0.3), **FLOAT64)
    assert answer.details["steps"].tolist() == [steps or ROUND] * 4
    assert answer.checks[0].passed.all()


def test_linear_smoothing(linear):
    """Under noise a linear model's gradient does not move at all: the mean is w to the last bit, the variance zero."""
    x, w = normal(4, 6), linear.weight[1].detach().expand(4, -1)
    assert torch.equal(SmoothGrad(samples=9)(linear, x, 1), w)
    assert torch.equal(SmoothGradSquared(samples=9)(linear, x, 1), w * w)
    assert torch.equal(VarGrad(samples=9)(linear, x, 1), torch.zeros_like(w))


# --- Quadratic models


def test_variance_of_a_quadratic():
    """f = ½ Σ a x² has gradient a x, so noise of standard deviation σ gives it mean a x and variance a² σ²."""
    a, samples, share = torch.tensor([0.5, -2.0, 0.0, 3.0], dtype=torch.float64), 4096, 0.2
    model = Model(Formula(lambda x: (a * x * x).sum(1) / 2), chunk=4096)
    x = normal(2, 4)
    sigma = share * (x.amax(1) - x.amin(1))[:, None]
    variance = VarGrad(samples=samples, noise=share)(model, x, 0)
    expected = a**2 * sigma**2
    assert ((variance - expected).abs() <= 4 * expected * math.sqrt(2 / samples)).all()
    mean = SmoothGrad(samples=samples, noise=share)(model, x, 0)
    assert ((mean - a * x).abs() <= 4 * (a.abs() * sigma) / math.sqrt(samples)).all()


@pytest.mark.parametrize("baseline", [0.0, 0.7])
@pytest.mark.parametrize("rule", ["gauss-legendre", "riemann"])
def test_integrated_gradients_of_squares(rule, baseline):
    """f = Σ x²: R = x² − x′², which both rules find with a single gradient, the integrand being linear."""
    x = normal(3, 5)
    method = IntegratedGradients(steps=1, rule=rule, baseline=Constant(baseline))
    relevance = method(Formula(lambda x: (x * x).sum(1)), x, 0)
    torch.testing.assert_close(relevance, x * x - baseline**2, **FLOAT64)


def test_integrated_gradients_of_a_product():
    """f = x₁ x₂ from zero: each factor gets half, however different they are."""
    x = torch.tensor([[3.0, -0.5], [1.0, 8.0]], dtype=torch.float64)
    relevance = IntegratedGradients(steps=1)(Formula(lambda x: x[:, 0] * x[:, 1]), x, 0)
    torch.testing.assert_close(relevance, (x.prod(1) / 2)[:, None].expand(-1, 2), **FLOAT64)


def test_expected_gradients_of_squares():
    """f = Σ x² with baselines uniform over the domain: E R = x² − E x′², within four standard errors."""
    samples, low, high = 4096, -1.0, 2.0
    x = normal(2, 3)
    model = Model(Formula(lambda x: (x * x).sum(1)), domain=Domain((low,), (high,)), chunk=4096)
    relevance = ExpectedGradients(samples=samples)(model, x, 0)
    expected = x * x - (high**3 - low**3) / (3 * (high - low))
    draws = torch.Generator().manual_seed(1)
    b = low + (high - low) * torch.rand(100_000, 1, 1, dtype=torch.float64, generator=draws)
    alpha = torch.rand(100_000, 1, 1, dtype=torch.float64, generator=draws)
    error = ((x - b) * 2 * (b + alpha * (x - b))).std(0) / math.sqrt(samples)
    assert ((relevance - expected).abs() <= 4 * error).all()


def test_expected_gradients_with_baselines_from_data():
    """f = Σ x² with baselines from data of two rows: E R = x² − the mean of their squares."""
    data = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]], dtype=torch.float64)
    model = Model(Formula(lambda x: (x * x).sum(1)), chunk=4096)
    x, samples = normal(2, 3), 4096
    relevance = ExpectedGradients(samples=samples).fit(model, data)(model, x, 0)
    error = (x.abs() + 2) ** 2 / math.sqrt(samples)  # the range of one draw bounds its standard deviation
    assert ((relevance - (x * x - (data * data).mean(0))).abs() <= 4 * error).all()


# --- The quadrature


@pytest.mark.parametrize("nodes", [1, 2, 3, 8, 16])
def test_gauss_legendre_is_exact_up_to_degree_2n_minus_1(nodes):
    t, weights = quadrature("gauss-legendre", nodes)
    for degree in range(2 * nodes):
        assert math.isclose(float((weights * t**degree).sum()), 1 / (degree + 1), rel_tol=1e-12)
    if nodes < 16:  # beyond, the error drowns in rounding
        assert not math.isclose(float((weights * t ** (2 * nodes)).sum()), 1 / (2 * nodes + 1), rel_tol=1e-12)


def test_gauss_legendre_in_the_method():
    """f = Σ x⁸ has gradients of degree 7 along the path: four steps are exact, three are not."""
    x = normal(3, 4)
    model = Formula(lambda x: (x**8).sum(1))
    torch.testing.assert_close(IntegratedGradients(steps=4)(model, x, 0), x**8, **FLOAT64)
    assert (gap(IntegratedGradients(steps=3)(model, x, 0), model(x)) > 1e-4).all()


def test_midpoint_rule_is_the_literal_loop():
    net, x, steps = deep_relu_net(), normal(3, 12), 11
    baseline = torch.full_like(x, 0.2)
    total = torch.zeros_like(x)
    for step in range(steps):
        point = (baseline + (step + 0.5) / steps * (x - baseline)).requires_grad_()
        total += torch.autograd.grad(net(point)[:, 2].sum(), point)[0] / steps
    method = IntegratedGradients(steps=steps, rule="riemann", baseline=Constant(0.2))
    torch.testing.assert_close(method(net, x, 2), (x - baseline) * total, **FLOAT64)


def test_tolerance_is_the_literal_loop():
    """Golden-ratio points α = t² with weights ∝ 2t, four at a time, each sample until its own gap is small enough."""
    net, x = deep_relu_net(), normal(5, 12)
    answer = IntegratedGradients(tolerance=0.02).run(net, x, 2)
    for row, relevance, steps in zip(x, answer.relevance, answer.details["steps"], strict=True):
        difference = (net(row[None]) - net(torch.zeros(1, 12, dtype=torch.float64)))[0, 2].detach()
        total, weight, used = torch.zeros_like(row), 0.0, 0
        while used < MOST_STEPS:
            for number in range(used, used + ROUND):
                t = ((number + 0.5) * GOLDEN) % 1
                point = (t * t * row).requires_grad_()
                total = total + 2 * t * torch.autograd.grad(net(point)[2], point)[0]
                weight += 2 * t
            used += ROUND
            if ((total * row).sum() / weight - difference).abs() <= 0.02 * difference.abs():
                break
        assert int(steps) == used
        torch.testing.assert_close(relevance, row * total / weight, **FLOAT64)


# --- Completeness


@pytest.mark.parametrize(("rule", "most", "left"), [("gauss-legendre", 1024, 3e-3), ("riemann", 16384, 3e-4)])
def test_completeness_on_a_deep_net(rule, most, left):
    """At every kink of a ReLU the integrand jumps, so the gap falls as 1/steps and no faster, by either rule."""
    net, x = Model(deep_relu_net(), chunk=4096), normal(4, 12)
    difference = (net(x) - net(torch.zeros_like(x)))[:, 2].detach()
    gaps = [gap(IntegratedGradients(steps=steps, rule=rule)(net, x, 2), difference) for steps in (4, 64, most)]
    assert gaps[2].max() < left
    assert gaps[0].mean() > gaps[1].mean() > gaps[2].mean()


@pytest.mark.parametrize(
    "method",
    [
        IntegratedGradients(),
        IntegratedGradients(tolerance=0.2),
        IntegratedGradients(steps=2),
        IntegratedGradients(steps=9, rule="riemann", baseline=Constant(-0.5)),
    ],
    ids=repr,
)
def test_the_reported_gap_is_that_of_the_relevance(method):
    """The gap in the check is |Σ R − Δf| / |Δf| of the very relevance that is returned: nothing is rescaled."""
    net, x = deep_relu_net(), normal(6, 12)
    answer = method.run(net, x, 2)
    difference = (net(x) - net(torch.full_like(x, getattr(method.baseline, "value", 0.0))))[:, 2].detach()
    check = answer.checks[0]
    torch.testing.assert_close(check.values, gap(answer.relevance, difference), rtol=1e-8, atol=1e-12)
    assert torch.equal(check.passed, check.values <= method.tolerance)


def test_few_steps_leave_a_gap():
    net, x = deep_relu_net(), normal(6, 12)
    assert IntegratedGradients(steps=2).run(net, x, 2).checks[0].values.min() > 1e-3


def test_expected_gradients_report_their_gap():
    net, x = deep_relu_net(), normal(3, 12)
    answer = ExpectedGradients(samples=40, baseline=Constant(0.4)).run(net, x, 2)
    difference = (net(x) - net(torch.full_like(x, 0.4)))[:, 2].detach()
    torch.testing.assert_close(answer.checks[0].values, gap(answer.relevance, difference), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("tolerance", [0.3, 0.05, 0.01, 0.003])
def test_tolerance_is_reached_and_counted(tolerance):
    net, x = CountRows(deep_relu_net()), normal(6, 12)
    answer = IntegratedGradients(tolerance=tolerance).run(net, x)
    steps = answer.details["steps"]
    assert answer.checks[0].passed[steps < MOST_STEPS].all()
    assert (steps < MOST_STEPS).sum() >= 4
    assert ((steps % ROUND == 0) & (steps >= ROUND)).all()
    assert answer.backwards == int(steps.sum()) == net.backwards
    # Beside the gradients: the prediction, the score of the input and that of the baseline.
    assert answer.forwards == int(steps.sum()) + 3 * len(x) == net.forwards


@pytest.mark.parametrize(
    ("method", "forwards", "backwards"),
    [
        (Gradient(), 1, 1),
        (SensitivityAnalysis(), 1, 1),
        (InputXGradient(), 1, 1),
        (IntegratedGradients(steps=7), 9, 7),
        (ExpectedGradients(samples=5), 11, 5),
        (SmoothGrad(samples=6), 6, 6),
        (VarGrad(samples=6), 6, 6),
        (SmoothGradSquared(of=IntegratedGradients(steps=3), samples=4), 20, 12),
    ],
    ids=lambda value: repr(value) if not isinstance(value, int) else "",
)
def test_cost_is_counted(method, forwards, backwards):
    net, x = CountRows(deep_relu_net()), normal(4, 12)
    answer = method.run(net, x, 1)
    assert (answer.forwards, answer.backwards) == (4 * forwards, 4 * backwards) == (net.forwards, net.backwards)


# --- Smoothing


@pytest.mark.parametrize("of", [Gradient(), InputXGradient(), IntegratedGradients(steps=4), GradCAM(layer="3")])
def test_smoothing_without_noise_is_the_method_itself(of):
    model, x = Model(convolutional(), chunk=1), normal(2, 3, 7, 7)
    alone = of(model, x, 1)
    assert torch.equal(SmoothGrad(of=of, samples=5, noise=0.0)(model, x, 1), alone)
    assert torch.equal(SmoothGradSquared(of=of, samples=5, noise=0.0)(model, x, 1), alone * alone)
    assert not VarGrad(of=of, samples=5, noise=0.0)(model, x, 1).any()
    many = SmoothGrad(of=of, samples=5, noise=0.0)(convolutional(), x, 1)  # chunks of measured size
    torch.testing.assert_close(many, alone, rtol=1e-7, atol=1e-10)


def test_smoothing_tends_to_the_method_as_the_noise_vanishes():
    net, x = convolutional(), normal(2, 3, 7, 7)
    near = SmoothGrad(samples=4, noise=1e-9)(net, x, 1)
    torch.testing.assert_close(near, Gradient()(net, x, 1), rtol=1e-6, atol=1e-8)


def test_noise_is_a_share_of_the_range_of_each_sample():
    """Standard normal after division by noise · (max − min), whatever the sample's own scale; no two draws alike."""
    x = normal(2, 30) * torch.tensor([[1.0], [100.0]])
    spread = (x.amax(1) - x.amin(1)).view(2, 1, 1)
    z = (noisy_copies(x, 500, 0.2) - x[:, None]) / (0.2 * spread)
    assert (z.mean((1, 2)).abs() < 4 / math.sqrt(15_000)).all()
    assert (z.var((1, 2)) - 1).abs().max() < 4 * math.sqrt(2 / 15_000)
    assert len(z.flatten().unique()) == z.numel()


def test_smoothing_is_the_literal_loop():
    net, x, samples = deep_relu_net(), normal(3, 12), 17
    maps = torch.stack([InputXGradient()(net, copy, 2) for copy in noisy_copies(x, samples, 0.3, seed=5).unbind(1)])
    kind = {"of": InputXGradient(), "samples": samples, "noise": 0.3}
    torch.testing.assert_close(SmoothGrad(**kind)(net, x, 2, seed=5), maps.mean(0), **FLOAT64)
    torch.testing.assert_close(VarGrad(**kind)(net, x, 2, seed=5), maps.var(0, correction=0), **FLOAT64)
    torch.testing.assert_close(SmoothGradSquared(**kind)(net, x, 2, seed=5), (maps * maps).mean(0), **FLOAT64)


def test_mean_of_squares_is_variance_plus_squared_mean():
    net, x = deep_relu_net(), normal(3, 12)
    mean, variance, squares = (method(samples=9)(net, x, 2) for method in (SmoothGrad, VarGrad, SmoothGradSquared))
    torch.testing.assert_close(squares, variance + mean * mean, **FLOAT64)
    assert (variance > 0).any()


def test_noisy_copies_are_explained_for_the_class_of_the_original():
    net, x = deep_relu_net(), normal(4, 12)
    predicted = net(x).argmax(1)
    copies = noisy_copies(x, 16, 0.8)
    assert (net(copies.flatten(0, 1)).argmax(1).view(4, 16) != predicted[:, None]).any(), "noise must flip some"
    model, method = Model(net, chunk=1), SmoothGrad(samples=16, noise=0.8)
    assert torch.equal(method(model, x), method(model, x, predicted))


# --- Class activation maps


def test_cam_is_grad_cam_on_a_net_that_averages():
    """GradCAM's weights are CAM's divided by the number of positions; CAM keeps the sign, and adds up to the score."""
    net, x = convolutional(), normal(3, 3, 7, 7)
    cam = CAM()(net, x, 1)
    torch.testing.assert_close(GradCAM()(net, x, 1), cam.relu() / 49, **FLOAT64)
    assert (cam < 0).any()
    assert (cam > 0).any()
    score = (net(x)[:, 1] - net[-1].bias[1]).detach()
    torch.testing.assert_close(cam.mean((1, 2, 3)), score, **FLOAT64)


def test_grad_cam_is_the_literal_formula():
    net, x = convolutional(), normal(3, 3, 7, 7)
    maps = net[:3](x).detach().requires_grad_()
    gradient = torch.autograd.grad(net[3:](maps)[:, 1].sum(), maps)[0]
    expected = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    torch.testing.assert_close(GradCAM(layer="2")(net, x, 1), expected, **FLOAT64)


@pytest.mark.parametrize("layer", ["0", "2"])
@pytest.mark.parametrize("method", [GradCAM, InputXGradient, IntegratedGradients])
def test_an_operation_in_place_behind_the_layer_changes_nothing(method, layer):
    """A ReLU in place overwrites what a hook has recorded of the layer before it; the layer's own output is meant."""
    x = normal(3, 3, 7, 7)
    own, at = (GradCAM(layer=layer), None) if method is GradCAM else (method(), layer)
    apart, in_place = (own(convolutional(inplace), x, 1, at=at) for inplace in (False, True))
    torch.testing.assert_close(in_place, apart, **FLOAT64)
