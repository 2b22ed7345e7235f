"""Pictures seen through the map, against literal loops."""

import pytest
import torch
from test_removal import net, pictures
from torch import nn

from whybox import AverageDrop, AverageGain, AverageIncrease, Constant, Contrast, Model
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case

METRICS = (AverageDrop, AverageIncrease, AverageGain)


@pytest.mark.parametrize("fill", [0.0, 0.5])
@pytest.mark.parametrize("scale", ["range", "positive", "none"])
def test_against_loops(scale, fill):
    f, (x, relevance) = net(), pictures(6)
    if scale == "none":
        relevance = (relevance[:, :1] / 10).clamp(0, 1)
    target = torch.tensor([0, 3, 1, 2, 2, 0])
    expected = torch.zeros(3, 6, dtype=torch.float64)
    for i in range(6):
        mask = relevance[i].sum(0)
        if scale == "range":
            mask = (mask - mask.min()) / (mask.max() - mask.min())
        elif scale == "positive":
            mask = torch.where(mask > 0, mask, 0.0) / mask.max()
        seen = mask * x[i] + (1 - mask) * fill
        with torch.no_grad():
            p, o = f(torch.stack((x[i], seen))).softmax(1)[:, target[i]].tolist()
        expected[:, i] = torch.tensor([max(p - o, 0) / p, float(o > p), max(o - p, 0) / (1 - p)])
    assert 0 < expected[1].sum() < 6  # some gain and some lose
    for metric, values in zip(METRICS, expected, strict=True):
        found = metric(scale=scale, infill=Constant(fill))(Model(f), x, target, relevance)
        assert torch.allclose(found, values, atol=1e-12)


def test_one_forward_serves_all_three():
    x, relevance = pictures()
    with started(net(), x, 1) as task:
        given = as_case(Samples(task), relevance)
        forwards = [metric().score(given).forwards for metric in METRICS]
    assert forwards == [6, 0, 0]


def test_a_map_of_several_inputs_is_brought_to_its_range_as_one():
    class Sum(nn.Module):
        def forward(self, a, b):
            return torch.stack((a.sum(1) + b.sum(1), torch.zeros(len(a)).double()), 1)

    a, b = torch.rand(2, 3).double(), torch.rand(2, 4).double()
    relevance = (torch.full_like(a, 2.0), torch.full_like(b, 0.5))
    found = AverageDrop(scale="positive").run(Sum(), (a, b), 0, relevance)
    assert torch.allclose(found.details["after"], (a.sum(1) + b.sum(1) / 4).sigmoid())


def test_what_cannot_be_scored_is_named():
    """No mask follows from a map without a positive value; what is certain cannot gain, what is impossible not drop."""
    x, relevance = pictures()
    relevance[0] = -relevance[0].abs()
    found = AverageDrop(scale="positive").run(net(), x, 1, relevance)
    assert torch.isnan(found.values).tolist() == [True, False, False]
    assert found.skipped["a map that cannot be brought to [0, 1]"].tolist() == [True, False, False]

    class Sure(nn.Module):
        def forward(self, x):
            return torch.tensor([[1000.0, 0.0]]).double().expand(len(x), 2) + 0 * x.sum((1, 2, 3))[:, None]

    gain, drop = AverageGain().run(Sure(), x, 0, relevance), AverageDrop().run(Sure(), x, 1, relevance)
    assert torch.isnan(gain.values).all()
    assert gain.skipped["a probability of 1 cannot gain"].all()
    assert torch.isnan(drop.values).all()
    assert drop.skipped["a probability of 0 cannot drop"].all()
    assert (AverageDrop()(Sure(), x, 0, relevance) == 0).all()


def test_what_cannot_be_masked_is_refused():
    x, relevance = pictures()
    with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
        AverageDrop(scale="none")(net(), x, 1, relevance)
    with pytest.raises(InputError, match="follow its 'score'"):
        AverageDrop()(net(), x, Contrast(0, 1), relevance)
    words = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(15, 2))
    with pytest.raises(InputError, match="not faded"):
        AverageDrop()(words, torch.ones(2, 5, dtype=torch.long), 1, torch.rand(2, 5))
