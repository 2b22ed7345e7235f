"""ShapleySampling: orders replayed by hand, exact where it must be, within its standard error, planted truths."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from enumerated import Game, bits, random_game, shapley_of_table, smooth_game
from planted import INFILLS, PLACES, Constantly, Reader, inputs, normal, outside, share_inside, token_counter, wrapped
from torch import nn

from whybox import Along, Constant, Domain, Model, Patches, Pixels, ShapleySampling, Superpixels, UniformNoise, Zero
from whybox.core.errors import InputError
from whybox.core.regions import Regions

REGIONS = {"picture": Patches(4), "table": None, "series": Patches(3), "tokens": Along(1), "video": Along(2)}


@pytest.mark.parametrize("m", [1, 2, 3, 6, 7])
def test_contributions_along_the_orders_that_were_asked(m):
    """Read from what the model was asked: nothing, then each order's first 1 … m − 1, then its last 1 … m − 1."""
    table, pairs = random_game(m), 5
    game = Game(table)
    samples = 1 + pairs * (2 * m - 1)
    answer = ShapleySampling(samples=samples).run(Model(game, chunk=4), torch.ones(1, m), 0)
    asked = game.asked
    assert len(asked) == samples == int(answer.details["evaluations"]) == answer.forwards
    steps = torch.tensor(asked[1:]).view(2 * m - 1, pairs).T.tolist()
    whole, each, firsts = 2**m - 1, [], []
    assert asked[0] == whole
    for empty, *rest in steps:
        assert empty == 0
        contributions = torch.zeros(m, dtype=torch.float64)
        orders = []
        for path in (rest[: m - 1], rest[m - 1 :]):
            path = [0, *path, whole]
            added = [b - a for a, b in pairwise(path)]
            assert sorted(added) == [2**i for i in range(m)]
            orders.append([int(math.log2(bit)) for bit in added])
            for (a, b), i in zip(pairwise(path), orders[-1], strict=True):
                contributions[i] += (table[b] - table[a]) / 2
        assert orders[0] == orders[1][::-1]
        firsts.append(orders[0])
        each.append(contributions)
    for one, turned in zip(firsts[::2], firsts[1::2], strict=False):
        assert turned == one[m - m // 2 :] + one[: m - m // 2]
    assert m < 6 or len({tuple(order) for order in firsts}) == pairs
    each = torch.stack(each)
    torch.testing.assert_close(answer.details["values"][0], each.mean(0), rtol=0, atol=1e-13)
    expected = each.std(0) / math.sqrt(pairs)
    torch.testing.assert_close(answer.details["standard_errors"][0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("m", [7, 8])
def test_orders_are_uniform(m):
    """Each region comes at each place equally often."""
    first = torch.zeros(m, m)
    game = Game(torch.zeros(2**m, dtype=torch.float64))
    pairs = 4000
    ShapleySampling(samples=1 + pairs * (2 * m - 1)).run(Model(game, chunk=4096), torch.ones(1, m), 0)
    prefixes = bits(m)[torch.tensor(game.asked[1:])].view(2 * m - 1, pairs, m)[:m]
    first = prefixes[1:].diff(dim=0, prepend=torch.zeros(1, pairs, m, dtype=torch.long)).sum(1) / pairs
    assert float((first - 1 / m).abs().max()) < 4 * math.sqrt(1 / m / pairs)


@pytest.mark.parametrize("make", [random_game, smooth_game])
def test_within_its_standard_error(make):
    """Of 100 seeds, the truth is within 1.96 of it in about 95; a value that is off by 3 is not."""
    table = make(8)
    answer = ShapleySampling(samples=1000).run(Model(Game(table), chunk=512), torch.ones(100, 8), 0)
    error, errors = answer.details["values"] - shapley_of_table(table), answer.details["standard_errors"]
    within = (error.abs() <= 1.96 * errors).double().mean(0)
    assert float(within.mean()) > 0.925
    assert float(within.min()) > 0.87
    assert float(((error + 3 * errors).abs() <= 1.96 * errors).double().mean()) < 0.3
    assert 0.6 < float((error.square().mean() / errors.square().mean()).sqrt()) < 1.05
    # No bias: the mean over the seeds is ten times as good.
    assert float((error.mean(0).abs() * 10 / errors.mean(0)).max()) < 3.5


@pytest.mark.parametrize("regions", [Patches(3), Superpixels(9)], ids=repr)
def test_pairwise_interactions_are_no_error(regions):
    """They cancel between an order and its reverse; pictures with different numbers of regions."""
    x = normal(3, 2, 8, 8)
    labels = regions.labels(x).expand(3, 1, 8, 8)

    class Square(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) ** 2

    answer = ShapleySampling(regions, Constant(0.5), 60).run(Model(Square(), chunk=7), x, 0)
    for sample in range(3):
        empty, regions_there = 0.5 * 128, int(labels[sample].max()) + 1
        own = [float((x[sample] - 0.5)[labels[sample].expand(2, 8, 8) == i].sum()) for i in range(regions_there)]
        values = torch.tensor([d * (2 * empty + sum(own)) for d in own], dtype=torch.float64)
        torch.testing.assert_close(answer.relevance[sample], values[labels[sample]], rtol=1e-10, atol=1e-8)
        assert not answer.details["values"][sample, regions_there:].any()
    assert float(answer.details["standard_errors"].max()) < 1e-8


@pytest.mark.parametrize("infill", [Zero(), UniformNoise()], ids=repr)
def test_efficiency_without_error(infill):
    """Also where each pair of orders has a draw of the infill to itself."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 1)).double()
    x = normal(3, 6)
    answer = ShapleySampling(infill=infill, samples=100).run(wrapped(module), x, 0)
    assert float(answer.details["efficiency_gap"].abs().max()) < 1e-13
    gap = answer.relevance.sum(1) - module(x)[:, 0].detach() + module(torch.zeros(1, 6).double())[0, 0].detach()
    assert (float(gap.abs().max()) < 1e-13) == (infill == Zero())


def test_symmetry_dummies_and_linearity():
    """Of the estimate itself: what adds nothing gets nothing, and the same orders give the sum of two games its sum."""
    kept = bits(6).double()
    first = torch.tanh(kept[:, 0] * kept[:, 3] - kept[:, 4]) + kept[:, 5] + kept[:, 1]
    second = random_game(6)

    def values(table):
        return ShapleySampling(samples=60).run(Game(table), torch.ones(1, 6), 0).details["values"][0]

    own = values(first)
    assert float(own[2]) == 0
    assert float(own[1]) == pytest.approx(float(own[5]), abs=1e-14) == pytest.approx(1)
    torch.testing.assert_close(values(2 * first - 3 * second), 2 * own - 3 * values(second), rtol=0, atol=1e-12)


def test_chunks_batches_and_seeds():
    table, x = smooth_game(9), torch.ones(3, 9)

    def values(rows=3, chunk=7, seed=0):
        method = ShapleySampling(samples=80)
        return method.run(Model(Game(table), chunk=chunk), x[:rows], 0, seed=seed).details["values"]

    assert torch.equal(values(chunk=7), values(chunk=64))
    assert torch.equal(values(rows=1)[0], values()[0])
    assert not torch.equal(values(), values(seed=1))
    assert not torch.equal(values()[0], values()[1])


@pytest.mark.parametrize("infill", [Zero(), UniformNoise()], ids=repr)
def test_samples_with_different_numbers_of_regions(infill):
    """Each has all of the budget, and is as it would be alone."""
    x = normal(3, 1, 4, 4)

    @dataclass(frozen=True)
    class Uneven(Regions):
        def labels(self, x):
            fine = torch.arange(16).view(1, 1, 4, 4)
            return torch.cat([fine // 4, fine // 2, fine // 16])[: len(x)]

    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    model = Model(module, chunk=7, domain=Domain((0.0,), (1.0,)))
    method = ShapleySampling(Uneven(), infill, samples=100)
    both, alone = method.run(model, x, 0), method.run(model, x[:1], 0)
    assert both.details["evaluations"].tolist() == [1 + 14 * 7, 1 + 6 * 15, 1 + 99]
    for name in ("values", "standard_errors"):
        torch.testing.assert_close(both.details[name][0, :4], alone.details[name][0], rtol=0, atol=1e-12)
        assert not both.details[name][0, 4:].any()
    assert float(both.details["efficiency_gap"].abs().max()) < 1e-12


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("infill", INFILLS, ids=repr)
def test_what_was_planted_is_found(name, infill):
    """A model that reads one region is seen to read there; one that reads elsewhere is not."""
    shape, place, elsewhere = PLACES[name]
    x, method = inputs(shape), ShapleySampling(REGIONS[name], infill, 300)
    relevance = method(wrapped(Reader(place)), x, 0)
    # Whatever the infill: orders never blame a region that the model does not read.
    assert float(share_inside(relevance, x, place).min()) > 0.999
    assert float(outside(relevance, x, place).abs().max()) < 1e-6
    assert float(share_inside(method(wrapped(Reader(elsewhere)), x, 0), x, place).max()) < 0.001


def test_planted_in_token_numbers():
    module, tokens, expected = token_counter()
    answer = ShapleySampling(infill=Constant(0), samples=40)(module, tokens, 0)
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)


def test_a_constant_model():
    answer = ShapleySampling(samples=30).run(Constantly(), torch.randn(2, 6), 1)
    assert not answer.relevance.any()
    assert not answer.details["standard_errors"].any()


def test_more_regions_than_the_budget_can_handle():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 1)).double()
    with pytest.raises(InputError, match="64 regions need at least 255 samples, not 254: give samples=255"):
        ShapleySampling(Pixels(), samples=254)(module, normal(1, 3, 8, 8), 0)
    ShapleySampling(Pixels(), samples=255)(module, normal(1, 3, 8, 8), 0)


def test_a_budget_that_makes_no_sense():
    with pytest.raises(InputError, match="whole samples ≥ 3"):
        ShapleySampling(samples=2)
