"""Targets: each kind on each shape of output, pinned, against a literal; what is wrong is refused with advice."""

import numpy
import pytest
import torch
from torch import nn

from whybox import (
    Contrast,
    Domain,
    ExpectedGradients,
    Function,
    GradCAM,
    Gradient,
    IntegratedGradients,
    Logit,
    LogProbability,
    Model,
    Neuron,
    Probability,
    SmoothGrad,
    Target,
    VarGrad,
)
from whybox.core.errors import ModelError, TargetError, UnknownNameError
from whybox.core.target import _whole, as_target, class_name

N = 4


def output(*shape):
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(len(shape) + 3))


def scored(target, out):
    return as_target(target).pin(len(out), out).score(out)


# Values, one output shape after the other.


def test_classes():
    out = output(5)
    per = torch.tensor([4, 0, 2, 2])
    soft = (out.exp().T / out.exp().sum(1)).T
    rows = range(N)
    assert torch.equal(scored(3, out), out[:, 3])
    assert torch.equal(scored(None, out), out.max(1).values)
    assert torch.equal(scored(per, out), torch.stack([out[i, per[i]] for i in rows]))
    assert torch.equal(scored((3,), out), out[:, 3])
    torch.testing.assert_close(scored(Probability(per), out), torch.stack([soft[i, per[i]] for i in rows]))
    torch.testing.assert_close(scored(Probability(), out), soft.max(1).values)
    torch.testing.assert_close(scored(LogProbability(1), out), soft[:, 1].log())
    assert torch.equal(scored(Contrast(1, per.where(per != 1, 0)), out), out[:, 1] - out.gather(1, per[:, None])[:, 0])
    ordered = out.sort(1, descending=True).values
    torch.testing.assert_close(scored(Contrast(), out), ordered[:, 0] - ordered[:, 1])
    best_but_2 = out[:, [0, 1, 3, 4]].max(1).values
    torch.testing.assert_close(scored(Contrast(2), out), out[:, 2] - best_but_2)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_single_output(shape):
    out = output(*shape)
    flat = out.reshape(N)
    for target in (0, None, [0] * N):
        assert torch.equal(scored(target, out), flat)
    torch.testing.assert_close(scored(Probability(), out), 1 / (1 + (-flat).exp()))
    torch.testing.assert_close(scored(LogProbability(0), out), -(1 + (-flat).exp()).log())
    with pytest.raises(TargetError, match="single output: explain that one, or pass a function"):
        scored(1, out)
    with pytest.raises(TargetError, match="two classes, but the model has a single output"):
        scored(Contrast(), out)


def test_dense_outputs():
    out = output(3, 4, 5)
    per = torch.tensor([2, 0, 1, 1])
    rows = range(N)
    torch.testing.assert_close(scored(1, out), out[:, 1].sum((1, 2)))
    torch.testing.assert_close(scored(per, out), torch.stack([out[i, per[i]].sum() for i in rows]))
    assert torch.equal(scored((2, 3, 4), out), out[:, 2, 3, 4])
    torch.testing.assert_close(scored(Probability((2, 3, 4)), out), out.softmax(1)[:, 2, 3, 4])
    torch.testing.assert_close(scored(Probability(1), out), out.softmax(1)[:, 1].sum((1, 2)))
    torch.testing.assert_close(scored(LogProbability(1), out), out.log_softmax(1)[:, 1].sum((1, 2)))
    torch.testing.assert_close(
        scored(Contrast((0, 1, 1), (2, 1, 1)), out), out[:, 0, 1, 1] - out[:, 2, 1, 1]
    )  # the class at one place against another there
    most = [out[i].argmax(0).flatten().bincount(minlength=3).argmax() for i in rows]
    torch.testing.assert_close(scored(None, out), torch.stack([out[i, most[i]].sum() for i in rows]))


def test_token_outputs():
    out = output(6, 7)
    assert torch.equal(scored((5, 6), out), out[:, 5, 6])
    assert _whole((numpy.int64(5), numpy.uint8(6))) == (5, 6)
    with pytest.raises(TargetError, match=r"integers, as in \(c, y, x\)"):
        _whole((1.0, 2))


def test_functions():
    out = output(5)
    assert torch.equal(scored(lambda out: out[:, 1] * out[:, 2], out), out[:, 1] * out[:, 2])
    assert torch.equal(scored(nn.Sequential(nn.Flatten(0)), output()), output())
    assert Function(test_functions).describe(0) == "the function test_functions"
    for wrong in (lambda out: out, lambda out: out.sum(), lambda out: 1.0):
        with pytest.raises(TargetError, match=r"one scalar a row, shape \(4,\)"):
            scored(wrong, out)


@pytest.mark.parametrize(
    "given",
    [2, numpy.int64(2), numpy.uint8(2), numpy.array(2), torch.tensor(2), [2] * N, range(2, 3), numpy.array([2] * N),
     torch.tensor([2] * N, dtype=torch.uint8), Logit(2), Logit(torch.tensor([2] * N))],
    ids=repr,
)  # fmt: skip
def test_ways_to_write_one_class(given):
    out = output(5)
    if isinstance(given, range):
        given = list(given) * N
    pinned = as_target(given).pin(N, None)
    assert torch.equal(pinned.score(out), out[:, 2])
    assert not pinned.predicts
    assert pinned.rows(torch.tensor([1, 1, 3])).index.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "target 5 is out of range: the classes go from 0 to 4"),
        (-1, "target -1 is out of range: the classes go from 0 to 4"),
        ([0, 1, 2, 9], "target 9 is out of range"),
        ([0, 1], r"shape \(2,\); give one class for all, or one for each of the 4 samples"),
        (torch.zeros(N, 1).long(), "one for each of the 4 samples"),
        ((1, 2), "a tuple is one entry for all samples, a list or tensor one class for each"),
        ((5,), "names no entry"),
        ((-1,), "names no entry"),
        ((True,), "integers"),
        (1.5, "a target is a class index, one index per sample"),
        (True, "a target is a class index, .* not True"),
        (numpy.True_, "integer class index, not torch.bool"),
        ("cat", "a target is a class index, .* not 'cat'"),
        (["cat"] * N, "a target is a class index"),
        ({}, "a target is a class index"),
        ([0.5] * N, "an integer class index, not torch.float"),
        (torch.ones(N), "an integer class index, not torch.float32"),
        (torch.ones(N, dtype=torch.bool), "an integer class index, not torch.bool"),
        (Contrast(1, 1), "two different classes; leave b out"),
        (Contrast((1,), (1,)), "two different classes"),
        (Contrast(torch.arange(4), 2), "two different classes"),
        (Contrast((1,)), "give b as well"),
        (Contrast(9), "out of range"),
        (Contrast(0, 9), "out of range"),
        (Probability(9), "out of range"),
        (Neuron("0", 9), "out of range"),
        (Neuron("0", (1, 1)), "names no entry"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_wrong_targets_are_refused_with_advice(given, says):
    net = nn.Sequential(nn.Linear(3, 5))
    with pytest.raises(TargetError, match=says):
        Gradient()(net, torch.randn(N, 3), given)


def test_nothing_is_known_of_a_prediction_without_an_output():
    for target in (Logit(), Contrast(1)):
        assert target.predicts
        with pytest.raises(TargetError):
            target.pin(N, None)
    assert not Contrast(1, 2).predicts


def test_descriptions():
    labels = ["cat", "dog", "2"]
    assert Logit(torch.tensor([1, 0])).describe(1, labels) == "the score of 'cat' (0)"
    assert Probability(1).describe(0) == "the probability of class 1"
    assert LogProbability().describe(0) == "the log-probability of the predicted class"
    assert Contrast(1, 0).describe(0, labels) == "the score of 'dog' (1) minus that of 'cat' (0)"
    assert Neuron("a.b", (1, 2)).describe(0) == "unit (1, 2) of layer 'a.b'"
    assert class_name(2, 0, labels) == "2"
    assert class_name(7, 0, labels) == "class 7"
    assert class_name((1, 2), 0, labels) == "entry (1, 2)"


# Neurons.


@pytest.fixture
def cnn():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 2), nn.Flatten(), nn.Linear(27, 2)
    )  # fmt: skip


@pytest.mark.parametrize("index", [1, (1, 2, 3)])
def test_neuron_against_an_explicit_hook(cnn, index):
    x = torch.randn(3, 2, 6, 6)
    seen = []
    handle = cnn[0].register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    leaf = x.clone().requires_grad_()
    cnn(leaf)
    handle.remove()
    unit = seen[0][:, 1].sum((1, 2)) if index == 1 else seen[0][:, 1, 2, 3]
    (expected,) = torch.autograd.grad(unit.sum(), leaf)
    torch.testing.assert_close(Gradient()(cnn, x, Neuron("0", index)), expected)


def test_neurons_that_cannot_be_explained(cnn):
    x = torch.randn(3, 2, 6, 6)
    with pytest.raises(UnknownNameError, match="there is no layer 'O'"):
        Gradient()(cnn, x, Neuron("O"))
    twice = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    twice = nn.Sequential(twice, twice)
    with pytest.raises(ModelError, match="runs 2 times in a forward pass; a target layer must run once"):
        Gradient()(twice, torch.randn(2, 3), Neuron("0.0"))
    behind = Gradient()(cnn, x, Neuron("0"), at="2")  # the neuron comes first: nothing behind it can change it
    assert torch.equal(behind, torch.zeros(3, 3, 3, 3))


# The choice is made once, on the originals.


class Flipping(nn.Module):
    """Two classes, of which the second wins once the first feature is below 0.7; counts what is asked of it."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x):
        self.asked.append(len(x))
        first = x.flatten(1)[:, 0]
        rest = x.flatten(1).square().sum(1)
        return torch.stack([rest * (first - 0.7), 3 * rest * (0.7 - first)], 1)


METHODS = [
    IntegratedGradients(steps=5),
    IntegratedGradients(),
    ExpectedGradients(samples=5),
    SmoothGrad(samples=5, noise=0.5),
    SmoothGrad(of=SmoothGrad(samples=3, noise=0.5), samples=3, noise=0.5),
    SmoothGrad(of=IntegratedGradients(steps=3), samples=3, noise=0.5),
    VarGrad(of=ExpectedGradients(samples=2), samples=3, noise=0.5),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_variants_never_predict_the_class_anew(method):
    """Along the path and under noise the prediction flips; the answer is that for the class named outright."""
    x = torch.tensor([[0.9, 0.4, 0.1], [0.2, 0.3, 0.5]])
    model = Model(Flipping(), chunk=2)
    predicted = method.run(model, x)
    after_none = list(model.module.asked)
    model.module.asked.clear()
    named = method.run(model, x, [0, 1])
    assert torch.equal(predicted.relevance, named.relevance)
    assert predicted.target.index.tolist() == [0, 1]
    assert sum(after_none) == sum(model.module.asked) + len(x)  # one more forward pass each, to predict
    assert not torch.allclose(named.relevance, method(model, x, [1, 0]), atol=1e-3)


class Recording(Target):
    """A target that says on which output it was pinned."""

    predicts = True

    def __init__(self):
        self.pinned_on = []

    def pin(self, rows, output):
        self.pinned_on.append(output)
        return self

    def score(self, output):
        return output[:, 0]

    def describe(self, sample, labels=None):
        return "recorded"


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_target_is_pinned_once_on_the_originals(method):
    x, target = torch.rand(3, 4), Recording()
    method.run(Flipping(), x, target)
    assert len(target.pinned_on) == 1
    assert torch.equal(target.pinned_on[0], Flipping()(x))


def test_the_runner_up_is_pinned_too():
    net = nn.Linear(3, 4)
    x = torch.randn(5, 3)
    answer = SmoothGrad(samples=4, noise=3.0).run(net, x, Contrast())
    ranked = net(x).argsort(1, descending=True)
    assert torch.equal(answer.target.a, ranked[:, 0])
    assert torch.equal(answer.target.b, ranked[:, 1])
    expected = net.weight[ranked[:, 0]] - net.weight[ranked[:, 1]]
    torch.testing.assert_close(answer.relevance, expected)


def test_a_target_per_sample_follows_its_sample_through_chunks():
    net, x = nn.Linear(3, 4), torch.randn(7, 3)
    target = torch.tensor([3, 1, 0, 2, 2, 1, 3])
    for chunk in (1, 2, 3, 7):
        model = Model(net, chunk=chunk, domain=Domain((-1.0,), (1.0,)))
        for method in (Gradient(), SmoothGrad(samples=5), SmoothGrad(of=SmoothGrad(samples=2), samples=2)):
            torch.testing.assert_close(method(model, x, target), net.weight[target].detach())


def test_a_grad_cam_for_each_sample_of_its_own_class():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    x = torch.randn(3, 1, 6, 6)
    together = GradCAM()(net, x, [2, 0, 1])
    apart = torch.cat([GradCAM()(net, x[i : i + 1], c) for i, c in enumerate([2, 0, 1])])
    torch.testing.assert_close(together, apart)
