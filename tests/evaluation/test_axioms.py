"""Axioms against literal loops and closed forms: completeness, non-sensitivity, input invariance."""

import copy

import pytest
import torch
from planted import Known, planted
from torch import Tensor, nn

import whybox
from whybox import (
    LRP,
    Black,
    Completeness,
    Constant,
    DeconvNet,
    Domain,
    GradCAM,
    Gradient,
    GuidedBackprop,
    Imputed,
    InputInvariance,
    InputXGradient,
    IntegratedGradients,
    Model,
    NonSensitivity,
    Occlusion,
    Patches,
    Pixels,
    RandomMap,
    SmoothGrad,
    Superpixels,
    UniformNoise,
    Zero,
)
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case


def net(padding: int = 1) -> nn.Module:
    torch.manual_seed(1)
    size = 4 + 2 * padding
    head = nn.Linear(4 * size * size, 3)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=padding), nn.ReLU(), nn.Flatten(), head).double()


def pictures(n: int = 3) -> Tensor:
    return torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def score(f: nn.Module, x: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(f(x[None])[0, target])


# Completeness


@pytest.mark.parametrize("baseline", [Zero(), Constant(0.3), Black()], ids=repr)
def test_completeness_against_loops(baseline):
    f, x, target = net(), pictures(), torch.tensor([0, 2, 1])
    relevance = InputXGradient()(f, x, target)
    found = Completeness(baseline).run(Model(f, domain=Domain((0.1,), (1.0,))), x, target, relevance)
    value = {Zero(): 0.0, Constant(0.3): 0.3, Black(): 0.1}[baseline]
    for i in range(3):
        difference = score(f, x[i], target[i]) - score(f, torch.full_like(x[i], value), target[i])
        total = sum(relevance[i].flatten().tolist())
        assert float(found.details["difference"][i]) == pytest.approx(difference, rel=1e-9)
        assert float(found.values[i]) == pytest.approx(abs(total - difference) / abs(difference), rel=1e-9)
        assert bool(found.details["passed"][i]) == (abs(total - difference) <= 0.01 * abs(difference))
    assert found.forwards == 6


def test_completeness_is_a_gap_and_no_equality_of_floats():
    """Quantus asks whether two float sums are equal: integrated gradients hardly ever pass."""
    f, x = net().float(), pictures().float()
    relevance = IntegratedGradients(steps=300, rule="riemann")(f, x, 1)
    found = Completeness(tolerance=1e-2).run(f, x, 1, relevance)
    assert (found.details["sum"] != found.details["difference"]).all()
    assert found.details["passed"].all()
    assert (found.values < 1e-2).all()
    shifted = Completeness().run(f, x, 1, relevance + 1)
    assert not shifted.details["passed"].any()


def test_a_complete_map_leaves_nothing_over_and_a_random_one_much():
    given = planted(6)
    assert (Completeness()(given.model, given.inputs, 1, given.perfect) < 1e-12).all()
    random = RandomMap()(given.model, given.inputs, 1)
    assert (Completeness()(given.model, given.inputs, 1, random) > 0.1).all()


def test_where_the_baseline_has_the_same_score_there_is_no_share():
    f = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        f.weight.copy_(torch.tensor([[1.0, -1.0]]))
    x = torch.tensor([[2.0, 2.0], [2.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    relevance = torch.tensor([[2.0, -2.0], [1.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    found = Completeness().run(f, x, 0, relevance)
    assert found.values[[0, 2]].tolist() == [0, 0]
    assert torch.isnan(found.values[1])
    reason = "the baseline has the same score, and the relevance another sum than 0"
    assert found.skipped[reason].tolist() == [False, True, False]
    assert found.details["passed"].tolist() == [True, False, True]


def test_baselines_that_are_none():
    with pytest.raises(InputError, match="no baseline"):
        Completeness(Imputed())(net(), pictures(), 0, pictures())
    with pytest.raises(InputError, match="tolerance"):
        Completeness(tolerance=-0.1)


def test_the_baseline_is_scored_once_for_all_explanations():
    with started(net(), pictures(), 0) as task:
        samples = Samples(task)
        first, second = (Completeness().score(as_case(samples, r)) for r in (pictures(), -pictures()))
    assert (first.forwards, second.forwards) == (6, 0)


# Non-sensitivity


@pytest.mark.parametrize("size", [1, 2, 4])
def test_non_sensitivity_against_loops(size):
    f, x, target = net(), pictures(), torch.tensor([0, 2, 1])
    with torch.no_grad():  # the head looks at the upper half only
        f[3].weight.view(3, 4, 6, 6)[:, :, 3:] = 0
    relevance = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    relevance[:, :, 1] = 0
    relevance[:, :, 5] *= -1
    relevance[0, :, 4:] = 0
    found = NonSensitivity(Patches(size), Constant(0.5)).run(f, x, target, relevance)
    for i in range(3):
        effects, amounts = [], []
        for row in range(0, 6, size):
            for column in range(0, 6, size):
                where = (slice(None), slice(row, row + size), slice(column, column + size))
                changed = x[i].clone()
                changed[where] = 0.5
                effects.append(abs(score(f, x[i], target[i]) - score(f, changed, target[i])))
                amounts.append(float(relevance[i][where].abs().sum()))
        wrong = [(e > 1e-5 * max(effects)) != (a > 1e-5 * max(amounts)) for e, a in zip(effects, amounts, strict=True)]
        assert int(found.details["violations"][i]) == sum(wrong)
        assert float(found.values[i]) == pytest.approx(sum(wrong) / len(wrong))
    assert sum(found.details["violations"].tolist()) > 0
    assert found.forwards == 3 * (1 + (-(-6 // size)) ** 2)


def test_exact_contributions_violate_nothing():
    given = planted()
    found = NonSensitivity(Pixels()).run(given.model, given.inputs, 1, given.perfect)
    assert (found.values == 0).all()
    assert torch.equal(found.details["relevant"].view(4, 1, 12, 12), given.truth)


def test_negative_relevance_is_relevance():
    """Quantus compares the signed value with the threshold: without `abs`, evidence against counts as none."""
    given = planted()
    assert (NonSensitivity(Pixels())(given.model, given.inputs, 1, -given.perfect) == 0).all()


def test_relevance_of_any_scale():
    """The threshold is relative: a map, or a score, in small units is not taken for zero."""
    given = planted()
    assert (NonSensitivity(Pixels())(given.model, given.inputs, 1, 1e-9 * given.perfect) == 0).all()


def test_the_chance_of_non_sensitivity():
    given = planted(2)
    metric = NonSensitivity(Patches(3))
    with started(given.model, given.inputs, 1) as task:
        samples = Samples(task)
        found = torch.stack(
            [
                metric.score(as_case(samples, RandomMap()(given.model, given.inputs, 1, seed=s))).values
                for s in range(50)
            ]
        )
        chance = metric.chance(as_case(samples, given.perfect))
    # 4 × 4 patches, of which the square at 3 … 6 meets those in rows and columns 1 and 2.
    assert chance.tolist() == [12 / 16] * 2
    assert torch.allclose(found.mean(0), chance, atol=1e-3)


def test_regions_of_different_number_and_infills_of_every_kind():
    given = planted()
    for infill in (UniformNoise(), Imputed(), Zero()):
        found = NonSensitivity(Superpixels(9), infill).run(given.model, given.inputs, 1, given.perfect)
        assert ((found.values >= 0) & (found.values <= 1)).all()
    with pytest.raises(InputError, match="tolerance"):
        NonSensitivity(tolerance=1.0)


# Input invariance

UNCHANGED = [
    Gradient(),
    SmoothGrad(samples=4),
    GuidedBackprop(),
    DeconvNet(),
    IntegratedGradients(steps=8, baseline=Black()),
    GradCAM("0"),
]
CHANGED = [
    InputXGradient(),
    IntegratedGradients(steps=8),
    LRP(composite="epsilon"),
    SmoothGrad(of=InputXGradient(), samples=4),
    Occlusion(window=2, infill=Zero()),
]


@pytest.mark.parametrize("method", UNCHANGED, ids=repr)
@pytest.mark.parametrize("shift", [-1.0, 0.7])
def test_methods_that_do_not_see_the_shift(method, shift):
    f, x = net(), pictures()
    found = InputInvariance(shift).run(f, x, 1, method(f, x, 1), method=method)
    assert (found.values < 1e-9).all()
    assert found.details["passed"].all()


@pytest.mark.parametrize("method", CHANGED, ids=repr)
@pytest.mark.parametrize("shift", [-1.0, 0.7])
def test_methods_that_see_the_shift(method, shift):
    f, x = net(), pictures()
    found = InputInvariance(shift).run(f, x, 1, method(f, x, 1), method=method)
    assert (found.values > 0.1).all()
    assert not found.details["passed"].any()


@pytest.mark.parametrize(
    "method", [Gradient(), InputXGradient(), IntegratedGradients(steps=8), LRP("epsilon")], ids=repr
)
def test_the_shift_is_that_of_the_first_bias(method):
    """The paper's construction, x + c and b − Wc, where nothing is padded; c is a share of the widest channel."""
    f, x = net(padding=0), pictures()
    domain = Domain((0.0, -1.0), (1.0, 2.0))
    c = 0.5 * 3.0
    other = copy.deepcopy(f)
    with torch.no_grad():
        other[0].bias -= c * f[0].weight.sum((1, 2, 3))
        x_other = x + c
        assert torch.allclose(other(x_other), f(x))
    relevance = method(f, x, 1)
    by_paper = (method(other, x_other, 1) - relevance).flatten(1).norm(dim=1) / relevance.flatten(1).norm(dim=1)
    found = InputInvariance(0.5)(Model(f, domain=domain), x, 1, relevance, method=method)
    assert torch.allclose(found, by_paper, rtol=1e-3, atol=1e-9)


def test_a_composite_that_hands_through_a_rescaling_takes_the_shift_for_one():
    """The limit that the docstring states: in the first bias the same shift would show."""
    f, x, method = net(padding=0), pictures(), LRP("epsilon_plus")
    other = copy.deepcopy(f)
    with torch.no_grad():
        other[0].bias += f[0].weight.sum((1, 2, 3))
    relevance = method(f, x, 1)
    in_the_bias = (method(other, x - 1, 1) - relevance).flatten(1).norm(dim=1) / relevance.flatten(1).norm(dim=1)
    assert (in_the_bias > 0.1).all()
    assert (InputInvariance()(Model(f, domain=Domain((0.0,), (1.0,))), x, 1, relevance, method=method) < 1e-9).all()


def test_input_x_gradient_changes_by_the_shift_times_the_gradient():
    f, x = Model(net(), domain=Domain((0.0,), (1.0,))), pictures()
    gradient = Gradient()(f, x, 1)
    expected = gradient.flatten(1).norm(dim=1) / (x * gradient).flatten(1).norm(dim=1)
    found = InputInvariance(-1.0)(f, x, 1, x * gradient, method=InputXGradient())
    assert torch.allclose(found, expected, rtol=1e-9)


def test_padding_does_not_disturb_the_shift():
    """Where the first layer pads with zeros, no bias makes up for a shift; Quantus takes the bias of one place."""
    f, x = net(padding=1), pictures()
    found = InputInvariance().run(f, x, 1, Gradient()(f, x, 1), method=Gradient())
    assert (found.values < 1e-12).all()


def test_the_model_is_as_before_whatever_happens():
    f, x = net(), pictures()
    before = f(x).detach()

    def fails(module, inputs, target):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        InputInvariance()(f, x, 1, x, method=whybox.External(fails))
    assert not f._forward_pre_hooks
    assert torch.equal(f(x), before)


def test_a_callable_of_another_library_sees_the_shifted_model():
    def gradient(module, inputs, target):
        leaf = inputs.requires_grad_()
        return torch.autograd.grad(module(leaf).gather(1, target[:, None]).sum(), leaf)[0]

    f, x = net(), pictures()
    theirs = whybox.External(gradient)
    times_input = whybox.External(lambda m, i, t: i.detach() * gradient(m, i.clone(), t))
    assert (InputInvariance()(f, x, 1, theirs(f, x, 1), method=theirs) < 1e-9).all()
    assert (InputInvariance()(f, x, 1, times_input(f, x, 1), method=times_input) > 0.1).all()


def test_settings_of_the_shift():
    with pytest.raises(InputError, match="other than 0"):
        InputInvariance(shift=0.0)
    constant = torch.ones(1, 2, 6, 6, dtype=torch.float64)
    with pytest.raises(InputError, match="no width"):
        InputInvariance()(net(), constant, 1, constant, method=Gradient())
    found = InputInvariance().run(net(), pictures(), 1, torch.zeros(3, 1, 6, 6), method=Gradient())
    assert found.skipped["no relevance anywhere"].all()
    assert torch.isnan(found.values).all()


@pytest.mark.parametrize("metric", [Completeness(), NonSensitivity(Patches(2)), InputInvariance()], ids=repr)
def test_a_sample_is_scored_as_it_is_alone(metric):
    given = planted()
    whole = metric(given.model, given.inputs, 1, given.perfect, method=Known())
    alone = metric(given.model, given.inputs[:1], 1, given.perfect[:1], method=Known())
    assert torch.allclose(whole[:1], alone, rtol=1e-9)


def test_tokens_have_no_noise():
    tokens = torch.randint(0, 9, (3, 6))
    module = nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(InputError, match=r"choose an infill such as Zero\(\)"):
        whybox.metric("non_sensitivity")(module, tokens, 1, torch.rand(3, 6))
    found = whybox.metric("non_sensitivity(infill=Zero())")(module, tokens, 1, torch.rand(3, 6))
    assert torch.isfinite(found).all()
