"""InvariantPerturbation: the linear program against other ways to solve it, and the box against what it promises."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

from whybox import Contrast, Domain, InvariantPerturbation, Model, Patches, Pixels, RandomMap
from whybox.attribution.masks import widest_box as program
from whybox.attribution.masks.widest_box import widest_box
from whybox.core.errors import InputError, ModelError, TargetError
from whybox.core.regions import Regions

UNIT = Domain((0.0,), (1.0,))
HARD = math.inf


class Linear(nn.Module):
    """Scores W x + b of a flat input."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def linear(classes: int, size: int, seed: int = 0) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, size, generator=generator, dtype=torch.float64)
    return Linear(weight, torch.randn(classes, generator=generator, dtype=torch.float64))


def table(n: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def knapsack(h: numpy.ndarray, room: float, limit: float) -> float:
    """The largest Σ w with |h|·w ≤ room, w ≤ limit, each value besides free in the direction that costs nothing."""
    total = limit * len(h)  # falling or rising, whichever helps the class
    for cost in sorted(abs(h)):
        width = limit if cost == 0 else min(limit, room / cost)
        total, room = total + width, room - width * cost
    return total


def literal(
    slopes: list[numpy.ndarray], rooms: list[float], limit: float, penalty: float, method: str
) -> scipy.optimize.OptimizeResult:
    """The program of the specification written out, one entry after the other; the variables are u, v and r."""
    size = len(slopes[0])
    rows = []
    for h in slopes:
        row = [0.0] * (2 * size + 1)
        for place, slope in enumerate(h):
            if slope > 0:
                row[size + place] = slope
            else:
                row[place] = -slope
        row[-1] = -1.0
        rows.append(row)
    cost = [-1.0] * (2 * size) + [2 * size * penalty]
    bounds = [(0.0, limit)] * (2 * size) + [(0.0, None)]
    return scipy.optimize.linprog(cost, A_ub=rows, b_ub=rooms, bounds=bounds, method=method)


def random_program(seed: int, rivals: int, size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(seed)
    slopes = random.normal(size=(rivals, size)) * random.choice([0, 1], size=(rivals, size), p=[0.2, 0.8])
    return slopes, random.normal(0.1, 0.2, size=rivals)


def value(box: program.Box, penalty: float) -> float:
    return float(box.fall.sum() + box.rise.sum() - 2 * len(box.fall) * penalty * box.slack)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("method", ["highs-ds", "highs-ipm"])
def test_the_program_has_the_optimum_of_the_literal_one(
    seed: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Solved with a few constraints at a time, as with all of them."""
    monkeypatch.setattr(program, "AT_ONCE", 3)
    slopes, rooms = random_program(seed, 8, 6)
    penalty = 10.0 ** (seed % 4 - 3)
    box = widest_box((-slopes).clip(0), slopes.clip(0), rooms, 0.1, penalty)
    known = literal(list(slopes), rooms.tolist(), 0.1, penalty, method)
    assert value(box, penalty) == pytest.approx(-known.fun, abs=1e-7)
    excess = (-slopes).clip(0) @ box.fall + slopes.clip(0) @ box.rise - rooms - box.slack
    assert excess.max() < 1e-6
    assert min(box.fall.min(), box.rise.min(), box.slack) >= 0
    assert max(box.fall.max(), box.rise.max()) <= 0.1


@pytest.mark.parametrize("seed", range(10))
def test_the_program_has_the_optimum_of_all_its_vertices(seed: int) -> None:
    """Two values and two constraints: every vertex lies where five of the 12 bounds and constraints are equalities."""
    slopes, rooms = random_program(seed, 2, 2)
    penalty, limit = 0.05, 0.1
    rows = [[*(-h).clip(0), *h.clip(0), -1.0] for h in slopes]
    sides = rooms.tolist()
    for place in range(5):
        rows.append([-float(place == other) for other in range(5)])
        sides.append(0.0)
        if place < 4:
            rows.append([float(place == other) for other in range(5)])
            sides.append(limit)
    matrix, side = numpy.array(rows), numpy.array(sides)
    gain = numpy.array([1.0] * 4 + [-2 * 2 * penalty])
    best = -numpy.inf
    for chosen in map(list, itertools.combinations(range(len(rows)), 5)):
        if abs(numpy.linalg.det(matrix[chosen])) > 1e-9:
            vertex = numpy.linalg.solve(matrix[chosen], side[chosen])
            if (matrix @ vertex <= side + 1e-9).all():
                best = max(best, float(gain @ vertex))
    box = widest_box((-slopes).clip(0), slopes.clip(0), rooms, limit, penalty)
    assert value(box, penalty) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("size", [1, 5, 40])
def test_two_classes_without_slack_are_a_fractional_knapsack(size: int) -> None:
    net, x = linear(2, size), table(4, size)
    found = InvariantPerturbation(samples=0, penalty=HARD).run(Model(net, domain=UNIT), x)
    scores = net(x).detach()
    assert (found.details["slack"] == 0).all()
    for i, c in enumerate(scores.argmax(1).tolist()):
        h = (net.weight[1 - c] - net.weight[c]).detach().numpy()
        room = float(scores[i, c] - scores[i, 1 - c])
        total = float((found.details["fall"][i] + found.details["rise"][i]).sum())
        assert total == pytest.approx(knapsack(h, room, 0.1), abs=1e-12)


@pytest.mark.parametrize("samples", [0, 3])
def test_the_constraints_are_those_of_the_formula(samples: int) -> None:
    """On a smooth model with noise: f and h at the noisy draws, drawn here as the block draws them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    span, x = torch.tensor(2.0, dtype=torch.float64), table(1, 4)
    method = InvariantPerturbation(samples=samples, penalty=0.02)
    drawn = []
    original = torch.randn

    def spy(*size: object, **options: object) -> Tensor:
        drawn.append(original(*size, **options))  # type: ignore[call-overload]
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", spy)
        found = method.run(Model(net, domain=Domain((-1.0,), (1.0,))), x, 1, seed=5)
    slopes, rooms = [], []
    for draw in range(1 + samples):
        n = 0.05 * drawn[draw] if draw else torch.zeros(4, dtype=torch.float64)
        point = (x[0] + span * n).requires_grad_()
        for rival in (0, 2):
            scores = net(point)
            (slope,) = torch.autograd.grad(scores[rival] - scores[1], point)
            h = slope * span
            slopes.append(h.numpy())
            rooms.append(float((scores[1] - scores[rival]).detach() + (h * n).sum()))
    known = literal(slopes, rooms, 0.1, 0.02, "highs")
    box = (found.details["fall"][0].sum() + found.details["rise"][0].sum()) - 2 * 4 * 0.02 * found.details["slack"][0]
    assert float(box) == pytest.approx(-known.fun, abs=1e-9)
    relevance = 0.2 - (known.x[:4] + known.x[4:8])
    assert found.relevance[0].tolist() == pytest.approx(relevance.tolist(), abs=1e-9)


def test_no_point_of_the_box_changes_the_class_of_a_linear_model() -> None:
    """All corners; and where the box is wider than it may be, the worst one does."""
    net, x = linear(4, 8, seed=1), table(3, 8)
    found = InvariantPerturbation(delta=1.0, samples=0, penalty=HARD).run(Model(net, domain=UNIT), x)
    fall, rise = found.details["fall"], found.details["rise"]
    classes = net(x).argmax(1)
    signs = torch.tensor(list(itertools.product([False, True], repeat=8)))
    for i in range(3):
        for wider, holds in ((1.0 - 1e-9, True), (1.05, False)):
            corners = x[i] + wider * torch.where(signs, rise[i], -fall[i])
            assert bool((net(corners).argmax(1) == classes[i]).all()) == holds
    assert all(bool(check.passed.all()) for check in found.checks)


def test_the_slack_is_what_a_rival_may_lead_by() -> None:
    """With the paper's penalty the worst corner of a linear model is lost by exactly r, which the details say."""
    net, x = linear(3, 8, seed=2), table(2, 8)
    found = InvariantPerturbation(penalty=1e-4).run(Model(net, domain=UNIT), x)
    fall, rise = found.details["fall"], found.details["rise"]
    signs = torch.tensor(list(itertools.product([False, True], repeat=8)))
    for i, c in enumerate(net(x).argmax(1).tolist()):
        scores = net(x[i] + torch.where(signs, rise[i], -fall[i])).detach()
        lead = scores[:, [c]] - torch.cat((scores[:, :c], scores[:, c + 1 :]), 1)
        assert float(found.details["slack"][i]) == pytest.approx(max(0.0, -float(lead.min())), abs=1e-6)
    assert (found.details["slack"] > found.details["margin"]).any()


SQUARE = slice(8, 16)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_usual_penalty_does_not_depend_on_the_scale_of_the_scores(scale: float) -> None:
    """One constraint, on its way to be violated: the values that count more than the average one give way."""
    weight = torch.tensor([[0.0] * 5, [0.1, 1.0, -2.0, 0.2, 3.0]], dtype=torch.float64)
    net = Linear(scale * weight, torch.tensor([scale * 1.2, 0.0], dtype=torch.float64))
    x = torch.full((1, 5), 0.5, dtype=torch.float64)
    found = InvariantPerturbation(samples=0).run(Model(net, domain=UNIT), x, 0)
    assert found.relevance[0].tolist() == pytest.approx([0, 0, 0.1, 0, 0.1], abs=1e-9)
    cheap = InvariantPerturbation(samples=0, penalty=1e-4 / scale)(Model(net, domain=UNIT), x, 0)
    assert (cheap.abs() < 1e-9).all()


class Bright(nn.Module):
    """Class 1 where a square is bright; the brightness of the other pixels counts for nothing."""

    def forward(self, x: Tensor) -> Tensor:
        odds = 12 * (x[..., SQUARE, SQUARE].mean((1, 2, 3)) - 0.5)
        return torch.stack((-odds, odds), 1) / 2


def pictures(n: int = 2) -> Tensor:
    return 0.5 + 0.1 * torch.rand(n, 3, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("penalty", [0.1, HARD])
@pytest.mark.parametrize("regions", [None, Patches(8)], ids=repr)
def test_a_planted_square_is_found(penalty: float, regions: Regions | None) -> None:
    """Elsewhere anything goes; a map at random is no denser in the square."""
    model = Model(Bright(), domain=UNIT)
    method = InvariantPerturbation(penalty=penalty, samples=0, regions=regions)
    relevance = method(model, pictures(), 1).mean(1)
    assert relevance.shape == (2, 24, 24)
    inside, whole = relevance[:, SQUARE, SQUARE].mean((1, 2)), relevance.mean((1, 2))
    assert (inside > 2 * whole).all()
    assert (9 * whole - inside).abs().max() < 1e-6
    random = RandomMap()(model, pictures(), 1).abs().mean(1)
    assert (random[:, SQUARE, SQUARE].mean((1, 2)) < 1.5 * random.mean((1, 2))).all()


def first_counts(x: Tensor) -> Tensor:
    """Two classes that the first column alone decides, between .5 and .56."""
    odds = 6 * (x[:, 0] - 0.5)
    return torch.stack((-odds, odds), 1)


class Formula(nn.Module):
    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x)


def test_the_stochastic_search_comes_near_the_program_where_one_value_decides() -> None:
    """The value may move as far as its margin goes, the others as far as δ; the program's edge on the side that counts.

    Random points pay for violation on average only, so that the width goes somewhat further.
    """
    x = torch.tensor([[0.53, 0.2, 0.9], [0.56, 0.2, 0.9]])
    model = Model(Formula(first_counts), domain=UNIT)
    linear = InvariantPerturbation(samples=0, penalty=HARD).run(model, x)
    assert linear.details["fall"].tolist() == [pytest.approx([0.03, 0.1, 0.1]), pytest.approx([0.06, 0.1, 0.1])]
    found = replace(InvariantPerturbation.stochastic(), steps=150, delta=0.1).run(model, x)
    width = found.details["fall"]
    assert torch.equal(width, found.details["rise"])
    assert torch.allclose(found.relevance, 2 * (0.1 - width))
    assert (width[:, 1:] == 0.1).all()
    assert (width[:, 0] - linear.details["fall"][:, 0]).abs().max() < 0.015
    assert (found.forwards, found.backwards) == (2 * (1 + 1 + 150 * 32 + 8), 2 * 150 * 32)


def test_the_stochastic_search_misses_the_corners_where_many_values_decide() -> None:
    """Known limit: independent errors of a hundred values cancel, so that its box is wider than the class allows."""
    x = torch.full((1, 100), 0.53)
    model = Model(Formula(lambda x: first_counts(x.mean(1, keepdim=True))), domain=UNIT)
    width = InvariantPerturbation(search="stochastic", samples=32, steps=50).run(model, x).details["fall"]
    assert (width == 0.1).all()
    program = InvariantPerturbation(samples=0, penalty=HARD).run(model, x).details["fall"]
    assert float(program.mean()) == pytest.approx(0.03, rel=1e-4)


@pytest.mark.parametrize(
    "method", [InvariantPerturbation(penalty=0.05), InvariantPerturbation(search="stochastic", steps=20)]
)
def test_a_batch_is_as_good_as_one_by_one(method: InvariantPerturbation) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 20), nn.Softplus(), nn.Linear(20, 5)).double()
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    together = method(Model(net, domain=UNIT, chunk=4), x)
    for other in (
        torch.cat((method(Model(net, domain=UNIT), x[:1]), together[1:])),
        method(Model(net, domain=UNIT, chunk=1), x),
        method(Model(net, domain=UNIT, chunk=64), x),
    ):
        torch.testing.assert_close(other, together, rtol=0, atol=1e-6)


def test_what_is_asked_of_the_model() -> None:
    """For each draw one forward and a backward for each rival; the scores, the prediction and the corners besides."""
    net, x = linear(6, 4), table(3, 4)
    found = InvariantPerturbation(samples=2, rivals=3).run(Model(net, domain=UNIT), x)
    assert (found.forwards, found.backwards) == (3 * (1 + 1 + 3 + 8), 3 * 3 * 3)
    assert found.details["rivals"].shape == (3, 3)
    known = InvariantPerturbation(samples=2, rivals=50).run(Model(net, domain=UNIT), x, 0)
    assert (known.forwards, known.backwards) == (3 * (1 + 3 + 8), 3 * 3 * 5)


def test_all_rivals_are_needed_for_a_box_that_holds() -> None:
    """A class that is far behind, but rises steeply, is missed by few rivals; the corners tell."""
    weight = torch.tensor([[0.0], [0.0], [100.0]])
    net = Linear(weight, torch.tensor([1.0, 0.0, -55.0]))
    x = torch.tensor([[0.5]])
    few = InvariantPerturbation(rivals=1, samples=0, penalty=HARD).run(Model(net, domain=UNIT), x)
    assert float(few.details["rise"]) == pytest.approx(0.1)
    assert not few.checks[1].passed.any()
    all_of_them = InvariantPerturbation(rivals=2, samples=0, penalty=HARD).run(Model(net, domain=UNIT), x)
    assert float(all_of_them.details["rise"]) == pytest.approx(0.06)
    assert all_of_them.checks[1].passed.all()


def test_a_model_that_hardly_looks_has_the_whole_box() -> None:
    x = table(2, 4)
    found = InvariantPerturbation(samples=2).run(Model(Formula(lambda x: 0 * x + torch.arange(4.0)), domain=UNIT), x)
    assert (found.relevance.abs() < 1e-12).all()
    assert all(bool(check.passed.all()) for check in found.checks)
    with pytest.raises(ModelError, match="does not depend on the input"):
        InvariantPerturbation()(Model(Formula(lambda x: torch.ones(len(x), 2)), domain=UNIT), x)


def test_a_class_that_is_not_on_top_has_no_box() -> None:
    """Never infeasible: without slack the box is a point, and the checks say why."""
    net, x = linear(3, 8), table(3, 8)
    last = net(x).argmin(1)
    found = InvariantPerturbation(samples=0, penalty=HARD).run(Model(net, domain=UNIT), x, last)
    top, _, _, slack = found.checks
    assert not top.passed.any()
    assert not slack.passed.any()
    assert torch.allclose(found.details["slack"], -found.details["margin"])
    assert torch.isfinite(found.relevance).all()


@pytest.mark.parametrize("column", [True, False])
def test_a_single_output_is_the_log_odds_of_its_class(column: bool) -> None:
    def one(x: Tensor) -> Tensor:
        odds = 6 * (x[:, 0] - 0.5)
        return odds[:, None] if column else odds

    x = torch.tensor([[0.53, 0.2]])
    method = InvariantPerturbation(samples=0, penalty=HARD)
    assert method.run(Model(Formula(one), domain=UNIT), x).details["fall"].tolist() == [pytest.approx([0.03, 0.1])]
    assert not method.run(Model(Formula(one), domain=UNIT), 1 - x).checks[0].passed.any()


def test_a_regression_has_a_function_that_stays_positive() -> None:
    """Here that the output stays within .3 of what it is, by two functions: not lower, and not higher."""
    model = Model(Formula(lambda x: 10 * x[:, 0] - 5 * x[:, 1]), domain=UNIT)
    x = torch.tensor([[0.5, 0.5]])
    method = InvariantPerturbation(samples=0, penalty=HARD)
    low = method.run(model, x, lambda output: output - 2.2)
    assert float(10 * low.details["fall"][0, 0] + 5 * low.details["rise"][0, 1]) == pytest.approx(0.3, abs=1e-6)
    high = method.run(model, x, lambda output: 2.8 - output)
    assert float(10 * high.details["rise"][0, 0] + 5 * high.details["fall"][0, 1]) == pytest.approx(0.3, abs=1e-6)
    assert "rivals" not in low.details


@dataclass(frozen=True)
class Strips(Regions):
    """As many strips as the number of the sample and one."""

    def labels(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2]).view(1, 1, -1, 1) * torch.arange(1, len(x) + 1).view(-1, 1, 1, 1)
        return rows // x.shape[2]


def test_regions_may_differ_from_sample_to_sample() -> None:
    """Each with the optimum of a program whose coefficients are summed up one by one, channel by channel."""
    net, x = linear(2, 2 * 6 * 4), table(3, 2 * 6 * 4).view(3, 2, 6, 4)
    found = InvariantPerturbation(samples=0, penalty=0.05, regions=Strips()).run(Model(net, domain=UNIT), x)
    labels = Strips().labels(x)
    for i, c in enumerate(net(x).argmax(1).tolist()):
        h = (net.weight[1 - c] - net.weight[c]).detach().view(2, 6, 4)
        size = 2 * (i + 1)
        row = [0.0] * (2 * size) + [-1.0]
        for channel, y, z in itertools.product(range(2), range(6), range(4)):
            cell = channel * (i + 1) + int(labels[i, 0, y, 0])
            row[cell + size * int(h[channel, y, z] > 0)] += abs(float(h[channel, y, z]))
        bounds = [(0.0, 0.1)] * (2 * size) + [(0.0, None)]
        cost = [-1.0] * (2 * size) + [2 * size * 0.05]
        room = [float(found.details["margin"][i])]
        known = scipy.optimize.linprog(cost, A_ub=[row], b_ub=room, bounds=bounds)
        edges = (found.details["fall"][i] + found.details["rise"][i]).mean(2)  # the same along a row
        total = sum(float(edges[channel][labels[i, 0, :, 0] == k][0]) for channel in (0, 1) for k in range(i + 1))
        assert total - 2 * size * 0.05 * float(found.details["slack"][i]) == pytest.approx(-known.fun, abs=1e-9)


def test_a_contrast_has_one_rival() -> None:
    net, x = linear(4, 8), table(2, 8)
    method = InvariantPerturbation(samples=0, penalty=0.02)
    two = Linear(net.weight[[1, 3]].detach(), net.bias[[1, 3]].detach())
    contrast = method(Model(net, domain=UNIT), x, Contrast(1, 3))
    assert torch.allclose(contrast, method(Model(two, domain=UNIT), x, 0), atol=1e-9)


def test_a_dense_output() -> None:
    """At one place the values there decide; a class of the whole picture has the sums over all places."""

    def dense(x: Tensor) -> Tensor:
        return torch.stack((x[:, 0] - 0.45, 0.5 - x[:, 0]), 1)

    x = torch.full((1, 1, 6, 6), 0.5)
    model = Model(Formula(dense), domain=UNIT)
    method = InvariantPerturbation(samples=0, penalty=HARD, regions=Pixels())
    place = method.run(model, x, (0, 2, 3))
    assert float(place.details["fall"][0, 0, 2, 3]) == pytest.approx(0.025, abs=1e-6)
    assert float(place.relevance.sum()) == pytest.approx(0.075, abs=1e-6)
    whole = method.run(model, x, 0)
    assert float(whole.details["fall"].sum()) == pytest.approx(36 * 0.025, abs=1e-5)


def test_tokens_and_series() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(50, 8)

        def forward(self, tokens: Tensor) -> Tensor:
            return first_counts(0.51 + 0.01 * torch.tanh(self.embedding(tokens)[:, 5:7].sum((1, 2)))[:, None])

    tokens = torch.arange(20).view(2, 10)
    found = InvariantPerturbation(penalty=HARD, samples=0, delta=5.0).run(Late(), tokens, 1, at="embedding")
    assert found.relevance.shape == (2, 10, 1)
    assert (found.relevance[:, :5].abs() < 1e-6).all()

    series = 0.53 + 0 * torch.rand(2, 2, 20)
    model = Model(Formula(lambda x: first_counts(x[:, 1, 7:9].mean(1)[:, None])), domain=UNIT)
    relevance = InvariantPerturbation(penalty=HARD, samples=0)(model, series, 1)
    assert relevance.shape == (2, 2, 20)
    assert (relevance[:, 1, 7:9].sum(1) > 0.05).all()
    assert (relevance[:, 0].abs() < 1e-6).all()
    assert float(relevance.sum()) == pytest.approx(float(relevance[:, 1, 7:9].sum()), abs=1e-5)


def test_what_is_not_finite_is_left_out_and_said() -> None:
    """A gradient that is infinite at x: no constraint of that sample is left."""
    model = Model(Formula(lambda x: torch.stack((1 + x[:, 0].sqrt(), x[:, 1]), 1)), domain=UNIT)
    x = torch.tensor([[0.0, 0.5], [0.5, 0.5]])
    found = InvariantPerturbation(samples=0).run(model, x, 0)
    assert torch.isfinite(found.relevance).all()
    assert found.checks[2].passed.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision(dtype: torch.dtype) -> None:
    found = InvariantPerturbation(penalty=0.1).run(Model(Bright(), domain=UNIT), pictures().to(dtype), 1)
    assert found.relevance.dtype == dtype
    assert found.relevance.min() >= -1e-2
    assert found.relevance.max() <= 0.21


def test_bad_input() -> None:
    with pytest.raises(InputError, match="a box belongs to one input"):
        InvariantPerturbation()(Formula(lambda x: x), (torch.ones(1, 2), torch.ones(1, 2)), 0)
    with pytest.raises(TargetError, match="out of range"):
        InvariantPerturbation()(Model(Formula(first_counts), domain=UNIT), table(1, 2), 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"delta": 0.0},
        {"noise": -1.0},
        {"penalty": 0.0},
        {"penalty": math.nan},
        {"penalty": math.inf, "search": "stochastic"},
        {"samples": -1},
        {"samples": 0, "search": "stochastic"},
        {"rivals": 0},
        {"steps": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        InvariantPerturbation(**wrong)
