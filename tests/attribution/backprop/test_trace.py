"""The trace: what arrives at an operation is what it hands on and what is absorbed, each by a formula of its own."""

import math

import pytest
import torch
from dense_reference import COMPOSITES
from engine_runs import Net
from torch import Tensor, nn
from torch.nn import functional as F
from toy_nets import TOYS, Toy

import whybox
from whybox import LRP, Model
from whybox.attribution.backprop import rules
from whybox.attribution.backprop.composites import Composite, Match
from whybox.attribution.backprop.kinds import products
from whybox.core.errors import ModelError
from whybox.core.explanation import Explanation
from whybox.core.model import Domain

EPSILON, LOW, HIGH, TARGET = 0.01, -2.0, 2.5, 1


@pytest.mark.parametrize(
    "composite", sorted(set(COMPOSITES) - {"epsilon_plus", "epsilon_alpha2_beta1_flat", "excitation"})
)
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_every_operation_accounts_for_all_relevance(toy: Toy, composite: str) -> None:
    net, inputs = toy.net(), tuple(x[:1] for x in toy.example(False))
    given = inputs if len(inputs) > 1 else inputs[0]
    model, lrp = Model(net, domain=Domain((LOW,), (HIGH,))), LRP(composite=composite, epsilon=EPSILON)
    trace = lrp.trace(model, given, TARGET)
    assert float(trace.gap.max()) < 1e-9
    assert float(trace.total_gap.max()) < 1e-9
    relevance = lrp(model, given, TARGET)
    total = sum(r.flatten(1).sum(1) for r in (relevance if isinstance(relevance, tuple) else (relevance,)))
    torch.testing.assert_close(trace.relevance, total, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(trace.score, net(*inputs)[:, TARGET], rtol=1e-9, atol=1e-12)


def traced(
    function: object, x: Tensor, composite: str | Composite = "epsilon", epsilon: float = 0.0, **parts: nn.Module
):
    return LRP(composite, epsilon).trace(Net(function, **parts).double(), x.double(), 0)


def absorbed(trace: whybox.Task) -> dict[str, list[float]]:
    return {cause: amount.sum(1).tolist() for cause, amount in trace.absorbed.items() if bool((amount != 0).any())}


def dense() -> nn.Linear:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, -1.0]]))
        layer.bias.copy_(torch.tensor([0.5]))
    return layer


X = torch.tensor([[3.0, 1.0], [1.0, 4.0]])  # z = 5.5 and −1.5


def test_bias_and_stabiliser_take_their_part_of_the_denominator() -> None:
    trace = traced(lambda net, x: net.layer(x), X, epsilon=0.1, layer=dense())
    expected = {"bias": [5.5 * 0.5 / 5.6, -1.5 * 0.5 / -1.6], "epsilon": [5.5 * 0.1 / 5.6, -1.5 * -0.1 / -1.6]}
    assert absorbed(trace) == {cause: pytest.approx(values) for cause, values in expected.items()}


def test_each_side_of_alpha_beta_charges_its_own_bias() -> None:
    composite = Composite(((Match(kind="dense"), rules.alpha_beta(2.0, 1.0, 0.0)),))
    trace = traced(lambda net, x: net.layer(x), X[:1], composite, layer=dense())
    assert absorbed(trace) == {"bias": [pytest.approx(2 * 5.5 * 0.5 / 6.5)]}  # positive part 6 + 0.5, negative −1 + 0


def test_a_rule_that_covers_only_some_outputs_absorbs_the_others() -> None:
    positive = rules.Rule("positive", (rules.Group(where="z>0"),))
    trace = traced(lambda net, x: net.layer(x), X, Composite(((Match(kind="dense"), positive),)), layer=dense())
    assert absorbed(trace) == {"bias": [0.5, 0.0], "rule": [0.0, -1.5]}
    assert float(trace.gap.max()) < 1e-12


def test_a_weight_of_zero_hands_nothing_on() -> None:
    layer = dense()
    nn.init.zeros_(layer.weight)
    composite = Composite(((Match(first=True), rules.w_squared()),))
    trace = traced(lambda net, x: net.layer(x), X, composite, layer=layer)
    assert absorbed(trace) == {"zero": [0.5, 0.5]}
    assert trace.relevance.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("function", "constant"),
    [
        (lambda net, x: x.relu() + 3, 3.0),
        (lambda net, x: x.relu() - torch.tensor([[3.0, 0.0]]), -3.0),
        (lambda net, x: F.pad(x.relu(), (1, 0), value=7.0), 7.0),
        (lambda net, x: x.relu().masked_fill(torch.tensor([[True, False]]), 7.0), 7.0),
        (lambda net, x: torch.where(torch.tensor([[False, True]]), x.relu(), torch.tensor(7.0).double()), 7.0),
        (lambda net, x: torch.cat([torch.ones(len(x), 1).double(), x.relu()], 1), 1.0),
        (lambda net, x: torch.maximum(x.relu(), torch.full_like(x, 9.0)), 9.0),
        (lambda net, x: torch.max(x.relu(), torch.full_like(x, 9.0)), 9.0),
        (lambda net, x: x.relu() + x.detach(), 3.0),
        (lambda net, x: x.relu().index_fill(1, torch.tensor([0]), 7.0), 7.0),
        (lambda net, x: overwritten(x.relu()), 7.0),
        (lambda net, x: x.relu().add_(3), 3.0),
        (lambda net, x: x.relu().softmax(1) + 1, 1.0),
    ],
)
def test_constants_take_what_they_contribute(function: object, constant: float) -> None:
    trace = traced(function, X[:1])
    assert absorbed(trace)["constant"] == [pytest.approx(constant)]
    assert float(trace.gap.max()) < 1e-12


def overwritten(x: Tensor) -> Tensor:
    x[:, 0] = 7.0
    return x


def written_into(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1:].fill_(0.7)
    x[:, :1].mul_(2)
    return torch.cat([x, x], 1)


@pytest.mark.parametrize(
    ("function", "own"),
    [
        (lambda x: F.pad(x, (1, 1), value=2.0), 2),
        (lambda x: F.pad(F.pad(x, (1, 0)), (0, 1), value=2.0), 2),
        (lambda x: torch.cat([x, torch.ones_like(x)], 1), 2),
        (lambda x: F.pad(x, (2, 0)).masked_fill(torch.tensor([[True, True, True, False]]), 0.5), 1),
        (written_into, 2),
    ],
)
def test_constants_beside_the_input_take_their_share_of_the_flat_rule(function: object, own: int) -> None:
    torch.manual_seed(0)
    flat = Composite(((Match(first=True), rules.flat()),))
    trace = traced(lambda net, x: net.last(function(x)), X[:1], flat, last=nn.Linear(4, 1))
    assert float(trace.gap.max()) < 1e-9
    assert float(trace.total_gap.max()) < 1e-9
    torch.testing.assert_close(trace.relevance, trace.score * own / 4)


def test_what_is_read_before_it_is_changed_in_place_absorbs_nothing_of_the_change() -> None:
    def changed(_net: nn.Module, x: Tensor) -> Tensor:
        h = x.tanh()
        before = h * 2
        h.sub_(1)
        return h + before

    trace = traced(changed, X[:1])
    assert absorbed(trace) == {"constant": [pytest.approx(-1.0)]}
    assert float(trace.gap.max()) < 1e-12


def test_softmax_takes_the_offset_of_its_tangent() -> None:
    trace = traced(lambda net, x: (x * torch.ones_like(x)).softmax(1), X)
    s = X.double().softmax(1)
    offset = s[:, 0] * (1 - X[:, 0] + (s * X).sum(1))
    assert absorbed(trace) == {"softmax": pytest.approx(offset.tolist())}


def test_layer_norm_charges_its_shift() -> None:
    norm = nn.LayerNorm(2)
    nn.init.constant_(norm.bias, 0.25)
    trace = traced(lambda net, x: net.norm(x), X, norm=norm)
    assert absorbed(trace) == {"bias": pytest.approx([0.25, 0.25])}


def test_a_batch_norm_behind_a_convolution_is_part_of_it_and_the_convolution_alone_of_nothing() -> None:
    torch.manual_seed(0)
    parts = {"conv": nn.Conv2d(1, 2, 3), "norm": nn.BatchNorm2d(2)}
    nn.init.uniform_(parts["norm"].running_mean)
    nn.init.uniform_(parts["norm"].bias)
    net = Net(lambda net, x: net.norm(net.conv(x)).mean((2, 3)), **parts).double().eval()
    x = torch.randn(1, 1, 5, 5).double()
    trace = LRP("epsilon", 0.01).trace(net, x, 0)
    conv = [step.kind for step in trace.steps].index("convolution")
    norm = [step.kind for step in trace.steps].index("batch_norm")
    assert trace.at_output[0, conv] == 0
    assert trace.at_output[0, norm] == pytest.approx(net(x)[0, 0].item())
    assert (trace.steps[conv].module, trace.steps[norm].module) == ("conv", "norm")


def test_what_the_rules_do_not_account_for_shows_as_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a product of two signals whose relevance is not halved."""

    def function(net: Net, x: Tensor) -> Tensor:
        return net.layer(x).relu() * x.sum(1, keepdim=True)

    assert float(traced(function, X[:1], layer=dense()).gap.max()) < 1e-12
    monkeypatch.setattr(products.Half, "backward", staticmethod(lambda ctx, *c: c[0]))
    wrong = traced(function, X[:1], layer=dense())
    assert float(wrong.gap.max()) > 0.3
    assert float(wrong.total_gap.max()) > 0.3
    assert wrong.steps[int(wrong.gap.argmax())].kind == "product"


def test_an_operation_taken_by_gradient_charges_the_offset_of_its_tangent() -> None:
    net = Net(lambda net, x: torch.erfinv(x / 10)).double()
    trace = LRP("epsilon", 0.0, unknown="gradient").trace(net, X.double(), 0)
    y = X[:, 0].double() / 10
    slope = math.sqrt(math.pi) / 2 * torch.exp(torch.erfinv(y) ** 2)
    assert absorbed(trace) == {"unknown": pytest.approx((torch.erfinv(y) - slope * y).tolist())}
    assert float(trace.gap.max()) < 1e-12


def test_samples_of_a_batch_are_told_apart() -> None:
    both = traced(lambda net, x: net.layer(x).relu(), X + 1, epsilon=0.1, layer=dense())
    for i in range(2):
        alone = traced(lambda net, x: net.layer(x).relu(), X[i : i + 1] + 1, epsilon=0.1, layer=dense())
        assert torch.equal(both.at_output[i : i + 1], alone.at_output)
        assert torch.equal(both.absorbed["bias"][i : i + 1], alone.absorbed["bias"])


def test_a_model_that_takes_another_way_for_another_sample_is_traced_one_by_one() -> None:
    net = Net(lambda net, x: x.relu() if x.sum() > 4.5 else x * 2)
    with pytest.raises(ModelError, match="one by one"):
        LRP().trace(net, X, 0)
    assert len(LRP().trace(net, X[:1], 0).steps) > 0
    explanation = whybox.explain(net, X, LRP(), 0)
    assert "trace" not in explanation.details
    (check,) = (check for check in explanation.checks if check.name == "conservation gap")
    assert bool(check.passed.all())


def test_an_operation_with_several_outputs_is_one_step() -> None:
    def function(net: Net, x: Tensor) -> Tensor:
        a, b = x.relu().chunk(2, 1)
        return a + 2 * b

    trace = traced(function, X)
    (chunk,) = (i for i, step in enumerate(trace.steps) if step.name == "torch.Tensor.chunk")
    assert trace.at_output[:, chunk].tolist() == trace.at_input[:, chunk].tolist() == [5.0, 9.0]


def test_a_layer_inside_is_where_the_trace_ends() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    trace = LRP("epsilon").trace(net, X, 0, at="1")
    assert {step.module for step in trace.steps} <= {"", "2"}
    torch.testing.assert_close(trace.relevance, LRP("epsilon")(net, X, 0, at="1").sum(1).double())


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.layer(x) / (x - x).sum(1, keepdim=True),  # 0 / 0 and 1 / 0, forward and backward
        lambda net, x: (net.layer(x) - net.layer(x)) / (x - x).sum(1, keepdim=True),
    ],
)
def test_what_is_not_finite_names_the_operation_where_it_began(function: object) -> None:
    with pytest.raises(ModelError, match=r"torch.Tensor.div in module ''"):
        LRP("epsilon")(Net(function, layer=dense()), X, 0)


def test_explain_reports_conservation_and_keeps_the_trace(tmp_path: object) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    explanation = whybox.explain(net, torch.rand(2, 1, 5, 5), "lrp(composite='epsilon_plus')", 0)
    (check,) = (check for check in explanation.checks if check.name == "conservation gap")
    assert bool(check.passed.all())
    absorbed = sum(explanation.details["absorbed"].values())
    total = explanation.relevance.flatten(1).sum(1).double() + absorbed
    torch.testing.assert_close(total, explanation.scores.double(), rtol=1e-4, atol=1e-6)
    explanation.save(tmp_path / "kept.safetensors")
    kept = Explanation.load(tmp_path / "kept.safetensors")
    assert kept.details["trace"]["steps"] == explanation.details["trace"]["steps"]
    assert torch.equal(kept.details["trace"]["at_output"], explanation.details["trace"]["at_output"])


def test_a_trace_prints_as_a_table() -> None:
    text = str(traced(lambda net, x: net.layer(x).relu(), X, epsilon=0.1, layer=dense())).splitlines()
    assert text[0].split() == ["operation", "module", "kind", "rule", "arrives", "handed", "on", "bias", "epsilon"]
    assert any(line.startswith("linear") and " dense " in line for line in text)
