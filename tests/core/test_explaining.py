"""explain: the record is complete, and its checks have the values they must have in planted cases."""

import math

import pytest
import scipy.stats
import torch
from torch import nn

import whybox
from whybox import Contrast, Domain, External, Gradient, InputXGradient, Model, Neuron, Probability, explain
from whybox.core.errors import ModelError
from whybox.evaluation.controls import edges
from whybox.evaluation.randomisation import randomised
from whybox.evaluation.similarity import rank_correlation

WEIGHTS, EDGES = "likeness to the map of random weights", "likeness to an edge detector"


def net(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, outputs))


@pytest.fixture
def x():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def checks(method, x, model=None, **options):
    return {check.name: check for check in explain(model or net(), x, method, **options).checks}


def test_the_record(x):
    module = net()
    model = Model(module, name="net", chunk=2, labels=["a", "b", "c"], domain=Domain((-3.0,), (3.0,)))
    answer = explain(model, x, "smooth_grad(of=gradient, samples=3)", [2, 0], seed=4)
    method = whybox.SmoothGrad(samples=3)
    assert torch.equal(answer.relevance, method(model, x, [2, 0], seed=4))
    assert torch.equal(answer.inputs, x)
    assert answer.method == method.config()
    assert answer.target == ("the score of 'c' (2)", "the score of 'a' (0)")
    torch.testing.assert_close(answer.outputs, module(x).detach())
    torch.testing.assert_close(answer.scores, module(x).detach()[[0, 1], [2, 0]])
    assert (answer.model, answer.labels, answer.domains) == ("net", ("a", "b", "c"), (model.domain,))
    assert (answer.forwards, answer.backwards, answer.seed, answer.at) == (6, 6, 4, None)
    assert answer.seconds > 0
    assert answer.versions["torch"] == torch.__version__
    assert [check.name for check in answer.checks] == [WEIGHTS, EDGES]
    assert repr(answer) == "Explanation(net, smooth_grad, the score of 'c' (2), …, relevance (2, 1, 8, 8))"
    assert explain(model, x, "gradient", checks=False).checks == ()


def shuffled(dead):
    """Stands in for `randomised`: the copies with these seeds give zeros for everything."""

    def copy(model, seed):
        alive = randomised(model, seed)
        if seed in dead:
            nn.init.zeros_(alive.module[-1].weight)
        return alive

    return copy


def test_a_copy_of_random_weights_that_is_dead_is_shuffled_again(x, monkeypatch):
    expected = checks("gradient", x, seed=2)[WEIGHTS].values
    monkeypatch.setattr(whybox.explaining, "randomised", shuffled({0, 1}))
    found = {check.name: check for check in explain(net(), x, "gradient").checks}[WEIGHTS]
    again = rank_correlation(Gradient()(net(), x), Gradient()(randomised(Model(net()), 2), x, net()(x).argmax(1))).abs()
    torch.testing.assert_close(found.values, again)
    torch.testing.assert_close(expected, again)
    assert "However" not in found.says
    monkeypatch.setattr(whybox.explaining, "randomised", shuffled(range(100)))
    found = checks("gradient", x)[WEIGHTS]
    assert found.values.tolist() == [0, 0]
    assert "the copy's own map is the same everywhere" in found.says


def test_a_contrast_is_held_against_the_model_itself(x):
    """No check against random weights of what was searched for; of a contrast made of maps there is."""
    generator = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    searched = whybox.XGEM(whybox.latent.Latent.of(generator, 2), starts=1, rounds=1)
    names = [set(checks(method, x, target=Contrast())) for method in (searched, whybox.WeightedContrast(Gradient()))]
    assert WEIGHTS not in names[0]
    assert {"no contrast found", EDGES} <= names[0]
    assert WEIGHTS in names[1]


def test_scores_of_other_targets(x):
    module = net()
    out = module(x).detach()
    torch.testing.assert_close(explain(module, x, "gradient", Probability(1)).scores, out.softmax(1)[:, 1])
    top = out.sort(1, descending=True).values
    torch.testing.assert_close(explain(module, x, "gradient", Contrast()).scores, top[:, 0] - top[:, 1])
    torch.testing.assert_close(explain(module, x, "gradient", lambda out: out.sum(1)).scores, out.sum(1))
    neuron = explain(module, x, "gradient", Neuron("0", 2))
    torch.testing.assert_close(neuron.scores, module[0](x)[:, 2].sum((1, 2)).detach())
    assert neuron.target[0] == "unit 2 of layer '0'"
    inside = explain(module, x, "gradient", at="1")
    assert inside.relevance.shape == (2, 4, 6, 6)
    assert inside.at == "1"
    assert [check.name for check in inside.checks] == [WEIGHTS]  # no picture to have edges


def test_a_map_that_ignores_the_weights_fails(x):
    """The edges themselves: they know nothing of the model."""
    found = checks(External(lambda module, x, y: edges(x)), x)
    for name in (WEIGHTS, EDGES):
        torch.testing.assert_close(found[name].values, torch.ones(2, dtype=torch.float64))
        assert not found[name].passed.any()


def test_a_map_that_is_the_weights_passes():
    """A linear model's gradient is its weights: shuffled they correlate by chance only."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(400, 1))
    x = torch.randn(2, 1, 20, 20)
    found = checks(Gradient(), x, module)
    shuffled = randomised(Model(module), 0).module[1].weight.detach()
    expected = abs(scipy.stats.spearmanr(module[1].weight.detach()[0], shuffled[0]).statistic)
    assert expected < 0.15
    torch.testing.assert_close(found[WEIGHTS].values, torch.full((2,), expected, dtype=torch.float64))
    assert found[WEIGHTS].passed.all()
    assert found[EDGES].passed.all()


def test_a_constant_map_does_not_pass(x):
    found = checks(External(lambda module, x, y: torch.ones_like(x)), x)
    assert found[WEIGHTS].values.isnan().all()
    assert not found[WEIGHTS].passed.any()
    assert found[EDGES].values.isnan().all()  # a flat map shows nothing, so it is not unlike the edges either


def test_a_map_that_is_constant_for_random_weights_only_passes(x):
    module = net()

    def function(given, x, y):
        return x if given is module else torch.zeros_like(x)

    assert checks(External(function), x, module)[WEIGHTS].values.tolist() == [0, 0]


def test_a_failing_control_does_not_take_the_answer_with_it(x):
    module = net()

    def function(given, x, y):
        if given is not module:
            raise ModelError("no such layer")
        return x

    check = checks(External(function), x, module)[WEIGHTS]
    assert check.values.isnan().all()
    assert check.says.endswith("Not measured: no such layer")

    class Single(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("there is only one")

    single = checks(Gradient(), torch.randn(2, 3), Single(3, 2))
    assert "there is only one" in single[WEIGHTS].says


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4))

        def forward(self, a, b):
            return (a * self.weight).sum(1) + b.sum(1)

    a, b = torch.randn(3, 4), torch.randn(3, 2)
    answer = explain(Two(), (a, b), InputXGradient(), 0)
    assert [r.shape for r in answer.relevance] == [(3, 4), (3, 2)]
    torch.testing.assert_close(answer.relevance[1], b)
    assert len(answer.domains) == 2
    assert answer.sample(1).relevance[1].shape == (1, 2)


def test_the_model_comes_back(x):
    module = net().train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    explain(module, x, "integrated_gradients")
    assert module.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


# What the checks are made of.


def test_randomised_keeps_the_values_and_moves_them():
    module = nn.Sequential(nn.Linear(9, 7), nn.BatchNorm1d(7))
    module[1].running_mean.uniform_()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    copy = randomised(Model(module, labels=["a"], chunk=3), seed=1)
    for name, value in copy.module.state_dict().items():
        assert torch.equal(module.state_dict()[name], before[name])
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
    assert not torch.equal(copy.module[0].weight, module[0].weight)
    assert not torch.equal(copy.module[0].bias, module[0].bias)
    assert torch.equal(copy.module[1].running_mean, module[1].running_mean)
    assert (copy.labels, copy.chunk) == (("a",), 3)
    assert torch.equal(randomised(Model(module), 1).module[0].weight, copy.module[0].weight)
    assert not torch.equal(randomised(Model(module), 2).module[0].weight, copy.module[0].weight)


def test_shared_parameters_stay_shared():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    copy = randomised(Model(module)).module
    assert copy[1].weight is copy[0].weight


def test_rank_correlation_against_scipy():
    a, b = torch.randn(3, 2, 5, 4), torch.randn(3, 1, 5, 4).round()  # with ties
    expected = [scipy.stats.spearmanr(a[i].sum(0).flatten(), b[i].flatten()).statistic for i in range(3)]
    torch.testing.assert_close(rank_correlation(a, b), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(rank_correlation(a, 3 * a.sum(1, keepdim=True) + 1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(rank_correlation(-a, a), -torch.ones(3, dtype=torch.float64))
    rows = torch.randn(2, 6)
    torch.testing.assert_close(rank_correlation(rows, rows.exp()), torch.ones(2, dtype=torch.float64))
    assert math.isnan(rank_correlation(torch.ones(1, 4), torch.ones(1, 4)))
    assert rank_correlation(torch.ones(1, 4), torch.arange(4.0)[None]) == 0
    assert rank_correlation(torch.randn(3), torch.randn(3)).shape == (3,)


def test_edges_against_loops():
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    found = edges(x)
    sobel = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    for i in range(2):
        for r in range(5):
            for c in range(4):
                strength = 0.0
                for k in range(3):
                    across = down = 0.0
                    for dr in (-1, 0, 1):
                        for dc in (-1, 0, 1):
                            value = float(x[i, k, min(max(r + dr, 0), 4), min(max(c + dc, 0), 3)])
                            across += sobel[dr + 1][dc + 1] * value
                            down += sobel[dc + 1][dr + 1] * value
                    strength += math.hypot(across, down)
                assert float(found[i, 0, r, c]) == pytest.approx(strength)


def test_a_copy_that_is_dead_for_one_sample_leaves_the_others_alone(x, monkeypatch):
    """Sample 1 is blank for the first copy; sample 0 is compared with the first copy's map all the same."""
    made = []

    def copy(model, seed):
        made.append(randomised(model, seed))
        return made[-1]

    def function(given, x, y):
        maps = Gradient()(given, x, y)
        if made and given is made[0].module:
            maps[1] = 0
        return maps

    monkeypatch.setattr(whybox.explaining, "randomised", copy)
    found = checks(External(function), x)[WEIGHTS].values
    y = net()(x).argmax(1)
    maps = [Gradient()(one, x, y) for one in made]
    assert len(maps) == 2
    expected = rank_correlation(Gradient()(net(), x, y), torch.stack((maps[0][0], maps[1][1]))).abs()
    torch.testing.assert_close(found, expected)
