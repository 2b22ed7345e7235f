"""Curves of removal and what is made of them, against literal loops; what is shared between metrics."""

import numpy
import pytest
import torch
from planted import planted
from torch import Tensor, nn

from whybox import (
    IROF,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Black,
    Constant,
    Contrast,
    Deletion,
    Domain,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Imputed,
    Insertion,
    Model,
    MonotonicityCorrelation,
    Patches,
    Pixels,
    RegionPerturbation,
    Superpixels,
    UniformNoise,
    Zero,
)
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case
from whybox.evaluation.removal import Ranks


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(45, 4)
    ).double()


def pictures(n: int = 3, height: int = 11, width: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(n, 3, height, width, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, 3, height, width, generator=generator, dtype=torch.float64)


def blobs() -> tuple[Tensor, Tensor, list[int]]:
    """Smooth pictures, relevance, and the numbers of their superpixels, which differ."""
    x = nn.functional.interpolate(pictures(4, 6, 6)[0], (24, 24), mode="bicubic")
    counts = (Superpixels(12).labels(x).flatten(1).amax(1) + 1).tolist()
    assert len(set(counts)) > 1
    return x, pictures(4, 24, 24)[1], counts


def by_hand(f, x, relevance, target, size, removed, order, filled):
    """One picture at a time, one region at a time: the probabilities after so many regions are gone."""
    height, width = x.shape[1:]
    corners = [(i, j) for i in range(0, height, size) for j in range(0, width, size)]
    value = {(i, j): float(relevance[:, i : i + size, j : j + size].sum()) for i, j in corners}
    ordered = sorted(corners, key=value.get, reverse=order == "most")
    curve = []
    for count in removed:
        changed = x.clone()
        for i, j in ordered[:count]:
            changed[:, i : i + size, j : j + size] = filled[:, i : i + size, j : j + size]
        with torch.no_grad():
            curve.append(float(f(changed[None]).softmax(1)[0, target]))
    return curve


@pytest.mark.parametrize("order", ["most", "least"])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_region_perturbation_against_loops(order, size):
    f, (x, relevance), target = net(), pictures(), torch.tensor([0, 3, 1])
    metric = RegionPerturbation(size=size, steps=9, levels=5, infill=Black(), order=order)
    found = metric.run(Model(f), x, target, relevance)
    low = x.amin((0, 2, 3)).view(3, 1, 1).expand(3, *x.shape[2:])  # the domain measured on the batch
    removed = found.details["removed"].tolist()
    for i in range(3):
        curve = by_hand(f, x[i], relevance[i], int(target[i]), size, removed[i], order, low)
        assert found.details["probability"][i].tolist() == pytest.approx(curve, abs=1e-12)
        assert float(found.values[i]) == pytest.approx(numpy.mean([curve[0] - p for p in curve]), abs=1e-12)
        assert found.details["relative"][i].tolist() == pytest.approx([p / curve[0] for p in curve], abs=1e-12)
    assert removed[0] == [round(9 * k / 5) for k in range(6)]
    assert found.forwards == 3 * 6


@pytest.mark.parametrize(("metric", "order"), [(Deletion, "most"), (Insertion, "least")])
def test_deletion_and_insertion_against_loops(metric, order):
    f, (x, relevance), target = net(), pictures(), torch.tensor([0, 3, 1])
    found = metric(steps=7, regions=Patches(2)).run(Model(f), x, target, relevance)
    removed = found.details["removed"].tolist()
    for i in range(3):
        curve = by_hand(f, x[i], relevance[i], int(target[i]), 2, removed[i], order, torch.zeros_like(x[i]))
        shares = [count / 30 for count in removed[i]]
        area = sum((a + b) / 2 * (t - s) for a, b, s, t in zip(curve, curve[1:], shares, shares[1:], strict=False))
        assert float(found.values[i]) == pytest.approx(area, abs=1e-12)
        assert removed[i][-1] == 30


def test_both_orders_are_the_area_between():
    f, (x, relevance), target = Model(net()), pictures(), 2
    both, most, least = (
        RegionPerturbation(size=3, steps=12, levels=4, order=order)(f, x, target, relevance)
        for order in ("both", "most", "least")
    )
    assert torch.allclose(both, most - least, atol=1e-12)


def test_noise_is_drawn_once_for_the_whole_way():
    """What has been replaced stays as it was replaced: a model that sees one pixel changes its answer once."""
    f = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).double()
    with torch.no_grad():
        f[1].weight.zero_()
        f[1].weight[1, 0] = 1.0
    x = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    relevance = torch.arange(64.0, 0, -1, dtype=torch.float64).view(1, 1, 8, 8)
    model = Model(f, domain=Domain((0.0,), (1.0,)))
    found = RegionPerturbation(size=2, steps=16, levels=16, follows="score", infill=UniformNoise()).run(
        model, x, 1, relevance
    )
    steps = found.details["score"][0].diff()
    assert steps[0] != 0
    assert (steps[1:] == 0).all()


def test_a_random_order_has_nothing_to_do_with_the_map():
    f, (x, relevance) = Model(net(), chunk=8), pictures()
    one, other = (RegionPerturbation(size=3, order="random")(f, x, 1, r) for r in (relevance, -relevance))
    assert torch.equal(one, other)


def test_ties_are_broken_at_random():
    """In a map that is the same everywhere no place comes first, whatever its number."""
    x = torch.rand(200, 1, 4, 4)
    with started(net(), x.double().expand(200, 3, 4, 4), 0) as task:
        given = as_case(Samples(task), torch.zeros(200, 1, 4, 4))
        ranks = given.once(Ranks(Pixels()))
        reverse = given.once(Ranks(Pixels(), "least"))
    assert (ranks.sort(1).values == torch.arange(16)).all()
    assert (ranks.double().mean(0) - 7.5).abs().max() < 5 * (16**2 / 12 / 200) ** 0.5
    assert torch.equal(ranks + reverse, torch.full_like(ranks, 15))


def test_regions_of_different_number_in_each_picture():
    f, (x, relevance, counts) = Model(net()), blobs()
    found = Deletion(steps=5, regions=Superpixels(12)).run(f, x, 1, relevance)
    assert found.details["removed"][:, -1].tolist() == counts
    blank = net()(torch.zeros_like(x)).softmax(1)[:, 1].detach()
    assert torch.allclose(found.details["probability"][:, -1], blank)


def test_imputed_pixels_follow_from_what_is_hidden():
    f, (x, relevance) = Model(net()), pictures()
    whole = Imputed().fill(x, f.domain_of(x), [], torch.ones_like(x[:, :1], dtype=torch.bool))
    found = Deletion(steps=3, infill=Imputed()).run(f, x, 1, relevance)
    assert torch.allclose(found.details["probability"][:, -1], net()(whole).softmax(1)[:, 1].detach())


def test_metrics_share_what_they_ask_for():
    """The second of two metrics that need the same curve asks the model nothing, and finds the same as alone."""
    given = planted()
    with started(given.model, given.inputs, given.target) as task:
        samples = Samples(task)
        shared = as_case(samples, given.perfect)
        first = RegionPerturbation(size=2, steps=36, levels=12, infill=Zero()).score(shared)
        second = Deletion(steps=12, regions=Patches(2)).score(shared)
        backwards = Insertion(steps=12, regions=Patches(2)).score(shared)
        other = Deletion(steps=12, regions=Patches(2)).score(as_case(samples, -given.perfect))
    assert (first.forwards, second.forwards) == (4 * 13, 4 * 12)  # other steps: most=36 is not "all"
    assert (backwards.forwards, other.forwards) == (4 * 12, 4 * 12)  # never the originals again
    alone = Insertion(steps=12, regions=Patches(2))(given.model, given.inputs, given.target, given.perfect)
    assert torch.equal(backwards.values, alone)


def test_one_region_is_not_all_of_them():
    """1 == 1.0: a curve that takes one region away is not that which takes the share 1, whoever asks first."""
    given = planted()
    with started(given.model, given.inputs, given.target) as task:
        shared = as_case(Samples(task), given.perfect)
        one = RegionPerturbation(size=2, steps=1, levels=1, infill=Zero()).score(shared)
        every = Deletion(steps=1, regions=Patches(2)).score(shared)
    assert one.details["removed"].tolist() == [[0, 1]] * 4
    assert every.details["removed"].tolist() == [[0, 36]] * 4


def test_what_has_no_such_answer_is_refused_before_the_way():
    """Only the originals have been asked for by then."""
    f, (x, relevance) = net(), pictures()
    asked = []
    f.register_forward_pre_hook(lambda _, args: asked.append(len(args[0])))
    metrics = (Deletion(), RegionPerturbation(size=3, order="both"), IROF(Patches(3)), FaithfulnessEstimate())
    for metric in (*metrics, MonotonicityCorrelation(), AverageDrop()):
        asked.clear()
        with pytest.raises(InputError, match="no class"):
            metric(f, x, Contrast(0, 1), relevance)
        assert sum(asked) == 3


def test_an_answer_that_is_not_finite_is_named():
    """It is not taken for a target without a probability, nor dropped in silence."""

    class Brittle(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1)
            return torch.stack((total, total.sqrt() / total), 1)

    x, relevance = pictures()
    faded = {"infill": Constant(-1e6)}
    metrics = (AverageIncrease(**faded), AverageDrop(**faded), FaithfulnessCorrelation(share=1.0))
    for metric in (Deletion(), Insertion(), *metrics):
        found = metric.run(Brittle(), x, 1, relevance)
        assert torch.isnan(found.values).all()
        assert torch.stack(list(found.skipped.values())).any(0).all()


def test_in_a_dense_output_the_probability_is_the_mean_over_positions():
    x, relevance = pictures()
    torch.manual_seed(0)
    f = nn.Conv2d(3, 4, 3).double()
    found = Deletion(steps=2).run(f, x, 1, relevance)
    with torch.no_grad():
        assert torch.allclose(found.details["probability"][:, 0], f(x).softmax(1)[:, 1].mean((1, 2)))
    gain = AverageGain()(f, x, 1, relevance)
    assert ((gain >= 0) & (gain <= 1)).all()


def test_tables_have_no_grid():
    with pytest.raises(InputError, match="TokenDeletion"):
        RegionPerturbation()(nn.Linear(5, 2), torch.rand(2, 5), 1, torch.rand(2, 5))


def test_what_is_no_class_has_no_probability():
    f, (x, relevance) = Model(net()), pictures()
    with pytest.raises(InputError, match="follow its 'score'"):
        Deletion()(f, x, Contrast(0, 1), relevance)
    found = Deletion(follows="score").run(f, x, Contrast(0, 1), relevance)
    with torch.no_grad():
        scores = net()(x)
    assert torch.allclose(found.details["score"][:, 0], scores[:, 0] - scores[:, 1])


def test_right_is_whether_the_class_is_predicted():
    f, (x, relevance) = Model(net()), pictures()
    with torch.no_grad():
        predicted = net()(x).argmax(1)
    wrong = predicted.clone()
    wrong[0] = (wrong[0] + 1) % 4
    found = Deletion(steps=2, follows="right").run(f, x, wrong, relevance)
    assert found.details["right"][:, 0].tolist() == [0, 1, 1]
