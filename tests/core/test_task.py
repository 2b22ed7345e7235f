"""Asking the model: the same answer in chunks of any size, each sample with its own noise, nothing asked twice."""

import threading

import pytest
import torch
from torch import nn

import whybox
from memory import Peak
from whybox import (
    CAM,
    LIME,
    RISE,
    Domain,
    ExpectedGradients,
    External,
    GradCAM,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    InvariantPerturbation,
    KernelSHAP,
    Model,
    Occlusion,
    Patches,
    Sample,
    ShapleySampling,
    SmoothGrad,
    SmoothGradSquared,
    Superpixels,
    VarGrad,
)
from whybox.core.block import mix, noise_keys
from whybox.core.errors import InputError
from whybox.core.target import Logit
from whybox.core.task import Task

METHODS = [
    Gradient(),
    InputXGradient(),
    IntegratedGradients(steps=5),
    IntegratedGradients(steps=5, rule="riemann", baseline=whybox.GaussianNoise()),
    IntegratedGradients(tolerance=0.05),
    ExpectedGradients(samples=6),
    ExpectedGradients(samples=6, baseline=Sample()),
    SmoothGrad(samples=6),
    VarGrad(samples=6),
    SmoothGradSquared(of=InputXGradient(), samples=6),
    SmoothGrad(of=SmoothGrad(samples=3), samples=3),
    SmoothGrad(of=ExpectedGradients(samples=3), samples=9),
    SmoothGrad(of=ExpectedGradients(samples=3, baseline=Sample()), samples=9),
    SmoothGrad(of=IntegratedGradients(steps=3, baseline=Sample()), samples=3),
    GradCAM(),
    SmoothGrad(of=GradCAM(), samples=3),
    CAM(),
    Occlusion(window=3),
    Occlusion(regions=Superpixels(5), infill=whybox.GaussianNoise()),
    RISE(samples=9, cells=3),
    RISE(samples=9, regions=Patches(2), infill=Sample()),
    LIME(samples=30, regions=Patches(2)),
    LIME(samples=30, regions=Patches(2), infill=whybox.GaussianNoise(), features=2),
    KernelSHAP(Patches(2), samples=30),
    KernelSHAP(Patches(2), whybox.GaussianNoise(), samples=25),
    ShapleySampling(Patches(2), samples=60),
    ShapleySampling(Patches(2), Sample(), samples=40),
    InvariantPerturbation(delta=2.0, samples=2, penalty=1.0),
    InvariantPerturbation(search="stochastic", samples=3, steps=4),
    SmoothGrad(of=RISE(samples=3), samples=3),
    SmoothGrad(of=LIME(samples=20, regions=Patches(2)), samples=3),
]


def net():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Softplus(), nn.Conv2d(4, 5, 2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).double()  # fmt: skip


def pictures(n=5):
    return torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("at", [None, "1"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_chunk_size_does_not_matter(method, at):
    module, x = net(), pictures()
    answers = [method(Model(module, chunk=chunk), x, 1, seed=4, at=at) for chunk in (1, 2, 3, 7, 64, None)]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_same_seed_gives_the_same_bits(method):
    module, x = net().float(), pictures().float()
    first, again, other = (method(Model(module, chunk=3), x, 1, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    random = any(
        word in repr(method)
        for word in ("Smooth", "Var", "Expected", "Noise", "RISE", "LIME", "SHAP", "Shapley", "Invariant")
    )
    assert torch.equal(first, other) != random


@pytest.mark.parametrize("method", [m for m in METHODS if "Sample()" not in repr(m)], ids=repr)
def test_a_sample_does_not_depend_on_what_else_is_in_the_batch(method):
    """Its noise is that of its place; only `Sample` and a domain measured on the batch look at the others."""
    model = Model(net(), chunk=3, domain=Domain((-2.0,), (2.0,)))
    x = pictures(5)
    others = x.flip(0).clone()
    others[2] = x[2]
    together = method(model, x, 1)
    torch.testing.assert_close(method(model, others, 1)[2], together[2], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(method(model, x[:3], 1), together[:3], rtol=1e-6, atol=1e-9)


def test_each_place_has_noise_of_its_own():
    x = pictures(1).expand(4, -1, -1, -1)
    relevance = SmoothGrad(of=InputXGradient(), samples=3)(net(), x, 1)
    assert len({tuple(row.flatten().tolist()) for row in relevance}) == 4


def test_noise_keys_differ():
    keys = {mix(mix(key, draw), salt) for key in noise_keys(0, 20) for draw in range(20) for salt in (0, 1)}
    assert len(keys) == 800
    assert not set(noise_keys(0, 50)) & set(noise_keys(1, 50))
    assert noise_keys(7, 3) == noise_keys(7, 5)[:3]
    assert all(0 <= key < 2**63 for key in keys)


def test_the_noise_of_a_block_does_not_depend_on_the_block():
    x = torch.zeros(3, 4)
    task = Task(Model(nn.Identity(), chunk=64), x, Logit(0), noise_keys(1, 3))
    whole = torch.cat([block.normal() for block in task.blocks(30)])
    small = Task(Model(nn.Identity(), chunk=5), x, Logit(0), noise_keys(1, 3))
    blocks = list(small.blocks(30))
    assert torch.equal(torch.cat([block.normal() for block in blocks]), whole)
    assert len(blocks) > 1
    assert torch.equal(torch.cat([block.sample for block in blocks]), torch.arange(3).repeat_interleave(30))
    assert torch.equal(torch.cat([block.draw for block in blocks]), torch.arange(30).repeat(3))
    later = torch.cat([block.normal() for block in small.blocks(10, first=20)])
    assert torch.equal(later, whole.view(3, 30, 4)[:, 20:].reshape(30, 4))
    assert abs(float(whole.mean())) < 0.2
    assert abs(float(whole.std()) - 1) < 0.2


# What follows a sample, and what does not.


class Scaled(nn.Module):
    """Score: the input times a factor given by keyword, by sample or for all."""

    def forward(self, x, factor, shared=None, note=None):
        assert note == "a note"
        factor.mul_(2)  # in place on what it is given
        x = x * factor
        return x if shared is None else x * shared


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_keywords_follow_their_samples(chunk):
    x = torch.randn(5, 3)
    factor = torch.arange(1.0, 6.0)[:, None]
    kwargs = {"factor": factor, "note": "a note"}
    expected = torch.zeros(5, 3)
    expected[:, 1] = 2 * factor[:, 0]
    for method in (Gradient(), SmoothGrad(samples=4), SmoothGrad(of=SmoothGrad(samples=2), samples=20)):
        answer = method(Model(Scaled(), chunk=chunk), x, 1, forward_kwargs=kwargs)
        torch.testing.assert_close(answer, expected)
    assert torch.equal(factor[:, 0], torch.arange(1.0, 6.0))


@pytest.mark.parametrize("size", [4, 8, 32])
def test_a_shared_keyword_as_long_as_a_block_stays_whole(size):
    x, shared = torch.randn(2, size), torch.arange(1.0, size + 1)
    for samples in (2, 4, 16, 32):  # blocks of 4, 8 and 32 variants
        answer = SmoothGrad(of=SmoothGrad(samples=2), samples=samples)(
            Model(Scaled(), chunk=4),
            x,
            1,
            forward_kwargs={"factor": torch.ones(1), "shared": shared, "note": "a note"},
        )
        torch.testing.assert_close(answer[:, 1], torch.full((2,), 4.0))


class Two(nn.Module):
    """Two inputs of different ranks, one output."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))

    def forward(self, a, b):
        a.mul_(2)  # in place on its input
        return a @ self.weight.T + b.sum((1, 2))[:, None] * torch.tensor([1.0, 10.0])


@pytest.mark.parametrize(
    "method",
    [Gradient(), SmoothGrad(samples=3), IntegratedGradients(steps=3), IntegratedGradients(),
     ExpectedGradients(samples=3), VarGrad(samples=3),
     SmoothGrad(of=ExpectedGradients(samples=2, baseline=Sample()), samples=2)],
    ids=repr,
)  # fmt: skip
def test_several_inputs(method):
    a, b = torch.randn(3, 3), torch.randn(3, 2, 2)
    before = a.clone()
    answer = method.run(Model(Two(), chunk=2), (a, b), [1, 0, 1])
    grad_a = 2 * Two().weight[[1, 0, 1]].detach()
    grad_b = torch.tensor([10.0, 1, 10])[:, None, None].expand(3, 2, 2)
    relevance = answer.relevance
    assert [r.shape for r in relevance] == [a.shape, b.shape]
    assert torch.equal(a, before)
    if isinstance(method, VarGrad):
        assert max(float(r.abs().max()) for r in relevance) < 1e-6
    elif isinstance(method, (Gradient, SmoothGrad)) and "Expected" not in repr(method):
        torch.testing.assert_close(relevance[0], grad_a)
        torch.testing.assert_close(relevance[1], grad_b)
    elif isinstance(method, IntegratedGradients):
        torch.testing.assert_close(relevance[0], grad_a * a)
        torch.testing.assert_close(relevance[1], grad_b * b)


def test_an_input_without_influence_gets_zeros():
    class First(nn.Module):
        def forward(self, a, b):
            return a

    answer = Gradient()(First(), (torch.ones(2, 3), torch.ones(2, 4)), 0)
    assert torch.equal(answer[1], torch.zeros(2, 4))


def test_another_sample_is_drawn_for_all_inputs_together_and_never_the_own():
    seen = []

    class Seen(nn.Module):
        def forward(self, a, b):
            seen.extend(zip(a[:, 0].tolist(), b[:, 0].tolist(), strict=True))
            return a * b

    a = torch.arange(4.0)[:, None]
    IntegratedGradients(steps=1, baseline=Sample())(Seen(), (a, a + 10), 0, seed=1)
    whole = {(i, i + 10) for i in range(4)}
    assert {pair for pair in seen if pair[0] == int(pair[0])} <= whole
    seen.clear()
    ExpectedGradients(samples=30, baseline=Sample()).run(Model(Seen(), chunk=1), (a, a + 10), 0)
    # of each block, the scores of the baselines come after the gradients of its points
    baselines = [pair for pair in seen if pair in whole]
    assert len(set(baselines)) == 4


@pytest.mark.parametrize("n", [2, 3])
def test_expected_gradients_over_samples_equals_the_sum_over_the_others(n):
    """A linear model: R = x·w − w·E[x′], x′ never x itself."""
    torch.manual_seed(0)
    x, linear = torch.randn(n, 4), nn.Linear(4, 1)
    answer = ExpectedGradients(samples=400 if n > 2 else 8, baseline=Sample())(linear, x, 0)
    others = torch.stack([x[[j for j in range(n) if j != i]].mean(0) for i in range(n)])
    tolerance = 1e-5 if n == 2 else 0.15
    torch.testing.assert_close(answer, (x - others) * linear.weight.detach(), rtol=0, atol=tolerance)
    with pytest.raises(InputError, match="another sample of the batch, so it needs at least two"):
        ExpectedGradients(baseline=Sample())(linear, x[:1], 0)


# Costs.


class Count(nn.Module):
    """Counts rows forward and backward."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.rows = {"forward": 0, "backward": 0}

    def forward(self, x):
        self.rows["forward"] += len(x)
        output = self.module(x)
        if output.requires_grad:
            output.register_hook(lambda g: self.rows.__setitem__("backward", self.rows["backward"] + len(g)))
        return output


COSTS = [
    (Gradient(), 1, 1),
    (IntegratedGradients(steps=7), 9, 7),
    (ExpectedGradients(samples=5), 11, 5),
    (SmoothGrad(samples=6), 6, 6),
    (VarGrad(of=IntegratedGradients(steps=2), samples=3), 12, 6),
    (SmoothGrad(of=SmoothGrad(samples=2), samples=3), 6, 6),
    (Occlusion(window=2, stride=2), 10, 0),
    (Occlusion(regions=Patches(3)), 5, 0),
    (RISE(samples=7), 7, 0),
    (LIME(samples=11, regions=Patches(2)), 11, 0),
    (KernelSHAP(Patches(2), samples=23), 22, 0),
    (KernelSHAP(Patches(3), samples=23), 16, 0),
    (ShapleySampling(Patches(2), samples=40), 35, 0),
    (InvariantPerturbation(samples=2), 12, 6),
    (InvariantPerturbation(search="stochastic", samples=3, steps=4), 21, 12),
]


@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize(("method", "forwards", "backwards"), COSTS, ids=repr)
def test_nothing_is_asked_twice(method, forwards, backwards, chunk):
    counting, n = Count(net().float()), 5
    for target, predicting in ((1, 0), ([0, 1, 2, 0, 1], 0), (None, n)):
        counting.rows.update(forward=0, backward=0)
        answer = method.run(Model(counting, chunk=chunk), pictures(n).float(), target)
        assert counting.rows == {"forward": n * forwards + predicting, "backward": n * backwards}
        assert (answer.forwards, answer.backwards) == (n * forwards + predicting, n * backwards)
        assert answer.seconds > 0


def test_the_search_for_a_layer_costs_one_sample():
    counting = Count(net().float())
    answer = GradCAM().run(counting, pictures(5).float(), 1)
    assert counting.rows == {"forward": 6, "backward": 6} == {"forward": answer.forwards, "backward": answer.backwards}
    counting.rows.update(forward=0, backward=0)
    GradCAM(layer="module.1").run(counting, pictures(5).float(), 1)
    assert counting.rows == {"forward": 5, "backward": 5}


def test_external_counts_the_forwards_of_its_own_thread():
    module = nn.Linear(3, 2)

    def function(net, x, y):
        net(x)
        net(x[:1])
        other = threading.Thread(target=net, args=(x,))
        other.start()
        other.join()
        return x

    answer = External(function).run(module, torch.randn(4, 3), 0)
    assert (answer.forwards, answer.backwards) == (5, 0)
    assert External(function).run(module, torch.randn(4, 3)).forwards == 9


@pytest.mark.parametrize(
    "make",
    [
        lambda k: IntegratedGradients(steps=k),
        lambda k: IntegratedGradients(steps=k, rule="riemann"),
        lambda k: ExpectedGradients(samples=k),
        lambda k: SmoothGrad(samples=k),
        lambda k: VarGrad(samples=k),
        lambda k: SmoothGrad(of=IntegratedGradients(steps=2), samples=k),
        lambda k: SmoothGrad(of=SmoothGrad(samples=k), samples=1),
        lambda k: RISE(samples=k),
        lambda k: LIME(samples=k, regions=Patches(2)),
        lambda k: LIME(samples=k, regions=Patches(2), infill=Sample()),
    ],
)
def test_memory_does_not_grow_with_steps_or_samples(make):
    module, x = net().float(), pictures(3).float()
    peaks = []
    for steps in (32, 128):
        model = Model(module, chunk=8)
        model.chunk_size((x,), gradient=True)
        with Peak() as meter:
            make(steps)(model, x, 1)
        peaks.append(meter.peak)
    kept = 3 * 128 * 3 * 8  # at most a few numbers (no pictures) for every step of every sample
    assert peaks[1] <= peaks[0] + kept
    assert peaks[0] > 8 * x[0].numel() * 4  # the meter sees what is there


def test_memory_meter():
    with Peak() as meter:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1
        del a
        c = b + 1
        del b, c
        torch.zeros(500)
    assert (meter.peak, meter.now) == (8000, 0)


# Taps.


def test_relevance_inside_the_model_is_the_gradient_there():
    """Behind the layer a ReLU works in place."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 2))
    x = torch.randn(4, 1, 6, 6)
    hidden = model[0](x).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model[3](hidden.relu().flatten(1))[:, 1].sum(), hidden)
    torch.testing.assert_close(Gradient()(model, x, 1, at="0"), expected)
    torch.testing.assert_close(InputXGradient()(model, x, 1, at="0"), expected * hidden.detach())
    goal = model(x)[:, 1] - model[3](torch.zeros(4, 48))[:, 1]
    answer = IntegratedGradients(steps=64).run(model, x, 1, at="0")
    torch.testing.assert_close(answer.relevance.flatten(1).sum(1), goal.detach(), rtol=1e-3, atol=1e-3)


def test_a_layer_with_a_tuple_as_output():
    torch.manual_seed(0)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(3, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            states, last = self.gru(x)
            return self.head(states.mean(1)) + last.sum()

    model, x = Recurrent(), torch.randn(2, 5, 3)
    expected = (model.head.weight[1] / 5).detach().expand(2, 5, 4)
    torch.testing.assert_close(Gradient()(model, x, 1, at="gru"), expected)


def test_a_layer_with_a_mapping_or_named_tuple_as_output():
    from collections import OrderedDict, namedtuple

    pair = namedtuple("pair", ["first", "second"])
    for make in (
        lambda h: {"note": "a", "h": h},
        lambda h: OrderedDict(h=h),
        lambda h: pair(h, 1),
        lambda h: [h, h],
        lambda h: (None, h),
    ):

        class Inner(nn.Module):
            def forward(self, x, make=make):
                return make(x * 2)

        class Outer(nn.Module):
            def __init__(self, inner=Inner):
                super().__init__()
                self.inner = inner()

            def forward(self, x):
                out = self.inner(x)
                values = out.values() if isinstance(out, dict) else out
                return next(v for v in values if isinstance(v, torch.Tensor)) * 3

        x = torch.ones(2, 3)
        torch.testing.assert_close(Gradient()(Outer(), x, 1, at="inner")[:, 1], torch.full((2,), 3.0))


def test_hooks_of_the_user_run():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].register_forward_hook(lambda _m, _i, output: output * 5)
    expected = 5 * (model[1].weight @ model[0].weight)[1].detach().expand(2, 3)
    torch.testing.assert_close(Gradient()(model, torch.randn(2, 3), 1), expected)
    assert torch.equal(Gradient()(model, torch.randn(2, 3), 1, at="0"), model[1].weight[1].detach().expand(2, 3))


def test_domains():
    measured = Domain.measured(torch.tensor([[[1.0, 2], [5, 6]], [[-1, 0], [9, 8]]]))
    assert (measured.low, measured.high) == ((-1.0, 5.0), (2.0, 9.0))
    assert Domain.measured(torch.tensor([[1.0, 2], [5, -6]])).low == (-6.0,)
    low, high = measured.bounds(torch.zeros(3, 2, 4))
    assert (low.shape, high.flatten().tolist()) == ((1, 2, 1), [2.0, 9.0])
    given = Domain((0.0,), (1.0,))
    assert Model(nn.Identity(), domain=given).domain_of(torch.randn(2, 3, 4)) is given
    rgb = Domain((0.0,) * 3, (1.0,) * 3)
    assert Model(nn.Identity(), domain=rgb).domain_of(torch.ones(2, 1, 4)).source == "measured on the batch"


def test_a_measured_domain_is_that_of_the_originals_also_for_variants():
    """Noise widens the range of the values; the infill keeps to that of the batch."""
    seen = []

    class Wide(SmoothGrad):
        def attribute(self, task):
            seen.append(task.domains())
            return task.inputs

    x = torch.tensor([[0.0, 1.0], [0.5, 0.2]])
    SmoothGrad(of=SmoothGrad(of=Wide(), samples=2), samples=3, noise=5.0)(nn.Identity(), x, 0)
    assert all(domains == (Domain((0.0,), (1.0,), "measured on the batch"),) for domains in seen)


def test_inside_of_a_wrapper_every_variant_has_noise_of_its_own():
    keys = []

    class Seen(SmoothGrad):
        def attribute(self, task):
            keys.extend(task.keys)
            return task.inputs

    SmoothGrad(of=SmoothGrad(of=Seen(), samples=3), samples=4)(Model(nn.Identity(), chunk=5), torch.randn(2, 3), 0)
    assert len(keys) == 2 * 4 * 3 == len(set(keys))


def test_memory_of_sizes_is_kept_by_the_model():
    model = Model(nn.Linear(3, 2))
    x = torch.randn(5, 3)
    size = model.chunk_size((x,), gradient=True)
    assert model.chunk_size((x[:2],), gradient=True) is size
    assert model.chunk_size((x,), gradient=False) is not size
    assert model.chunk_size((torch.randn(5, 4),), gradient=True) is not size
    model.chunk = 3
    assert model.chunk_size((x,), gradient=True).size == 3
