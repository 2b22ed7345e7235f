"""Complexity against literal loops and closed forms."""

import math

import pytest
import torch
from torch import nn

from whybox import Complexity, EffectiveComplexity, RandomMap, Sparseness
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case

METRICS = (Sparseness(), Complexity(), EffectiveComplexity(threshold=0.3))
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)


def run(metric, relevance):
    model = nn.Sequential(nn.Flatten(), nn.Linear(relevance[0].numel(), 2)).to(relevance)
    return metric.run(model, torch.rand_like(relevance), 0, relevance)


def by_hand(metric, values: list[float]) -> float:
    total = sum(values)
    if isinstance(metric, Sparseness):  # the mean difference of all pairs, as a share of twice the mean
        return sum(abs(a - b) for a in values for b in values) / (2 * len(values) * total)
    if isinstance(metric, Complexity):
        return -sum(v / total * math.log(v / total) for v in values if v)
    return sum(v > metric.threshold * max(values) for v in values)


@every_metric
def test_against_loops(metric):
    relevance = torch.randn(5, 2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    relevance[1] = relevance[1].round()
    found = run(metric, relevance)
    for i in range(5):
        values = [abs(float(relevance[i, 0, a, b] + relevance[i, 1, a, b])) for a in range(4) for b in range(3)]
        assert float(found.values[i]) == pytest.approx(by_hand(metric, values), abs=1e-12)
    assert found.forwards == 0


def test_closed_forms():
    one, flat = torch.zeros(1, 1, 4, 5), torch.full((1, 1, 4, 5), -0.3)
    one[0, 0, 2, 2] = 7.0
    expected = {Sparseness(): (1 - 1 / 20, 0), Complexity(): (0, math.log(20)), EffectiveComplexity(): (1, 20)}
    for metric, values in expected.items():
        found = [float(run(metric, relevance).values) for relevance in (one, flat)]
        assert found == pytest.approx(list(values), abs=1e-6)


@every_metric
def test_scale_and_sign_play_no_part(metric):
    relevance = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    assert torch.allclose(run(metric, relevance).values, run(metric, -1e-9 * relevance).values)


@every_metric
def test_a_map_of_nothing_has_no_score(metric):
    relevance = torch.rand(2, 1, 3, 3)
    relevance[1] = 0
    found = run(metric, relevance)
    assert found.values.isnan().tolist() == [False, True]
    assert found.skipped["no relevance at any place"].tolist() == [False, True]


@every_metric
def test_fault_callers_arrays_are_not_changed(metric):
    relevance = torch.randn(2, 3, 4, 4)
    before = relevance.clone()
    run(metric, relevance)
    assert torch.equal(relevance, before)


@every_metric
def test_fault_rgb_input_with_maps_of_one_channel(metric):
    relevance = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    one = relevance.sum(1, keepdim=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    x = torch.rand_like(relevance)
    assert torch.equal(metric(model, x, 0, one), metric(model, x, 0, relevance))


@every_metric
def test_several_inputs_are_one_row_of_places(metric):
    class Both(nn.Module):
        def forward(self, x, y):
            return torch.stack((x.flatten(1).sum(1), y.sum(1)), 1)

    x, y = torch.randn(2, 1, 2, 2, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    both = metric(Both(), (x, y), 0, (x, y))
    assert torch.allclose(both, run(metric, torch.cat((x.flatten(1), y), 1)).values)


def test_chance_of_effective_complexity_is_what_random_maps_get():
    x = torch.zeros(2000, 1, 5, 5)
    relevance = RandomMap()(nn.Flatten(), x, 0)
    metric = EffectiveComplexity(threshold=0.3)
    with started(nn.Flatten(), x, 0) as task:
        expected = metric.chance(as_case(Samples(task), relevance))
    scores = run(metric, relevance).values
    assert expected[0] == pytest.approx(1 + 24 * 0.7)
    assert abs(scores.mean() - expected.mean()) < 4 * scores.std() / 2000**0.5


def test_thresholds_out_of_range_are_refused():
    with pytest.raises(InputError, match="from 0 to 1"):
        EffectiveComplexity(threshold=1.0)
