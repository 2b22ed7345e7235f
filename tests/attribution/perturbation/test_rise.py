"""RISE: against a literal loop over masks, expectations by enumeration, and truths that were planted."""

import itertools
import math

import pytest
import torch
from planted import INFILLS, PLACES, Constantly, Reader, inputs, normal, outside, wrapped
from torch import nn
from torch.nn import functional as F

from whybox import RISE, Along, Constant, Model, Patches, Superpixels, Zero
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.errors import InputError
from whybox.core.task import noise_keys

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def drawn(seed, samples, columns, salt=0):
    key = torch.tensor(noise_keys(seed, 1)).expand(samples)
    return uniform(key, torch.arange(samples), columns, salt)


def literal_masks(positions, samples, cells, keep, seed=0):
    """One mask at a time: a grid of coins, upsampled by torch to one cell more than the input, cut out by chance."""
    d = len(positions)
    for row in drawn(seed, samples, cells**d + d):
        grid = (row[:-d] < keep).double().view(1, 1, *(cells,) * d)
        widths = [math.ceil(size / cells) for size in positions]
        large = F.interpolate(grid, size=[(cells + 1) * w for w in widths], mode=MODES[d], align_corners=False)[0]
        starts = [int(u * w) for u, w in zip(row[-d:].tolist(), widths, strict=True)]
        yield large[(slice(None), *(slice(s, s + size) for s, size in zip(starts, positions, strict=True)))]


@pytest.mark.parametrize(("positions", "cells"), [((12, 9), 4), ((5, 7), 8), ((20,), 8), ((6, 5, 7), 3)])
@pytest.mark.parametrize(("keep", "infill"), [(0.5, Zero()), (0.3, Constant(0.7))])
def test_against_a_loop(positions, cells, keep, infill):
    x = normal(2, 3, *positions)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 6), nn.Tanh(), nn.Linear(6, 2)).double()
    answer = RISE(30, cells, keep, infill).run(Model(module, chunk=7), x, 1, seed=2)
    total, mean = torch.zeros(2, 1, *positions, dtype=x.dtype), torch.zeros(2, dtype=x.dtype)
    value = 0.0 if infill == Zero() else 0.7
    for m in literal_masks(positions, 30, cells, keep, seed=2):
        score = module(m * x + (1 - m) * value)[:, 1].detach()
        total += score.view(-1, 1, *(1,) * len(positions)) * m / 30 / keep
        mean += score / 30
    torch.testing.assert_close(answer.relevance, total, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(answer.details["mean_score"], mean)


def test_masks_have_their_mean_everywhere():
    """A model that is always 1 gives the mean mask over E m: near 1 also at the border."""
    relevance = RISE(4000, keep=0.3)(Model(Ones(), chunk=64), torch.zeros(1, 1, 20, 20, dtype=torch.float64), 0)
    assert float((relevance - 1).abs().max()) < 5 * math.sqrt(0.7 / 0.3 / 4000)


class Ones(nn.Module):
    def forward(self, x):
        return torch.ones(len(x), 1, dtype=x.dtype)


def test_the_expectation_by_enumeration():
    """For columns R → E f(kept) | column kept; within five standard errors of the sample."""
    x = normal(1, 4)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    kept = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=x.dtype)
    scores = module(kept * x)[:, 0].detach()
    exact = (scores[:, None] * kept).sum(0) / kept.sum(0)
    error = (scores[:, None] * kept * 2).std(0) / math.sqrt(4000)
    relevance = RISE(4000)(Model(module, chunk=64), x, 0)[0]
    assert bool(((relevance - exact).abs() < 5 * error).all())
    assert float((relevance - exact.flip(0)).abs().max()) > 5 * float(error.max())


def test_all_samples_see_the_same_masks():
    x = normal(1, 3, 8, 8).expand(3, -1, -1, -1)
    relevance = RISE(20)(Model(Reader(PLACES["picture"][1]), chunk=4), x, 1)
    torch.testing.assert_close(relevance[1:], relevance[:1].expand(2, -1, -1, -1))


def test_regions_in_place_of_cells():
    x = normal(2, 3, 8, 8)
    regions = Superpixels(6)
    relevance = RISE(25, regions=regions)(Model(Reader((0,)), chunk=4), x, 1, seed=1)
    labels = regions.labels(x)
    kept = drawn(1, 25, int(labels.max()) + 1) < 0.5
    for sample in range(2):
        shown = kept[:, labels[sample]].double()
        scores = Reader((0,))(shown * x[sample])[:, 1]
        expected = (scores.view(-1, 1, 1, 1) * shown).sum(0) / 25 / 0.5
        torch.testing.assert_close(relevance[sample], expected)


REGIONS = {"picture": None, "table": None, "series": None, "tokens": Along(1), "video": Along(2)}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("infill", INFILLS, ids=repr)
def test_what_was_planted_is_found(name, infill):
    """Above the mean score where the model reads, near it elsewhere; a model that reads elsewhere is seen there."""
    shape, place, elsewhere = PLACES[name]
    x, method = inputs(shape), RISE(2000, infill=infill, regions=REGIONS[name])
    for where, other in ((place, elsewhere), (elsewhere, place)):
        answer = method.run(wrapped(Reader(where)), x, 0)
        mean = answer.details["mean_score"].view(-1, *(1,) * (x.ndim - 1))
        rise = (answer.relevance - mean).expand_as(x)
        inside = rise[(slice(None), *where)].flatten(1).mean(1)
        assert float(inside.min()) > 0.02
        assert bool((rise[(slice(None), *other)].flatten(1).abs().mean(1) < 0.4 * inside).all())
        assert bool((outside(rise, x, where).median(1).values.abs() < 0.3 * inside).all())


def test_several_inputs():
    """Each input has masks of its own, of its own kind."""

    class Both(nn.Module):
        def forward(self, picture, table, scalar):
            return (picture.flatten(1).mean(1) + 2 * table[:, 1] + scalar)[:, None]

    inputs = (torch.ones(2, 3, 8, 8), torch.ones(2, 3), torch.ones(2))
    picture, table, scalar = RISE(3000)(Model(Both(), chunk=64), inputs, 0)
    assert (picture.shape, table.shape, scalar.shape) == ((2, 1, 8, 8), (2, 3), (2,))
    mean = 0.5 + 1 + 0.5
    torch.testing.assert_close(table[0], torch.tensor([mean, mean + 1, mean]), rtol=0, atol=0.25)
    torch.testing.assert_close(scalar, torch.full((2,), mean + 0.5), rtol=0, atol=0.25)


def test_a_constant_model():
    answer = RISE(200).run(Constantly(), torch.randn(2, 3, 16, 16), 1)
    torch.testing.assert_close(answer.details["mean_score"], torch.full((2,), 0.3, dtype=torch.float64))
    assert float((answer.relevance - 0.3).abs().max()) < 0.3 * 5 / math.sqrt(200)


@pytest.mark.parametrize("regions", [None, Along(1)], ids=repr)
def test_a_score_that_is_not_finite_stays_with_its_sample(regions):
    class Logarithm(nn.Module):
        def forward(self, x):
            return x.prod(1, keepdim=True).log()

    x = torch.stack([torch.full((9,), -1.0), torch.full((9,), 2.0)])
    method = RISE(100, infill=Constant(1.0), regions=regions)
    answer = method.run(Model(Logarithm(), chunk=64), x, 0)
    assert bool(answer.relevance[0].isnan().all())
    torch.testing.assert_close(answer.relevance[1], method(Logarithm(), x[1:], 0)[0])
    torch.testing.assert_close(
        answer.details["mean_score"][1].float(), torch.tensor(4.5 * math.log(2)), rtol=0.1, atol=0
    )


def test_tokens():
    tokens = torch.tensor([[1, 5, 2, 3], [5, 2, 2, 7]])
    module = nn.Sequential(nn.Embedding(9, 1), nn.Flatten(1), nn.Linear(4, 1))
    with torch.no_grad():
        module[0].weight.zero_()[5] = 1
        module[2].weight.fill_(1.0)
        module[2].bias.zero_()
    answer = RISE(1000, infill=Constant(0)).run(Model(module, chunk=64), tokens, 0)
    torch.testing.assert_close(answer.relevance, 0.5 + 0.5 * (tokens == 5), rtol=0, atol=0.2)
    behind = RISE(1000)(Model(module, chunk=64), tokens, 0, at="0")
    torch.testing.assert_close(behind[:, :, 0], 0.5 + 0.5 * (tokens == 5), rtol=0, atol=0.2)


@pytest.mark.parametrize("fields", [{"samples": 0}, {"cells": 0}, {"keep": 1.0}, {"keep": 0.0}])
def test_fields_that_make_no_sense(fields):
    with pytest.raises(InputError, match="RISE needs whole samples ≥ 1 and cells ≥ 1"):
        RISE(**fields)


def test_patches_are_cells_without_slopes():
    x = normal(2, 3, 8, 8)
    relevance = RISE(50, regions=Patches(4))(Reader((0,)), x, 1)
    assert bool((relevance.view(2, 1, 2, 4, 2, 4) == relevance.view(2, 1, 2, 4, 2, 4)[:, :, :, :1, :, :1]).all())
