"""Metrics that hide regions, one by one or many at random, and infidelity: against literal loops; what they share."""

import numpy
import pytest
import scipy.stats
import torch
from planted import planted
from test_removal import blobs, net, pictures
from torch import Tensor, nn

from whybox import (
    Black,
    Blur,
    Constant,
    Contrast,
    Domain,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Grid,
    Infidelity,
    Model,
    MonotonicityCorrelation,
    MuFidelity,
    Patches,
    Pixels,
    RandomMap,
    SensitivityN,
    Superpixels,
    UniformNoise,
    Zero,
)
from whybox.core.block import Block
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.hiding import RandomSubsets
from whybox.evaluation.metric import case as as_case

TARGET = torch.tensor([0, 3, 1])


def score(f, x: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(f(x[None])[0, target])


def boxes(height: int, width: int, size: int) -> list[tuple[slice, slice]]:
    """The patches of a grid, cut at the border."""
    return [
        (slice(i, min(i + size, height)), slice(j, min(j + size, width)))
        for i in range(0, height, size)
        for j in range(0, width, size)
    ]


def sets_of(f, x: Tensor, regions, share: float, draws: int) -> numpy.ndarray:
    """The random sets that metrics take, (n, draws, regions)."""
    with started(f, x, TARGET) as task:
        subsets = Samples(task).once(RandomSubsets(regions, Zero(), share, draws))
    count = len(boxes(*x.shape[2:], regions.size))
    return numpy.unpackbits(subsets.packed, axis=2, count=count)


def pairs_by_hand(f, x: Tensor, relevance: Tensor, target: int, size: int, sets) -> tuple[list[float], list[float]]:
    """One picture, one set at a time: the relevance hidden, and the drop of the score."""
    hidden, drops = [], []
    for chosen in sets:
        changed, total = x.clone(), 0.0
        for (rows, columns), out in zip(boxes(*x.shape[1:], size), chosen, strict=True):
            if out:
                changed[:, rows, columns] = 0.0
                total += float(relevance[:, rows, columns].sum())
        hidden.append(total)
        drops.append(score(f, x, target) - score(f, changed, target))
    return hidden, drops


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("metric", "correlation"),
    [(FaithfulnessCorrelation, scipy.stats.pearsonr), (MuFidelity, scipy.stats.spearmanr)],
)
def test_random_sets_against_loops(metric, correlation, channels):
    f, (x, relevance) = net(), pictures()
    found = metric(regions=Patches(3), share=0.25, draws=20).run(Model(f), x, TARGET, relevance[:, :channels])
    sets = sets_of(Model(f), x, Patches(3), 0.25, 20)
    assert (sets.sum(2) == 4).all()  # of 16 patches
    for i in range(3):
        hidden, drops = pairs_by_hand(f, x[i], relevance[i, :channels], int(TARGET[i]), 3, sets[i])
        assert found.details["relevance"][i].tolist() == pytest.approx(hidden, abs=1e-12)
        assert found.details["drop"][i].tolist() == pytest.approx(drops, abs=1e-12)
        assert float(found.values[i]) == pytest.approx(correlation(hidden, drops)[0], abs=1e-9)
    assert found.forwards == 3 * 21


def test_sensitivity_n_against_loops():
    f, (x, relevance) = net(), pictures()
    metric = SensitivityN(regions=Patches(3), shares=(0.1, 0.12, 0.5), draws=12)
    found = metric.run(Model(f), x, TARGET, relevance)
    assert found.details["sizes"].tolist() == [[2, 8]] * 3  # 0.1 and 0.12 of 16 patches come to the same
    assert found.forwards == 3 * (1 + 2 * 12)
    sets = {share: sets_of(Model(f), x, Patches(3), share, 12) for share in (0.1, 0.5)}
    for i in range(3):
        correlations = [
            scipy.stats.pearsonr(*pairs_by_hand(f, x[i], relevance[i], int(TARGET[i]), 3, chosen[i]))[0]
            for chosen in sets.values()
        ]
        assert found.details["correlation"][i].tolist() == pytest.approx(correlations, abs=1e-9)
        assert float(found.values[i]) == pytest.approx(numpy.mean(correlations), abs=1e-9)


def test_every_region_is_as_likely_to_be_hidden():
    f, (x, _) = Model(net()), pictures()
    sets, other = (sets_of(f, x, Patches(3), share, 3000) for share in (0.25, 0.5))
    for found, share in ((sets, 0.25), (other, 0.5)):
        error = (share * (1 - share) / 3000) ** 0.5
        assert abs(found.mean(1) - share).max() < 4.5 * error
    together = (sets * other).mean((0, 1))  # sets of one size have nothing to do with those of another
    assert abs(together - 0.125).max() < 4.5 * (0.125 * 0.875 / 9000) ** 0.5
    assert (sets[0] != sets[1]).any()


@pytest.mark.parametrize("follows", ["probability", "score"])
def test_faithfulness_estimate_against_loops(follows):
    f, (x, relevance) = net(), pictures()
    found = FaithfulnessEstimate(regions=Patches(4), infill=Black(), follows=follows).run(
        Model(f), x, TARGET, relevance
    )
    low = x.amin((0, 2, 3)).view(3, 1, 1)  # the domain measured on the batch
    for i in range(3):
        drops, sums = [], []
        for rows, columns in boxes(11, 10, 4):
            changed = x[i].clone()
            changed[:, rows, columns] = low
            with torch.no_grad():
                both = f(torch.stack((x[i], changed)))
            both = (both.softmax(1) if follows == "probability" else both)[:, TARGET[i]]
            drops.append(float(both[0] - both[1]))
            sums.append(float(relevance[i, :, rows, columns].sum()))
        assert found.details["drop"][i].tolist() == pytest.approx(drops, abs=1e-12)
        assert float(found.values[i]) == pytest.approx(scipy.stats.pearsonr(sums, drops)[0], abs=1e-9)
    assert found.forwards == 3 * (1 + 9)


def test_monotonicity_correlation_against_loops():
    f, (x, relevance) = net(), pictures()
    metric = MonotonicityCorrelation(regions=Patches(4), infill=UniformNoise(), draws=3, follows="score")
    found = metric.run(Model(f), x, TARGET, relevance)
    with started(Model(f), x, TARGET) as task:
        block = Block(task, torch.arange(3).repeat_interleave(27), torch.arange(27).repeat(3))
        noise = block.fill(UniformNoise()).view(3, 9, 3, 3, 11, 10)
    for i in range(3):
        sizes, changes = [], []
        for r, (rows, columns) in enumerate(boxes(11, 10, 4)):
            squares = []
            for d in range(3):
                changed = x[i].clone()
                changed[:, rows, columns] = noise[i, r, d, :, rows, columns]
                squares.append((score(f, x[i], int(TARGET[i])) - score(f, changed, int(TARGET[i]))) ** 2)
            changes.append(numpy.mean(squares))
            sizes.append(abs(float(relevance[i, :, rows, columns].sum())))
        assert found.details["change"][i].tolist() == pytest.approx(changes, abs=1e-12)
        assert found.details["relevance"][i].tolist() == pytest.approx(sizes, abs=1e-12)
        assert float(found.values[i]) == pytest.approx(scipy.stats.spearmanr(sizes, changes)[0], abs=1e-9)
    assert found.forwards == 3 * (1 + 27)
    once = MonotonicityCorrelation(regions=Patches(4), infill=Zero()).run(Model(f), x, TARGET, relevance)
    assert once.forwards == 3 * (1 + 9)  # what is fixed needs no second draw


def test_monotonicity_finds_the_variance():
    """Of a linear model E (f(x) − f(x with x_i ~ U(0, 1)))² = w_i² ((x_i − ½)² + 1/12)."""
    f = nn.Linear(6, 1).double()
    x = torch.rand(2, 6, dtype=torch.float64)
    expected = f.weight.detach() ** 2 * ((x - 0.5) ** 2 + 1 / 12)
    metric = MonotonicityCorrelation(regions=Pixels(), draws=1000, follows="score")
    found = metric.run(Model(f, domain=Domain((0.0,), (1.0,))), x, 0, expected.sqrt())
    assert torch.allclose(found.details["change"], expected, rtol=0.2)
    assert found.values.min() > 0.8


@pytest.mark.parametrize("multiplied", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("size", [3, 4, 5])
def test_infidelity_with_patches_that_do_not_divide_the_picture_against_loops(size, scaled, multiplied):
    """No size of patch divides 11 × 10; each is removed from the whole picture, not from what others have left."""
    f, (x, relevance) = net(), pictures()
    metric = Infidelity(regions=Patches(size), infill=Constant(0.25), multiplied=multiplied, scaled=scaled)
    found = metric.run(Model(f), x, TARGET, relevance)
    for i in range(3):
        expected, changes = [], []
        for rows, columns in boxes(11, 10, size):
            changed = x[i].clone()
            changed[:, rows, columns] = 0.25
            part = relevance[i] if multiplied else relevance[i] * (x[i] - changed)
            expected.append(float(part[:, rows, columns].sum()))
            changes.append(score(f, x[i], int(TARGET[i])) - score(f, changed, int(TARGET[i])))
        a, b = numpy.array(expected), numpy.array(changes)
        if scaled:
            a = a * numpy.linalg.lstsq(a[:, None], b, rcond=None)[0]
        assert found.details["change"][i].tolist() == pytest.approx(changes, abs=1e-12)
        assert float(found.values[i]) == pytest.approx(((a - b) ** 2).mean(), abs=1e-12)


def test_infidelity_to_noise_against_loops():
    f, (x, relevance) = net(), pictures()
    found = Infidelity(noise=0.3, draws=5, multiplied=False).run(Model(f), x, TARGET, relevance)
    width = (x.amax((0, 2, 3)) - x.amin((0, 2, 3))).view(3, 1, 1)  # of the domain measured on the batch
    with started(Model(f), x, TARGET) as task:
        normal = Block(task, torch.arange(3).repeat_interleave(5), torch.arange(5).repeat(3)).normal()
    for i in range(3):
        squares = []
        for n in normal.view(3, 5, 3, 11, 10)[i]:
            change = 0.3 * width * n
            drop = score(f, x[i], int(TARGET[i])) - score(f, x[i] - change, int(TARGET[i]))
            squares.append((float((change * relevance[i]).sum()) - drop) ** 2)
        assert float(found.values[i]) == pytest.approx(numpy.mean(squares), abs=1e-12)
    assert found.forwards == 3 * 6


def test_infidelity_of_a_linear_model():
    """0 for R = w ⊙ (x − x′) and for φ = w; twice R is too much, unless it is scaled; no map has infidelity E Δ²."""
    case = planted()
    given = (case.model, case.inputs, case.target)
    weight = case.model.module[1].weight[1].detach().view(1, 2, 12, 12).expand_as(case.inputs)
    assert Infidelity()(*given, case.perfect).max() < 1e-24
    assert Infidelity(multiplied=False, infill=Blur(2.0))(*given, weight).max() < 1e-24
    assert Infidelity(multiplied=False, noise=0.2)(*given, weight).max() < 1e-24
    twice = Infidelity().run(*given, 2 * case.perfect)
    nothing = Infidelity(scaled=True)(*given, torch.zeros_like(case.perfect))
    assert torch.allclose(twice.values, twice.details["change"].square().mean(1))
    assert torch.allclose(twice.values, nothing)
    assert Infidelity(scaled=True)(*given, 2 * case.perfect).max() < 1e-24
    noisy = Infidelity(multiplied=False, noise=0.2, draws=2000)(*given, torch.zeros_like(weight))
    assert torch.allclose(noisy, 0.04 * weight[0].square().sum().expand(4), rtol=0.15)


def test_a_map_that_is_additive_is_found_to_be_so():
    case = planted()
    for metric in (FaithfulnessCorrelation(), SensitivityN(draws=10), FaithfulnessEstimate(follows="score")):
        assert torch.allclose(metric(case.model, case.inputs, case.target, case.perfect), torch.ones(4).double())
    found = MuFidelity()(case.model, case.inputs, case.target, case.perfect)
    assert (found > 0.999).all()


CHANCES = [
    FaithfulnessCorrelation(draws=20),
    MuFidelity(draws=20),
    SensitivityN(draws=10, shares=(0.1, 0.5)),
    FaithfulnessEstimate(),
    MonotonicityCorrelation(regions=Patches(3), draws=1),
    Infidelity(),
    Infidelity(regions=Patches(5), multiplied=False),
    Infidelity(noise=0.2, draws=4, multiplied=False),
]


@pytest.mark.parametrize("metric", CHANCES, ids=str)
def test_the_score_expected_of_a_random_map(metric):
    """So many random maps of one picture."""
    case, count = planted(1, chunk=256), 400
    inputs = case.inputs.expand(count, -1, -1, -1)
    maps = RandomMap()(case.model, inputs, 1)
    with started(case.model, inputs, 1) as task:
        given = as_case(Samples(task), maps)
        found, chance = metric.score(given).values, metric.chance(given)
    error = float((found - chance).std()) / count**0.5
    assert abs(float((found - chance).mean())) < 4 * error
    assert error < 0.1 * (1 + float(chance.mean()))  # else anything would do


def test_there_is_no_chance_where_regions_differ_or_maps_are_scaled():
    case = planted(2)
    with started(case.model, case.inputs, case.target) as task:
        given = as_case(Samples(task), case.perfect)
        assert MonotonicityCorrelation(regions=Patches(5)).chance(given) is None
        assert Infidelity(scaled=True).chance(given) is None


def test_a_second_explanation_costs_no_evaluation():
    """Nor does a metric that asks for what another has asked for."""
    case = planted()
    metrics = {
        SensitivityN(draws=10): 7 * 10 + 1,
        FaithfulnessCorrelation(draws=10): 0,
        FaithfulnessEstimate(): 81,
        Infidelity(): 0,
        Infidelity(scaled=True, multiplied=False): 0,
        MuFidelity(draws=30): 30,
        FaithfulnessCorrelation(regions=Grid(), draws=30, share=0.2): 0,
        MonotonicityCorrelation(draws=2): 162,
        Infidelity(noise=0.1, draws=6, multiplied=False): 6,
    }
    with started(case.model, case.inputs, case.target) as task:
        samples = Samples(task)
        first, second = as_case(samples, case.perfect), as_case(samples, -case.perfect)
        for metric, forwards in metrics.items():
            found, other = metric.score(first), metric.score(second)
            assert (found.forwards, other.forwards) == (4 * forwards, 0)
            alone = metric(case.model, case.inputs, case.target, -case.perfect)
            assert torch.allclose(other.values, alone, atol=1e-12)


@pytest.mark.parametrize("regions", [Superpixels(12), Patches(5)])
def test_a_sample_is_scored_as_if_it_were_alone(regions):
    """Samples may have different numbers of regions."""
    case, (x, relevance, _) = Model(net(), domain=Domain((0.0,), (1.0,))), blobs()
    for metric in (
        FaithfulnessCorrelation(regions=regions, draws=10),
        SensitivityN(regions=regions, draws=10, shares=(0.2, 0.6)),
        FaithfulnessEstimate(regions=regions),
        MonotonicityCorrelation(regions=regions, draws=2),
        Infidelity(regions=regions),
        Infidelity(regions=regions, multiplied=False, scaled=True, infill=UniformNoise()),
    ):
        together, first = (metric(case, x[:n], 1, relevance[:n]) for n in (4, 1))
        assert torch.allclose(together[:1], first, atol=1e-10)


def test_regions_behind_the_last_are_no_regions():
    f, (x, relevance, counts) = Model(net()), blobs()
    found = FaithfulnessEstimate(regions=Superpixels(12)).run(f, x, 1, relevance)
    assert (~torch.isnan(found.details["drop"])).sum(1).tolist() == counts
    for i, count in enumerate(counts):
        pair = (found.details[name][i, :count].numpy() for name in ("relevance", "drop"))
        assert float(found.values[i]) == pytest.approx(scipy.stats.pearsonr(*pair)[0], abs=1e-9)
    squares = Infidelity(regions=Superpixels(12)).run(f, x, 1, relevance)
    gap = (squares.details["expected"] - squares.details["change"]).square()
    assert torch.allclose(squares.values, gap.nanmean(1))


def test_where_nothing_changes_nothing_correlates():
    """Rounding does not count as change: a map of 0.1 everywhere has no correlation with anything."""
    x, relevance = pictures()
    dead = nn.Sequential(nn.Flatten(), nn.Linear(330, 4)).double()
    with torch.no_grad():
        dead[1].weight.zero_()
    for metric in (FaithfulnessCorrelation(draws=5), MuFidelity(), SensitivityN(draws=5), FaithfulnessEstimate()):
        found = metric.run(dead, x, 1, relevance)
        assert torch.isnan(found.values).all()
        assert any("changes nothing" in reason and gone.all() for reason, gone in found.skipped.items())
    for metric in (FaithfulnessCorrelation(draws=50), MuFidelity(regions=Pixels()), FaithfulnessEstimate(Pixels())):
        found = metric.run(net(), x, 1, torch.full_like(relevance, 0.1))
        assert torch.isnan(found.values).all()
        assert any("same relevance" in reason and gone.all() for reason, gone in found.skipped.items())


class Pair(nn.Module):
    """Linear in a picture and a table."""

    def forward(self, picture: Tensor, table: Tensor) -> Tensor:
        weight = torch.linspace(-1, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
        return torch.stack(((picture * weight).sum((1, 2, 3)) + 3 * table[:, 0] - table[:, 1], table[:, 2]), 1)


@pytest.mark.parametrize(
    "metric", [FaithfulnessCorrelation(draws=9), FaithfulnessEstimate(follows="score"), SensitivityN(draws=9)]
)
def test_rounding_is_no_change(metric):
    """In float32 a sure model's answers differ in their last places; that correlates with nothing."""

    class Nearly(nn.Module):
        def forward(self, x):
            last = 1 + (1e5 * x.sum((1, 2, 3))).sin() * torch.finfo(torch.float32).eps
            return torch.stack((last, torch.zeros_like(last)), 1)

    x, relevance = (tensor.float() for tensor in pictures())
    with torch.no_grad():
        assert len(Nearly()(torch.cat((x, x / 2)))[:, 0].unique()) > 1
    found = metric.run(Nearly(), x, 0, relevance)
    assert torch.isnan(found.values).all()
    assert any("hiding changes nothing" in reason and rows.all() for reason, rows in found.skipped.items())


def test_several_inputs_are_one_game():
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 1, 4, 4, generator=generator, dtype=torch.float64)
    table = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    slope = (
        torch.linspace(-1, 2, 16, dtype=torch.float64).view(1, 1, 4, 4).expand(3, 1, 4, 4),
        torch.tensor([[3.0, -1.0, 0.0]], dtype=torch.float64).expand(3, 3),
    )
    inputs = (picture, table)
    relevance = (slope[0] * picture, slope[1] * table)
    assert torch.allclose(FaithfulnessCorrelation()(Pair(), inputs, 0, relevance), torch.ones(3).double())
    assert Infidelity(regions=Pixels())(Pair(), inputs, 0, relevance).max() < 1e-24
    assert Infidelity(regions=Pixels(), multiplied=False)(Pair(), inputs, 0, slope).max() < 1e-24
    assert Infidelity(noise=0.1, multiplied=False)(Pair(), inputs, 0, slope).max() < 1e-24


def test_tokens_can_be_hidden_but_not_changed_a_little():
    f = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(15, 2)).double()
    tokens = torch.tensor([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2]])
    relevance = torch.randn(2, 5, dtype=torch.float64)
    with torch.no_grad():  # linear in the embeddings: what a token adds beyond the padding's
        vectors = f[0](tokens) - f[0](torch.zeros_like(tokens))
        exact = (vectors * f[2].weight[1].view(5, 3)).sum(2)
    hide = {"regions": Pixels(), "infill": Constant(0)}
    assert torch.allclose(FaithfulnessCorrelation(**hide, share=0.4)(f, tokens, 1, exact), torch.ones(2).double())
    assert Infidelity(**hide)(f, tokens, 1, exact).max() < 1e-24
    for metric in (Infidelity(**hide, multiplied=False), Infidelity(noise=0.1, multiplied=False)):
        with pytest.raises(InputError, match="tokens do not change by an amount"):
            metric(f, tokens, 1, relevance)


def test_what_is_no_class_has_a_score():
    f, (x, relevance) = Model(net()), pictures()
    for metric in (FaithfulnessCorrelation(), Infidelity(), FaithfulnessEstimate(follows="score")):
        assert torch.isfinite(metric(f, x, Contrast(0, 1), relevance)).all()
    with pytest.raises(InputError, match="follow its 'score'"):
        FaithfulnessEstimate()(f, x, Contrast(0, 1), relevance)


@pytest.mark.parametrize(
    ("metric", "fields", "match"),
    [
        (FaithfulnessCorrelation, {"share": 0.0}, "share"),
        (MuFidelity, {"draws": 1}, "2 draws"),
        (SensitivityN, {"shares": ()}, "share"),
        (SensitivityN, {"shares": (0.5, 1.5)}, "share"),
        (MonotonicityCorrelation, {"draws": 0}, "at least once"),
        (Infidelity, {"noise": 0.0, "multiplied": False}, "noise > 0"),
        (Infidelity, {"noise": 0.1}, "multiplied=False"),
    ],
)
def test_fields_that_make_no_sense_are_refused(metric, fields, match):
    with pytest.raises(InputError, match=match):
        metric(**fields)
