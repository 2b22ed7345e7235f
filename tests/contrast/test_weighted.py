"""Weighted contrasts against the literal loop over weights, for maps of several methods."""

import pytest
import torch
from plain_problems import mlp, normal
from torch import nn

from whybox import Contrast, Domain, GradCAM, Gradient, InputXGradient, Logit, Model, Occlusion, WeightedContrast
from whybox.core.errors import InputError


def loop(model, of, x, true, probe, weights=40, strength=1.0):
    """As the paper writes it, sample by sample and weight by weight."""
    low, high = model.domain.low[0], model.domain.high[0]
    maps, counts = [], []
    for row, t, p in zip(x, true.tolist(), probe.tolist(), strict=True):
        e_t, e_p = (of(model, row[None], c)[0] for c in (t, p))
        before = model.module(row[None])[0].softmax(0)
        kept = []
        for k in range(1, weights + 1):
            e = e_t - 2 * k / weights * e_p
            changed = (row - strength * (high - low) * e / e.abs().max()).clamp(low, high)
            after = model.module(changed[None])[0].softmax(0)
            if after[t] < before[t] and after[p] > before[p]:
                kept.append(e)
        counts.append(len(kept))
        maps.append(torch.stack(kept).mean(0) if kept else torch.full_like(e_t, torch.nan))
    return torch.stack(maps), counts


@pytest.fixture(scope="module")
def table():
    net = mlp((7, 24, 4), 3, 2.0)
    return Model(net, domain=Domain((-2.0,), (2.0,))), normal(6, 7, seed=1).clamp(-2, 2)


@pytest.mark.parametrize("strength", [1.0, 0.1])
@pytest.mark.parametrize("of", [Gradient(), InputXGradient(), Occlusion(window=1)], ids=repr)
def test_it_is_the_literal_loop(table, of, strength):
    model, x = table
    ranked = model.module(x).argsort(dim=1, descending=True)
    answer = WeightedContrast(of, weights=40, strength=strength).run(model, x, Contrast())
    expected, counts = loop(model, of, x, ranked[:, 0], ranked[:, 1], 40, strength)
    assert answer.details["kept"].sum(1).tolist() == counts
    torch.testing.assert_close(answer.relevance, expected.detach(), equal_nan=True)
    assert 0 < sum(counts) < 6 * 40
    assert torch.equal(answer.details["classes"], ranked[:, :2])


def test_where_no_weight_is_kept_that_is_said():
    """A map that is the same for both classes, and a model whose probe falls with it."""

    class Flat(nn.Module):
        def forward(self, x):
            return torch.stack((0 * x[:, 0] + 1, 0 * x[:, 0]), 1)

    answer = WeightedContrast(Gradient(), weights=3).run(Flat(), normal(2, 3), Contrast())
    assert not answer.details["kept"].any()
    assert answer.relevance.isnan().all()
    assert answer.checks[0].name == "no weight kept"
    assert not answer.checks[0].passed.any()


def test_maps_without_channels_are_imposed_on_all_of_them():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    x = normal(3, 2, 6, 6)
    answer = WeightedContrast(GradCAM(), weights=10).run(net, x, Contrast())
    assert answer.relevance.shape == (3, 1, 6, 6)
    assert answer.details["of"][0]["layers"] == ("1",)


def test_the_cost(table):
    model, x = table
    answer = WeightedContrast(Gradient(), weights=11).run(model, x, Contrast(0, 1))
    assert (answer.forwards, answer.backwards) == (6 * (2 + 1 + 11), 6 * 2)
    default = WeightedContrast(Gradient()).run(model, x, Logit(0))
    assert default.details["kept"].shape == (6, 400)


def test_bad_settings(table):
    with pytest.raises(InputError, match="weights is at least 1"):
        WeightedContrast(weights=0)
    with pytest.raises(InputError, match="strength positive"):
        WeightedContrast(strength=0.0)
    with pytest.raises(InputError, match="is imposed on one input"):
        WeightedContrast(Gradient()).run(table[0], (table[1], table[1]), Contrast(0, 1))
