"""KernelSHAP: exact values by enumeration, the estimate against a Bayesian regression written out, planted truths."""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy
import pytest
import torch
from enumerated import Game, bits, random_game, shapley, shapley_of_table, smooth_game
from planted import INFILLS, PLACES, Constantly, Reader, inputs, normal, outside, share_inside, token_counter, wrapped
from torch import nn

from whybox import Along, Constant, KernelSHAP, Model, Patches, Pixels, Superpixels
from whybox.attribution.perturbation import kriging
from whybox.attribution.perturbation.kernel_shap import _pairs
from whybox.core.errors import InputError
from whybox.core.regions import Regions

REGIONS = {"picture": Patches(4), "table": None, "series": Patches(3), "tokens": Along(1), "video": Along(2)}


def asked_of(m, samples, seed=0):
    """The coalitions (samples, m), in order, that one sample of m columns is asked about."""
    game = Game(torch.zeros(2**m, dtype=torch.float64))
    KernelSHAP(samples=samples).run(Model(game, chunk=samples), torch.ones(1, m), 0, seed=seed)
    return bits(m)[game.asked[-samples:]]


@pytest.mark.parametrize("m", range(1, 9))
def test_exact_where_the_budget_allows(m):
    """Random games; every coalition is asked about once."""
    table = random_game(m)
    game = Game(table)
    answer = KernelSHAP(samples=max(2, 2**m)).run(Model(game, chunk=5), torch.ones(2, m), 0)
    torch.testing.assert_close(answer.details["values"][1], shapley_of_table(table), rtol=0, atol=1e-12)
    assert Counter(game.asked) == dict.fromkeys(range(2**m), 2)
    assert not answer.details["standard_errors"].any()
    assert answer.details["evaluations"].tolist() == [2**m] * 2 == [answer.forwards // 2] * 2


@pytest.mark.parametrize("regions", [Patches(3), Superpixels(9)], ids=repr)
def test_exact_maps_of_a_net(regions):
    """Pictures with different numbers of regions; a second value for the infill."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    x = normal(3, 3, 8, 8)
    answer = KernelSHAP(regions, Constant(0.4), 2**10)(Model(module, chunk=16), x, 2)
    labels = regions.labels(x).expand(3, 1, 8, 8)
    assert regions == Patches(3) or len({int(own.max()) for own in labels}) > 1
    for sample in range(3):

        def score(subset, x=x[sample], label=labels[sample]):
            shown = torch.isin(label, torch.tensor(subset, dtype=torch.long))
            return module(torch.where(shown, x, 0.4)[None])[0, 2].detach()

        values = shapley(score, int(labels[sample].max()) + 1)
        torch.testing.assert_close(answer[sample], values[labels[sample]], rtol=0, atol=1e-9)


def test_exact_over_several_inputs():
    """Columns of one input and tokens of another are players of one game."""

    class Both(nn.Module):
        def forward(self, table, tokens):
            return (table[:, 0] * (1 + tokens.double().sum(1)) + table[:, 1] * table[:, 2])[:, None]

    table, tokens = torch.tensor([[2.0, 3.0, 5.0]], dtype=torch.float64), torch.tensor([[1, 4]])
    columns, words = KernelSHAP(samples=32)(Both(), (table, tokens), 0)
    torch.testing.assert_close(columns, torch.tensor([[2 + 5.0, 7.5, 7.5]], dtype=torch.float64))
    torch.testing.assert_close(words, torch.tensor([[1.0, 4.0]]))


def literally(kept, scores, rho):
    """Bayesian regression on all interactions of the odd part, the single regions with next to no prior.

    Returns values, their posterior standard deviations for σ² = 1, and the marginal log-likelihood's ingredients.
    """
    b, m = len(kept) // 2, kept.shape[1]
    z = 2.0 * kept[::2] - 1
    odd = (scores[::2] - scores[1::2]) / 2
    sets = [subset for size in range(1, m + 1, 2) for subset in combinations(range(m), size)]
    features = numpy.stack([z[:, subset].prod(1) for subset in sets], 1)
    vague = 1e7
    prior = numpy.array([vague if len(subset) == 1 else rho ** len(subset) for subset in sets])
    to_values = numpy.array([[2 / len(subset) * (i in subset) for subset in sets] for i in range(m)])
    covariance = features * prior @ features.T
    gain = numpy.linalg.solve(covariance, features * prior).T
    posterior = numpy.diag(prior) - gain @ features * prior
    quadratic = odd @ numpy.linalg.solve(covariance, odd)
    sigma2 = quadratic / (b - m)
    likelihood = -((b - m) * math.log(sigma2) + numpy.linalg.slogdet(covariance)[1]) / 2
    return to_values @ gain @ odd, numpy.sqrt(sigma2 * numpy.diag(to_values @ posterior @ to_values.T)), likelihood


@pytest.mark.parametrize("make", [random_game, smooth_game])
@pytest.mark.parametrize(("m", "samples"), [(4, 10), (5, 20), (7, 30), (7, 60), (7, 126)])
def test_against_a_bayesian_regression_written_out(make, m, samples):
    """Values and standard errors, for the ρ that is likeliest."""
    table = make(m)
    answer = KernelSHAP(samples=samples).run(Game(table), torch.ones(1, m), 0)
    kept = asked_of(m, samples).numpy()
    scores = table.numpy()[kept @ 2 ** numpy.arange(m)]
    fits = [literally(kept, scores, c / (c + m)) for c in kriging.ROUGHNESS]
    values, errors, _ = max(fits, key=lambda fit: fit[2])
    scale = float(answer.details["values"].abs().max())
    numpy.testing.assert_allclose(answer.details["values"][0], values, rtol=0, atol=1e-5 * scale)
    numpy.testing.assert_allclose(answer.details["standard_errors"][0], errors, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("m", [40, 300])
def test_covariances_of_many_regions(m):
    """Sums over all interactions by their number, in integers, against the closed forms."""
    for c in kriging.ROUGHNESS:
        rho = c / (c + m)
        _, shared, prior = kriging._covariances(m, rho)
        scale = (1 + rho) ** m
        for others in (0, 1, m // 2, m - 1):
            hidden = m - 1 - others
            expected = 0.0
            for size in range(0, m, 2):
                signs = sum((-1) ** k * math.comb(hidden, k) * math.comb(others, size - k) for k in range(size + 1))
                expected += 2 * rho ** (size + 1) / (size + 1) * signs / scale
            assert float(shared[others]) == pytest.approx(expected, rel=1e-7, abs=1e-13)
        expected = sum(4 / d**2 * math.comb(m - 1, d - 1) * rho**d for d in range(1, m + 1, 2)) / scale
        assert prior == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("m", "samples"), [(9, 20), (9, 100), (30, 62), (30, 300)])
def test_pairwise_interactions_are_no_error(m, samples):
    """They cancel between a coalition and its complement: φ_i = a_i + Σ_j b_ij/2 at every budget."""

    class Quadratic(nn.Module):
        def forward(self, x):
            return (x @ linear + ((x @ pairwise) * x).sum(1) / 2)[:, None]

    linear, pairwise = normal(m), normal(m, m, seed=1).tril(-1)
    pairwise = pairwise + pairwise.T
    answer = KernelSHAP(samples=samples).run(Quadratic(), torch.ones(2, m, dtype=torch.float64), 0)
    expected = linear + pairwise.sum(1) / 2
    torch.testing.assert_close(answer.relevance, expected.expand(2, m), rtol=0, atol=1e-9)
    assert float(answer.details["standard_errors"].max()) < 1e-9


@pytest.mark.parametrize("make", [random_game, smooth_game])
@pytest.mark.parametrize(("samples", "block"), [(40, 1024), (150, 1024), (400, 1024), (400, 64)])
def test_standard_errors_are_right(make, samples, block, monkeypatch):
    """Over 100 seeds, the truth is within 1.96 of them 95 times in 100; also where pairs are divided into blocks."""
    monkeypatch.setattr(kriging, "BLOCK", block)
    m = 10
    table = make(m, seed=3)
    details = KernelSHAP(samples=samples).run(Model(Game(table), chunk=512), torch.ones(100, m), 0).details
    error = details["values"] - shapley_of_table(table)
    within = float((error.abs() <= 1.96 * details["standard_errors"]).double().mean())
    assert 0.9 < within < 0.995
    ratio = error.square().mean() / details["standard_errors"].square().mean()
    assert 0.7 < float(ratio.sqrt()) < 1.25


@pytest.mark.parametrize(("samples", "at_most"), [(60, 0.85), (300, 0.6)])
def test_better_than_least_squares_on_the_same_coalitions(samples, at_most):
    """With shap's kernel, weights corrected for how many of a size were asked about, and the constraint."""
    m, ours, theirs = 10, 0.0, 0.0
    for seed in range(8):
        table = smooth_game(m, seed)
        truth = shapley_of_table(table)
        answer = KernelSHAP(samples=samples).run(Game(table), torch.ones(1, m), 0, seed=seed)
        kept = asked_of(m, samples, seed)[2:].double()
        size = kept.sum(1)
        share = torch.tensor([float((size == s).sum()) / math.comb(m, int(s)) for s in size], dtype=torch.float64)
        kernel = torch.tensor([1 / (math.comb(m, int(s)) * s * (m - s)) for s in size], dtype=torch.float64)
        gain = table[(kept.long() << torch.arange(m)).sum(1)] - table[0] - size / m * (table[-1] - table[0])
        design = (kept - size[:, None] / m) * (kernel / share).sqrt()[:, None]
        fitted = torch.linalg.lstsq(design, gain * (kernel / share).sqrt(), driver="gelsd").solution
        theirs += float((fitted - fitted.mean() + (table[-1] - table[0]) / m - truth).square().sum())
        ours += float((answer.details["values"][0] - truth).square().sum())
    assert ours**0.5 < at_most * theirs**0.5


@pytest.mark.parametrize("samples", [24, 90, 128])
def test_efficiency_without_error(samples):
    table = random_game(7)
    answer = KernelSHAP(samples=samples).run(Game(table), torch.ones(3, 7), 0)
    torch.testing.assert_close(answer.details["values"].sum(1), (table[-1] - table[0]).expand(3), rtol=0, atol=1e-13)
    assert float(answer.details["efficiency_gap"].abs().max()) < 1e-13


def test_symmetry_dummies_and_linearity():
    """Players 0 and 1 are alike, player 2 adds nothing; values of a sum are sums of values."""
    kept = bits(6).double()
    alike = kept[:, 0] + kept[:, 1]
    first = torch.tanh(alike * kept[:, 3] - kept[:, 4]) + kept[:, 5]
    second = random_game(6)

    def values(table):
        return KernelSHAP(samples=64).run(Game(table), torch.ones(1, 6), 0).details["values"][0]

    own = values(first)
    torch.testing.assert_close(own[0], own[1], rtol=0, atol=1e-14)
    assert abs(float(own[2])) < 1e-14
    assert float((own[0] - own[3]).abs()) > 0.01
    torch.testing.assert_close(values(2 * first - 3 * second), 2 * own - 3 * values(second), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("m", "count"), [(4, 5), (4, 7), (5, 15), (6, 31), (9, 10), (12, 500), (50, 256), (300, 301)])
def test_coalitions(m, count):
    """Distinct, also from each other's complements; every region alone; the other sizes evenly."""
    kept = _pairs(m, count, 7)
    assert kept.shape == (count, m)
    assert bool(kept[0].all())
    rows = {tuple(row) for row in torch.cat([kept, ~kept]).tolist()}
    assert len(rows) == 2 * count
    size = kept[1:].sum(1)
    assert int(size.max()) <= m // 2
    assert int((size == 1).sum()) == m
    room = [math.comb(m, s) // (2 if 2 * s == m else 1) for s in range(2, m // 2 + 1)]
    number = [int((size == s).sum()) for s in range(2, m // 2 + 1)]
    free = [k for k, there in zip(number, room, strict=True) if k < there]
    assert max(free, default=0) - min(free, default=0) <= 1
    assert all(k <= there for k, there in zip(number, room, strict=True))


def test_chunks_batches_and_seeds():
    table, x = smooth_game(9), torch.ones(3, 9)

    def values(rows=3, chunk=7, seed=0):
        return KernelSHAP(samples=60).run(Model(Game(table), chunk=chunk), x[:rows], 0, seed=seed).details["values"]

    assert torch.equal(values(chunk=7), values(chunk=64))
    assert torch.equal(values(rows=1)[0], values()[0])
    assert not torch.equal(values(), values(seed=1))
    assert not torch.equal(values()[0], values()[1])


def test_samples_with_different_numbers_of_regions():
    """One is exact and the other is not; each is as it would be alone."""
    x = normal(2, 3, 8, 8)

    @dataclass(frozen=True)
    class Uneven(Regions):
        def labels(self, x):
            fine = torch.arange(64).view(1, 1, 8, 8) // 6
            return torch.cat([fine // 3, fine])[-len(x) :]

    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    method = KernelSHAP(Uneven(), samples=50)
    both = method.run(module, x, 0)
    assert both.details["evaluations"].tolist() == [16, 50]
    assert not both.details["values"][0, 4:].any()
    assert both.details["standard_errors"].bool().any(1).tolist() == [False, True]
    swapped = method.run(module, x[[1, 0]], 0)
    labels = Uneven().labels(x)[0, 0]

    def score(subset):
        return module(torch.where(torch.isin(labels, torch.tensor(subset, dtype=torch.long)), x[0], 0)[None]).detach()

    torch.testing.assert_close(both.relevance[0, 0], shapley(score, 4)[labels], rtol=0, atol=1e-12)
    assert swapped.details["evaluations"].tolist() == [16, 50]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("infill", INFILLS, ids=repr)
def test_what_was_planted_is_found(name, infill):
    """A model that reads one region is seen to read there; one that reads elsewhere is not."""
    shape, place, elsewhere = PLACES[name]
    x, method = inputs(shape), KernelSHAP(REGIONS[name], infill, 200)
    relevance = method(wrapped(Reader(place)), x, 0)
    assert float(share_inside(relevance, x, place).min()) > 0.5
    # A game of one region is linear, whatever the infill: it is drawn once.
    assert float(outside(relevance, x, place).abs().max()) < 1e-9
    assert float(share_inside(method(wrapped(Reader(elsewhere)), x, 0), x, place).max()) < 0.2


def test_planted_in_token_numbers():
    module, tokens, expected = token_counter()
    for samples in (30, 64):
        answer = KernelSHAP(infill=Constant(0), samples=samples)(module, tokens, 0)
        torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [64, 30])
def test_a_constant_model(samples):
    answer = KernelSHAP(samples=samples).run(Constantly(), torch.randn(2, 6), 1)
    assert not answer.relevance.any()
    assert not answer.details["standard_errors"].any()
    assert not answer.details["efficiency_gap"].any()


def test_a_score_that_is_not_finite_stays_with_its_sample():
    class Logarithm(nn.Module):
        def forward(self, x):
            return x.prod(1, keepdim=True).log() + x.sum(1, keepdim=True)

    x = torch.stack([torch.full((9,), -1.0), torch.full((9,), 2.0)])
    answer = KernelSHAP(infill=Constant(1.0), samples=40).run(Logarithm(), x, 0)
    assert bool(answer.relevance[0].isnan().all())
    torch.testing.assert_close(answer.relevance[1], torch.full((9,), math.log(2) + 1))


def test_one_region():
    @dataclass(frozen=True)
    class Whole(Regions):
        def labels(self, x):
            return torch.zeros(1, 1, dtype=torch.long)

    x = normal(2, 4)
    module = nn.Linear(4, 1).double()
    answer = KernelSHAP(Whole()).run(module, x, 0)
    torch.testing.assert_close(answer.relevance, (module.weight * x).sum(1, keepdim=True).detach())
    assert answer.details["evaluations"].tolist() == [2, 2]


def test_more_regions_than_the_budget_can_handle():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 1)).double()
    with pytest.raises(InputError, match="64 regions need at least 130 samples, not 129: give samples=130"):
        KernelSHAP(Pixels(), samples=129)(module, normal(1, 3, 8, 8), 0)
    KernelSHAP(Pixels(), samples=130)(module, normal(1, 3, 8, 8), 0)
    with pytest.raises(InputError, match="3 regions need at least 8 samples"):
        KernelSHAP(samples=7)(nn.Linear(3, 1), torch.ones(1, 3), 0)


def test_a_budget_that_makes_no_sense():
    with pytest.raises(InputError, match="whole samples ≥ 2"):
        KernelSHAP(samples=1)
