"""Studies against loops and planted answers; real trainings only where nothing less shows the outcome."""

import copy
import dataclasses
import importlib
import json
import pickle
import pkgutil

import pytest
import scipy.stats
import torch
from torch import nn

import whybox
from whybox import (
    ROAR,
    Consensus,
    DataRandomisation,
    EdgeDetector,
    External,
    Gradient,
    GuidedBackprop,
    ImplementationInvariance,
    InputXGradient,
    RandomMap,
    Study,
)
from whybox.core import names, registry
from whybox.core.card import card
from whybox.core.errors import InputError
from whybox.evaluation.studies.roar import _ranks
from whybox.evaluation.studies.study import Findings

ALL = [getattr(whybox, place.partition(":")[2]) for place in names.STUDIES.values()]


def test_the_table_is_the_tree():
    for module in pkgutil.walk_packages(whybox.evaluation.__path__, "whybox.evaluation."):
        importlib.import_module(module.name)
    found = {registry.name_of(cls): f"{cls.__module__}:{cls.__name__}" for cls in Study.__subclasses__()}
    assert found == names.STUDIES


@pytest.mark.parametrize("cls", ALL)
def test_a_study_is_a_value_that_says_what_it_does(cls):
    study = cls()
    assert json.loads(json.dumps(study.config()))["name"] == registry.name_of(cls)
    assert pickle.loads(pickle.dumps(study)) == study
    assert hash(study) == hash(cls())
    about = card(cls)
    assert about.summary.endswith(".")
    assert about.cost
    assert about.limits
    assert about.source
    assert set(about.fields) == {field.name for field in dataclasses.fields(cls)}


def test_the_table_in_columns():
    rows = [{"method": "gradient", "gap": 0.5}, {"method": "lrp", "gap": 12.0}]
    assert str(Findings(rows)).splitlines() == ["method    gap", "gradient  0.500", "lrp       12.000"]
    assert str(Findings([])) == ""


# ROAR


class Centroids(nn.Module):
    """The class whose mean is nearest: a model that is trained at once, and the same one every time."""

    def __init__(self, inputs, labels):
        super().__init__()
        means = torch.stack([inputs[labels == k].mean(0) for k in range(2)]).flatten(1)
        self.weight = nn.Parameter(2 * means)
        self.bias = nn.Parameter(-means.square().sum(1))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


class Trainer:
    """Fits centroids, keeps what it was given, and may stop in the middle."""

    def __init__(self, stop_after=None):
        self.given, self.stop_after = [], stop_after

    def __call__(self, inputs, labels, seed):
        if len(self.given) == self.stop_after:
            raise KeyboardInterrupt
        self.given.append((inputs.clone(), labels.clone(), seed))
        model = Centroids(inputs, labels)
        inputs.zero_()  # a training may work in place
        return model


def table(count, seed=0):
    """Ten columns, of which the first tells the class."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (count,), generator=generator)
    x[:, 0] = 6.0 * y + 0.1 * x[:, 0]
    return x, y


def first_column(module, x, y):
    return (torch.arange(x.shape[1]) == 0).to(x).expand_as(x)


KNOWS = External(first_column, "knows")
WRONG = External(lambda *given: -first_column(*given), "wrong")


def test_roar_finds_the_column_that_tells_the_class():
    found = ROAR((0.1, 0.5)).run(Trainer(), table(200), table(200, 1), [KNOWS, WRONG])
    accuracy = {(row["method"], row["removed"]): row["accuracy"] for row in found.rows}
    assert set(accuracy) == {(m, f) for m in ("knows", "wrong", "random_map") for f in (0.1, 0.5)}
    assert float(found.details["nothing removed"]) == 1.0
    assert accuracy["knows", 0.1] < 0.65
    assert accuracy["wrong", 0.5] == 1.0
    for row in found.rows:
        assert row["below_random"] == pytest.approx(accuracy["random_map", row["removed"]] - row["accuracy"])
        assert row["undefined"] == 0
    assert found.rows[0]["below_random"] > 0.2
    blank = External(lambda module, x, y: torch.zeros_like(x), "blank")
    rows = ROAR((0.5,)).run(Trainer(), table(20), table(10, 1), [blank]).rows
    assert [row["undefined"] for row in rows] == [30, 0]


def test_what_roar_removes_against_loops():
    """The most relevant places of each picture, at the mean of the training data's channel there and in the test."""
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.rand(n, 2, 3, 3, generator=generator, dtype=torch.float64) for n in (6, 4))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    before = train.clone(), labels.clone(), test.clone()
    fit, scored = Trainer(), []

    class Recorded(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            scored.append(x.detach().clone())
            return self.inner(x)

    ROAR((0.4,)).run(lambda *given: Recorded(fit(*given)), (train, labels), (test, labels[:4]), [InputXGradient()])
    model = Centroids(train, labels)

    def reduced(x):
        leaf = x.clone().requires_grad_()
        out = model(leaf)
        out[torch.arange(len(x)), out.argmax(1)].sum().backward()
        relevance, result = (leaf.grad * x).sum(1).flatten(1), x.clone()
        for i in range(len(x)):
            for place in relevance[i].argsort(descending=True)[: round(0.4 * 9)].tolist():
                for channel in range(2):
                    result[i, channel, place // 3, place % 3] = train[:, channel].mean()
        return result

    assert torch.allclose(fit.given[2][0], reduced(train), atol=1e-12)
    assert [seed for *_, seed in fit.given] == [0, 0, 0, 0]  # whole, to be explained, and a share by each method
    seen = torch.cat(scored)
    assert all((seen - picture).flatten(1).abs().amax(1).min() < 1e-12 for picture in reduced(test))
    assert all(torch.equal(a, b) for a, b in zip((train, labels, test), before, strict=True))


def test_roar_goes_on_where_it_was_stopped(tmp_path):
    study, data = ROAR((0.1, 0.5), repeats=2), (table(60), table(60, 1))
    whole, path = Trainer(), tmp_path / "roar.json"
    expected = study.run(whole, *data, [KNOWS], seed=3)
    assert len(whole.given) == 2 + 1 + 2 * 2 * 2
    stopped = Trainer(stop_after=6)
    with pytest.raises(KeyboardInterrupt):
        study.run(stopped, *data, [KNOWS], seed=3, path=path)
    rest = Trainer()
    assert study.run(rest, *data, [KNOWS], seed=3, path=path).rows == expected.rows
    assert len(rest.given) == len(whole.given) - 6 + 1  # the model that is explained is trained once more
    nothing = Trainer(stop_after=0)
    assert study.run(nothing, *data, [KNOWS], seed=3, path=path).rows == expected.rows
    assert [seed for *_, seed in whole.given[:3]] == [3, 4, 3]
    for other in ({"seed": 4}, {"seed": 3, "test": table(60, 2)}):
        with pytest.raises(InputError, match="another study"):
            study.run(nothing, data[0], other.pop("test", data[1]), [KNOWS], path=path, **other)
    path.write_text("{")
    with pytest.raises(InputError, match="not written by ROAR"):
        study.run(nothing, *data, [KNOWS], seed=3, path=path)


def test_roar_refuses_what_cannot_be():
    for fields in ({"fractions": ()}, {"fractions": (0.0,)}, {"repeats": 0}):
        with pytest.raises(InputError):
            ROAR(**fields)
    x, y = table(10)
    with pytest.raises(InputError, match="10 inputs, but 9 labels"):
        ROAR().run(Trainer(), (x, y[:9]), (x, y), [KNOWS])
    with pytest.raises(InputError, match="whole numbers"):
        ROAR().run(Trainer(), (x, y.double()), (x, y), [KNOWS])
    with pytest.raises(InputError, match="at least one"):
        ROAR().run(Trainer(), (x, y), (x, y), [])
    with pytest.raises(InputError, match="each method once"):
        ROAR().run(Trainer(), (x, y), (x, y), ["gradient", Gradient()])


# Real trainings on the digits.


def fit_mlp(inputs, labels, seed, steps=60):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def digits():
    return tuple(whybox.datasets.load("digits", split) for split in ("train", "test"))


def test_roar_on_digits(digits):
    train, test = digits
    found = ROAR((0.3, 0.9)).run(fit_mlp, train, test, ["input_magnitude"])
    accuracy = {(row["method"], row["removed"]): row["accuracy"] for row in found.rows}
    assert float(found.details["nothing removed"]) > 0.9
    for method in ("input_magnitude", "random_map"):
        assert accuracy[method, 0.9] < accuracy[method, 0.3]
    # What is removed by brightness leaves its shape behind, and the shape tells the class.
    assert accuracy["input_magnitude", 0.3] > 0.8
    assert accuracy["random_map", 0.9] < accuracy["random_map", 0.3] - 0.2


def test_gradients_change_with_what_was_learned(digits):
    train, test = (tuple(part[:200] for part in data) for data in digits)
    found = DataRandomisation().run(
        lambda x, y, seed: fit_mlp(x, y, seed, 400), train, test[0][:40], [Gradient(), EdgeDetector()]
    )
    rows = {row["method"]: row for row in found.rows}
    assert found.details["accuracy"] == 1.0
    assert found.details["accuracy_shuffled"] > 0.95
    assert rows["edge_detector"]["signed"] == pytest.approx(1.0)
    assert rows["gradient"]["signed"] < 0.5
    assert rows["random_map"]["absolute"] == pytest.approx(1.0)


def test_data_randomisation_against_loops():
    x, y = table(50)
    fit = Trainer()
    found = DataRandomisation().run(fit, (x, y), table(5, 1)[0], [InputXGradient()], seed=2)
    shuffled = fit.given[1][1]
    assert torch.equal(shuffled.sort().values, y.sort().values)
    assert not torch.equal(shuffled, y)
    assert torch.equal(fit.given[0][1], y)
    inputs = table(5, 1)[0]
    models = Centroids(x, y), Centroids(x, shuffled)
    for i, index in enumerate(models[0](inputs).argmax(1).tolist()):
        maps = [(model.weight[index] * inputs[i]).detach() for model in models]
        assert float(found.details["likeness"]["input_x_gradient"].signed[i]) == pytest.approx(
            scipy.stats.spearmanr(*maps).statistic, abs=1e-9
        )
    assert found.details["accuracy"] == 1.0
    assert found.details["accuracy_shuffled"] < 0.8
    blank = External(lambda module, x, y: torch.zeros_like(x), "blank")
    assert DataRandomisation().run(Trainer(), (x, y), inputs, [blank]).rows[0]["undefined"] == 5


# ImplementationInvariance


class Doubled(nn.Module):
    """The same function: every input goes in as relu(x) − relu(−x)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(torch.relu(x) - torch.relu(-x))


def test_methods_of_the_function_and_methods_of_the_graph():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)).double().eval()
    x = torch.randn(6, 8, dtype=torch.float64)
    same = Doubled(copy.deepcopy(net)).eval()
    of_function = ["gradient", "integrated_gradients(steps=8)", "occlusion"]
    found = ImplementationInvariance().run(net, same, x, [*of_function, GuidedBackprop()])
    invariant = {row["method"]: row["invariant"] for row in found.rows}
    assert all(invariant[name.partition("(")[0]] == 1.0 for name in of_function)
    assert invariant["guided_backprop"] < 1.0
    guided = [GuidedBackprop()(model, x, net(x).argmax(1)) for model in (net, same)]
    expected = (guided[0] - guided[1]).abs().amax(1) / guided[0].abs().amax(1)
    assert torch.allclose(found.details["gap"]["guided_backprop"], expected, atol=1e-12)


def test_models_that_differ_are_refused():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    one, other, wide = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(8, 4)
    for second, words in ((other, "differ by"), (wide, "in shape")):
        with pytest.raises(InputError, match=words):
            ImplementationInvariance().run(one, second, x, ["gradient"])


# Consensus


def linear(weight):
    net = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    with torch.no_grad():
        net.weight.copy_(weight)
    return net


def test_consensus_against_loops():
    generator = torch.Generator().manual_seed(0)
    models = {name: linear(torch.randn(2, 9, generator=generator, dtype=torch.float64)) for name in "abc"}
    x = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    found = Consensus().run(models, x, 1, [InputXGradient()])
    maps = [net.weight[1].detach() * x for net in models.values()]
    for m, row in enumerate(found.rows[:3]):
        scores, others = [], []
        for i in range(4):
            committee = sum(map[i] / map[i].norm() for map in maps) / 3
            scores.append(float(maps[m][i] @ committee / maps[m][i].norm() / committee.norm()))
            others += [scipy.stats.spearmanr(maps[m][i], maps[k][i]).statistic for k in range(3) if k != m]
        assert row["consensus"] == pytest.approx(sum(scores) / 4, abs=1e-12)
        assert row["others"] == pytest.approx(sum(others) / 8, abs=1e-9)
        assert found.details["consensus"]["input_x_gradient"][m].tolist() == pytest.approx(scores, abs=1e-12)
    assert {row["method"] for row in found.rows} == {"input_x_gradient", "random_map", "input_magnitude"}
    assert all(row["consensus"] == pytest.approx(1.0) for row in found.rows[3:])  # they ignore the models


def test_a_stranger_stands_out_and_unrelated_models_agree_by_chance():
    generator = torch.Generator().manual_seed(0)
    x = torch.ones(2, 400, dtype=torch.float64)

    def noise():
        return torch.randn(2, 400, generator=generator, dtype=torch.float64)

    common = noise()
    committee = {name: linear(common + 0.5 * noise()) for name in "abcd"} | {"stranger": linear(noise())}
    rows = Consensus().run(committee, x, 0, [Gradient()]).rows[:5]
    assert min(rows, key=lambda row: row["consensus"])["model"] == "stranger"
    assert min(rows, key=lambda row: row["others"])["model"] == "stranger"
    unrelated = Consensus().run({str(k): linear(noise()) for k in range(9)}, x, 0, [Gradient()])
    mean = sum(row["consensus"] for row in unrelated.rows[:9]) / 9
    assert unrelated.details["chance"] == pytest.approx(1 / 3)
    assert mean == pytest.approx(1 / 3, abs=0.05)


def test_a_blank_map_has_no_vote():
    x = torch.ones(2, 4, dtype=torch.float64)
    models = {"a": linear(torch.eye(4).double()), "b": linear(torch.eye(4).double()), "c": linear(torch.zeros(4, 4))}
    rows = Consensus().run(models, x, 1, [Gradient()]).rows[:3]
    assert [row["undefined"] for row in rows] == [0, 0, 2]
    assert [row["consensus"] for row in rows[:2]] == pytest.approx([1.0, 1.0])


def test_a_consensus_needs_several_models_and_one_question():
    x = torch.ones(2, 4)
    with pytest.raises(InputError, match="at least two"):
        Consensus().run({"a": nn.Linear(4, 2)}, x, 0, [RandomMap()])
    with pytest.raises(InputError, match="target="):
        Consensus().run({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2)}, x, None, [RandomMap()])


def test_roar_takes_positions_of_a_map_that_is_not_finite_at_random():
    train = torch.rand(30, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2
    orders = []
    for value in (0.0, torch.nan):

        def function(module, x, y, value=value):
            relevance = torch.arange(6.0).repeat(len(x), 1)
            relevance[0] = 0.0
            relevance[0, 1] = value
            return relevance

        orders.append(_ranks(Centroids(*train), External(function), train[0], 0))
    assert orders[0][1] == orders[1][1] == 1
    assert torch.equal(orders[0][0], orders[1][0])


def test_roar_refuses_tokens_and_methods_that_cannot_be_told_apart():
    tokens = torch.randint(0, 9, (8, 6)), torch.arange(8) % 2
    with pytest.raises(InputError, match="floating point"):
        ROAR().run(Centroids, tokens, tokens, ["gradient"])
    numbers = tokens[0].float(), tokens[1]
    alike = [External(lambda module, x, y: x), External(lambda module, x, y: -x)]
    with pytest.raises(InputError, match="a name of its own"):
        ROAR().run(Centroids, numbers, numbers, alike)
