"""Occlusion: against a literal loop, closed forms, and truths that were planted."""

import itertools
from dataclasses import replace

import pytest
import torch
from planted import INFILLS, PLACES, Constantly, Reader, inputs, normal, share_inside, wrapped
from torch import nn

from whybox import Along, Blur, Constant, Domain, GaussianNoise, Mean, Model, Occlusion, Patches, Superpixels
from whybox.core.errors import InputError


def literal(module, x, target, window, stride, fill):
    """Every window by itself, its drop added to every place it covers."""
    positions = x.shape[2:]
    total, count = torch.zeros(len(x), 1, *positions, dtype=x.dtype), torch.zeros(positions, dtype=x.dtype)
    ranges = []
    for size, w, s in zip(positions, window, stride, strict=True):
        starts = [0]
        while starts[-1] + w < size:
            starts.append(starts[-1] + s)
        ranges.append(starts)
    for corner in itertools.product(*ranges):
        place = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        hidden = x.clone()
        hidden[(slice(None), slice(None), *place)] = fill[(slice(None), slice(None), *place)]
        drop = (module(x) - module(hidden))[:, target].detach()
        total[(slice(None), slice(None), *place)] += drop.view(-1, 1, *(1,) * len(positions))
        count[place] += 1
    return total / count


@pytest.mark.parametrize(
    ("positions", "window", "stride"),
    [((9, 7), (3, 2), (2, 1)), ((8, 8), (4, 4), (4, 4)), ((8, 9), (5, 3), (2, 2)), ((13,), (4,), (3,)),
     ((4, 5, 3), (2, 3, 3), (1, 2, 1))],
)  # fmt: skip
def test_against_a_loop(positions, window, stride):
    x = normal(2, 3, *positions)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 6), nn.Tanh(), nn.Linear(6, 2)).double()
    for infill, fill in ((Constant(0.5), torch.full_like(x, 0.5)), (Mean(), x.mean(list(range(2, x.ndim)), True))):
        answer = Occlusion(window, stride, infill).run(Model(module, chunk=5), x, 1)
        expected = literal(module, x, 1, window, stride, fill.expand_as(x))
        torch.testing.assert_close(answer.relevance, expected, rtol=1e-9, atol=1e-12)
    corner = (slice(None), slice(None), *(slice(w) for w in window))
    hidden = x.clone()
    hidden[corner] = x.mean(list(range(2, x.ndim)), True).expand_as(x)[corner]
    first = answer.details["drops"].flatten(1)[:, 0]
    torch.testing.assert_close(first, (module(x) - module(hidden))[:, 1].detach(), rtol=1e-9, atol=1e-12)


def test_closed_form_on_a_linear_model():
    """Single values: w ⊙ (x − x′). Windows: the mean of the windows' sums."""
    weights, x = normal(8), normal(3, 8, seed=1)
    module = nn.Linear(8, 1).double()
    with torch.no_grad():
        module.weight.copy_(weights)
    relevance = Occlusion(infill=Constant(0.25))(module, x, 0)
    torch.testing.assert_close(relevance, weights * (x - 0.25))
    series = nn.Sequential(nn.Flatten(), module)
    products = weights * x
    relevance = Occlusion(window=2, stride=1)(series, x[:, None], 0)[:, 0]
    sums = products[:, 1:] + products[:, :-1]
    expected = torch.cat([sums[:, :1], (sums[:, 1:] + sums[:, :-1]) / 2, sums[:, -1:]], 1)
    torch.testing.assert_close(relevance, expected)


def test_regions_in_place_of_windows():
    """Patches of one size are windows at a stride of their width; samples may differ in their superpixels."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x = normal(2, 3, 8, 8)
    patches = Occlusion(regions=Patches(4))(module, x, 0)
    torch.testing.assert_close(patches, Occlusion(window=4, stride=4)(module, x, 0))
    regions = Superpixels(7)
    answer = Occlusion(regions=regions, infill=Blur(1.0)).run(Model(module, chunk=4), x, 0)
    labels = regions.labels(x)
    filled = Blur(1.0).fill(x, Domain((0.0,), (1.0,)), [])
    for sample in range(2):
        for region in range(int(labels[sample].max()) + 1):
            inside = labels[sample] == region
            drop = (module(x) - module(torch.where(inside, filled, x)))[sample, 0].detach()
            torch.testing.assert_close(answer.relevance[sample][inside], drop.expand(int(inside.sum())))
            torch.testing.assert_close(answer.details["drops"][sample, region], drop)
        assert not answer.details["drops"][sample, region + 1 :].any()


def test_several_inputs():
    class Both(nn.Module):
        def forward(self, picture, table, scalar):
            return (picture.flatten(1).sum(1) * table[:, 1] + scalar)[:, None]

    picture, table, scalar = normal(2, 3, 4, 4), normal(2, 3, seed=1), normal(2, seed=2)
    answer = Occlusion(window=None).run(Model(Both(), chunk=7), (picture, table, scalar), 0)
    whole = picture.flatten(1).sum(1)
    torch.testing.assert_close(answer.relevance[0], picture.sum(1, keepdim=True) * table[:, 1].view(-1, 1, 1, 1))
    torch.testing.assert_close(answer.relevance[1], torch.stack([0 * whole, whole * table[:, 1], 0 * whole], 1))
    torch.testing.assert_close(answer.relevance[2], scalar)
    assert [drops.shape for drops in answer.details["drops"]] == [(2, 4, 4), (2, 3), (2,)]


def test_the_usual_window_costs_the_same_for_every_picture():
    for edge, windows in ((8, 8), (32, 15), (224, 15), (227, 15)):
        answer = Occlusion().run(Reader((0,)), torch.ones(1, 1, edge, edge), 1)
        assert answer.details["drops"].shape == (1, windows, windows)
        assert answer.forwards == windows**2 + 1


METHODS = {
    "picture": Occlusion(window=2, stride=1),
    "table": Occlusion(),
    "series": Occlusion(window=3, stride=1),
    "tokens": Occlusion(regions=Along(1)),
    "video": Occlusion(regions=Along(2)),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("infill", INFILLS, ids=repr)
def test_what_was_planted_is_found(name, infill):
    """A model that reads one place is seen to read there; one that reads elsewhere is not; the rest gets nothing."""
    shape, place, elsewhere = PLACES[name]
    x, method = inputs(shape), replace(METHODS[name], infill=infill)
    relevance = method(wrapped(Reader(place)), x, 0)
    assert float(share_inside(relevance, x, place).min()) > 0.5
    assert not relevance.expand_as(x)[(slice(None), *elsewhere)].any()  # beyond any window that touches the place
    assert not share_inside(method(wrapped(Reader(elsewhere)), x, 0), x, place).any()


def test_planted_in_tokens():
    """Class 1 wherever token 5 stands: its place is found in every row, by token numbers and behind the embedding."""
    net = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(1), nn.Linear(18, 1)).double()
    with torch.no_grad():
        net[0].weight.zero_()[5] = 1
        net[2].weight.fill_(0.3)
    tokens = torch.tensor([[1, 5, 2, 3, 0, 4], [5, 2, 2, 7, 8, 1]])
    expected = torch.tensor([[0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]) * 0.9
    torch.testing.assert_close(Occlusion(infill=Constant(0))(net, tokens, 0), expected, check_dtype=False)
    behind = Occlusion()(net, tokens, 0, at="0")
    torch.testing.assert_close(behind, expected[..., None].double())


def test_a_constant_model():
    for method in (Occlusion(), Occlusion(regions=Superpixels(5), infill=GaussianNoise())):
        assert not method(Constantly(), torch.randn(3, 3, 16, 16), 1).any()


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Occlusion(window=9), "a window of 9 at a stride of 5 does not slide over 8 places"),
        (Occlusion(window=2, stride=3), "a window of 2 at a stride of 3 does not slide"),
        (Occlusion(window=(2, 2, 2)), r"for each of 2 axes of positions, not \(2, 2, 2\)"),
        (Occlusion(window=0), "window is a whole number from 1"),
        (Occlusion(stride=0), "stride is a whole number from 1"),
    ],
)
def test_windows_that_do_not_fit(method, says):
    with pytest.raises(InputError, match=says):
        method(Reader((0,)), torch.ones(1, 3, 8, 8), 0)


def test_windows_or_regions():
    with pytest.raises(InputError, match="windows or regions"):
        Occlusion(window=2, regions=Patches(2))
