"""Prediction difference analysis: against numpy and literal loops, enumeration, and truths that were planted."""

import itertools
import math
import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from planted import PLACES, Constantly, normal, share_inside, wrapped
from torch import nn

from whybox import (
    Blur,
    Constant,
    Contrast,
    Fitted,
    Function,
    Logit,
    LogProbability,
    Mean,
    Model,
    Neuron,
    Occlusion,
    PredictionDifference,
    Probability,
    Sample,
    Shuffled,
    SmoothGrad,
    UniformNoise,
    Zero,
)
from whybox.attribution.perturbation.conditional import Conditional, fit_patches, patch_sizes
from whybox.attribution.perturbation.uniform import uniform
from whybox.attribution.perturbation.windows import Windows
from whybox.core.errors import InputError
from whybox.core.task import Task, noise_keys

sys.path.append(str(Path(__file__).parents[2] / "core"))
from memory import Peak

SCORE = Function(lambda output: output[:, 0])


def net(*sizes, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sizes), 7), nn.Tanh(), nn.Linear(7, classes)).double()


def textures(n, channels, *sizes, seed=0):
    """Data whose neighbours are alike, with a mean and a spread that differ by channel."""
    x = normal(n, channels, *(size + 2 for size in sizes), seed=seed)
    for axis in range(2, x.ndim):
        x = x.unfold(axis, 3, 1).mean(-1)
    channel = torch.arange(channels, dtype=torch.float64).view(-1, *(1,) * len(sizes))
    return x * (1 + channel) + channel


def conditional(fitted, x, seed=0):
    """The method's sampler, with what it needs to be asked."""
    task = Task(Model(Constantly()), x, Logit(0), noise_keys(seed, len(x)))
    windows = fitted.method._windows(task)
    return Conditional(task, windows, patch_sizes(windows, fitted.method.margin), fitted.state), windows


def unclipped(fitted):
    wide = {name: torch.full_like(fitted.state[name], bound) for name, bound in (("low", -1e9), ("high", 1e9))}
    return Fitted(fitted.method, {**fitted.state, **wide})


# --- The literal reference: one window, one draw, one channel at a time, in numpy.


def windows_of(size, window, stride):
    starts = [0]
    while starts[-1] + window < size:
        starts.append(starts[-1] + stride)
    return [(start, min(start + window, size)) for start in starts]


def literal_parameters(state, channel, x, box, margin, widths):
    """Mean and covariance of the window's values given the rest of its patch, where the patch is, by inverting Σ₂₂."""
    corner, patch = [], []
    for (low, _), size, width in zip(box, x.shape, widths, strict=True):
        patch.append(min(width + 2 * margin, size))
        corner.append(min(max(low - margin, 0), size - patch[-1]))
    places = list(itertools.product(*(range(p) for p in patch)))
    absolute = [tuple(c + p for c, p in zip(corner, place, strict=True)) for place in places]
    inside = [all(low <= a < high for a, (low, high) in zip(at, box, strict=True)) for at in absolute]
    one = [i for i, own in enumerate(inside) if own]
    two = [i for i, own in enumerate(inside) if not own]
    mean, covariance = state["mean"][channel].numpy(), state["covariance"][channel].numpy()
    given = np.array([x[absolute[i]] for i in two])
    slope = covariance[np.ix_(one, two)] @ np.linalg.inv(covariance[np.ix_(two, two)])
    return (
        [absolute[i] for i in one],
        mean[one] + slope @ (given - mean[two]),
        covariance[np.ix_(one, one)] - slope @ covariance[np.ix_(two, one)],
    )


def literal_method(fitted, module, x, target, window, stride, seed):
    """The whole method for one sample after the other, with the same uniform numbers."""
    method, state = fitted.method, fitted.state
    table = x.ndim == 2
    sizes = x.shape[1:] if table else x.shape[2:]
    channels = 1 if table else x.shape[1]
    boxes = list(itertools.product(*(windows_of(*each) for each in zip(sizes, window, stride, strict=True))))
    maps = np.zeros((len(x), *sizes))
    for sample, key in enumerate(noise_keys(seed, len(x))):
        picture = x[sample].view(channels, *sizes).numpy()
        p = torch.softmax(module(x[sample : sample + 1]), 1)[0, target].item()
        total, covering = np.zeros(sizes), np.zeros(sizes)
        for w, box in enumerate(boxes):
            probabilities = []
            for draw in range(method.samples):
                number = 1 + w * method.samples + draw
                filled = picture.copy()
                volume = math.prod(high - low for low, high in box)
                noise = uniform(torch.tensor([key]), torch.tensor([number]), channels * volume)[0].view(
                    channels, volume
                )
                for c in range(channels):
                    margin = max(sizes) if table else method.margin
                    places, mean, covariance = literal_parameters(state, c, picture[c], box, margin, window)
                    z = scipy.stats.norm.ppf(noise[c].numpy())
                    for i, (place, value) in enumerate(
                        zip(places, mean + scipy.linalg.sqrtm(covariance).real @ z, strict=True)
                    ):
                        bound = (0, place[0]) if table else (c, 0)
                        low, high = state["low"][bound].item(), state["high"][bound].item()
                        filled[(c, *places[i])] = min(max(value, low), high)
                row = torch.as_tensor(filled).view(1, *x.shape[1:])
                probabilities.append(torch.softmax(module(row), 1)[0, target].item())
            cut = tuple(slice(low, high) for low, high in box)
            total[cut] += evidence(p, np.mean(probabilities), 3)
            covering[cut] += 1
        maps[sample] = total / covering
    return torch.as_tensor(maps).view(len(x), *((1,) if not table else ()), *sizes)


def evidence(p, without, classes, training=1e5):
    """Weight of evidence with the Laplace correction, letter by letter."""
    q, r = ((value * training + 1) / (training + classes) for value in (p, without))
    return math.log2(q / (1 - q)) - math.log2(r / (1 - r))


@pytest.mark.parametrize(
    ("shape", "window", "stride", "margin"),
    [
        ((2, 9, 8), (3, 2), (2, 1), 2),  # windows cut at the border, and near it
        ((1, 7, 7), (3, 3), (3, 3), 1),
        ((2, 12), (4,), (3,), 2),
        ((2, 6), (6,), (1,), 2),  # nothing around the only window
        ((5,), (1,), (1,), 2),
        ((5,), (2,), (1,), 0),
        ((1, 4, 4, 3), (2, 2, 1), (1, 2, 1), 1),
    ],
    ids=str,
)
def test_against_a_literal_loop(shape, window, stride, margin):
    if len(shape) == 1:
        data = normal(300, *shape) @ normal(*shape, *shape, seed=1) + torch.arange(5.0)
    else:
        data = textures(300, *shape)
    module, x = net(*shape), data[:2]
    fitted = PredictionDifference(window, stride, samples=3, margin=margin).fit(module, data)
    expected = literal_method(fitted, module, x, 1, window, stride, seed=4)
    for chunk in (1, 7, None):
        found = fitted(Model(module, chunk=chunk), x, 1, seed=4)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(fitted(module, x, 1, seed=5), expected, rtol=1e-3, atol=1e-3)


# --- The conditional sampler


@pytest.mark.parametrize("corner", [(0, 0), (0, 3), (2, 2), (5, 4), (6, 6)], ids=str)
def test_draws_have_the_conditional_mean_and_covariance(corner):
    """Mean and covariance of many draws, unclipped, against the closed form; the rest of the input is untouched."""
    x = textures(1, 2, 8, 8, seed=9)
    fitted = unclipped(PredictionDifference(window=2).fit(Model(Constantly()), textures(50, 2, 8, 8)))
    sampler, windows = conditional(fitted, x)
    number = corner[0] * windows.covers[0][1].shape[0] + corner[1]
    k = 40_000
    draws = sampler.hide(torch.zeros(k, dtype=torch.long), torch.full((k,), number), torch.arange(k))
    box = [(c, c + 2) for c in corner]
    hidden = (slice(None), *(slice(*b) for b in box))
    blank = draws.clone()
    blank[(slice(None), *hidden)] = x[(0, *hidden)]
    assert torch.equal(blank, x.expand(k, -1, -1, -1))
    drawn = draws[(slice(None), *hidden)].flatten(2)
    for channel in range(2):
        _, mean, covariance = literal_parameters(fitted.state, channel, x[0, channel].numpy(), box, 2, (2, 2))
        spread = np.sqrt(np.diag(covariance))
        found = drawn[:, channel].numpy()
        assert (np.abs(found.mean(0) - mean) < 5 * spread / math.sqrt(k)).all()
        error = np.abs(np.cov(found.T) - covariance) / np.outer(spread, spread)
        assert (error < 5 * math.sqrt(2 / k)).all()
        marginal = fitted.state["covariance"][channel].diagonal().max()
        assert (np.diag(covariance) < 0.8 * marginal.item()).all()  # what is around does tell something
    assert np.abs(np.corrcoef(drawn[:, 0].T, drawn[:, 1].T)[:4, 4:]).max() < 5 / math.sqrt(k)  # channels by themselves


def test_whole_patches_have_the_moments_of_the_data():
    """One patch a sample: mean and covariance are numpy's; columns of very different size included."""
    data = normal(2500, 6) @ normal(6, 6, seed=1) * torch.logspace(-3, 3, 6) + 1e4
    state = fit_patches(data, (6,), 0)
    np.testing.assert_allclose(state["mean"][0], data.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(state["covariance"][0], np.cov(data.numpy().T), rtol=1e-9, atol=1e-12)
    assert torch.equal(state["low"], data.amin(0, keepdim=True))
    assert torch.equal(state["high"], data.amax(0, keepdim=True))


def test_patches_from_everywhere_share_one_gaussian():
    """A moving average is the same everywhere: its covariance falls in a line to 0 at a distance of three."""
    state = fit_patches(textures(4000, 2, 20), (5,), 0)
    distance = (torch.arange(5)[:, None] - torch.arange(5)).abs().double()
    for channel in range(2):
        expected = (1 + channel) ** 2 * (3 - distance).clamp_min(0) / 9
        torch.testing.assert_close(state["covariance"][channel], expected, rtol=0, atol=0.03 * (1 + channel) ** 2)
        torch.testing.assert_close(state["mean"][channel], torch.full((5,), float(channel)).double(), rtol=0, atol=0.05)
    assert torch.equal(
        fit_patches(textures(50, 1, 20), (5,), 3)["mean"], fit_patches(textures(50, 1, 20), (5,), 3)["mean"]
    )
    assert not torch.equal(
        fit_patches(textures(50, 1, 20), (5,), 3)["mean"], fit_patches(textures(50, 1, 20), (5,), 4)["mean"]
    )


def test_draws_stay_within_the_range_of_the_data():
    data = (textures(100, 2, 8, 8) > 0.3).double()
    fitted = PredictionDifference(window=3).fit(Model(Constantly()), data)
    sampler, windows = conditional(fitted, data[:1])
    k = sum(windows.counts)
    draws = sampler.hide(torch.zeros(k, dtype=torch.long), torch.arange(k), torch.arange(k))
    assert draws.min() == 0
    assert draws.max() == 1
    assert ((draws > 0) & (draws < 1)).any()


def test_what_follows_from_the_rest_is_drawn_as_it_is():
    """A column that is the sum of two others, and a constant one, are known: hiding them changes nothing."""
    data = normal(200, 5)
    data[:, 2] = data[:, 0] + data[:, 1]
    data[:, 4] = 3.0
    fitted = unclipped(PredictionDifference().fit(Model(Constantly()), data))
    sampler, _ = conditional(fitted, data[:1])
    draws = sampler.hide(torch.zeros(5, dtype=torch.long), torch.arange(5), torch.arange(5))
    known = torch.tensor([0, 1, 2, 4])
    torch.testing.assert_close(draws[known], data[:1].expand(4, 5), rtol=1e-6, atol=1e-6)
    assert (draws[3, 3] - data[0, 3]).abs() > 1e-3


# --- Evidence


@dataclass(frozen=True)
class OneOf(UniformNoise):
    """One of these values, for every place by itself."""

    values: tuple[float, ...] = ()

    def fill(self, x, domain, generators, hidden=None):
        pick = [torch.randint(len(self.values), x.shape[1:], generator=g) for g in generators]
        return torch.tensor(self.values).to(x.dtype)[torch.stack(pick)]


@pytest.mark.parametrize("target", [0, Logit(0), Probability(0)], ids=["number", "Logit", "Probability"])
def test_weight_of_evidence_is_the_formula(target):
    x, module = normal(3, 6), net(6, classes=4)
    relevance = PredictionDifference(infill=Constant(0.5))(module, x, target)
    p = torch.softmax(module(x), 1)[:, 0]
    for sample, column in itertools.product(range(3), range(6)):
        hidden = x[sample : sample + 1].clone()
        hidden[0, column] = 0.5
        without = torch.softmax(module(hidden), 1)[0, 0]
        expected = evidence(p[sample].item(), without.item(), 4)
        assert math.isclose(relevance[sample, column].item(), expected, rel_tol=1e-6, abs_tol=1e-9)


def test_certainty_has_a_limit():
    """At p = 1 and p = 0 the Laplace correction keeps the odds finite: N + 1 to K − 1, and 1 to N + K − 1."""
    module = nn.Linear(1, 2, bias=False).double()
    module.weight.data = torch.tensor([[1e4], [-1e4]], dtype=torch.float64)
    found = PredictionDifference(infill=Constant(-1))(module, torch.ones(1, 1).double(), 0)
    assert math.isclose(found.item(), 2 * math.log2((1e5 + 1) / 1), rel_tol=1e-6)


def test_a_single_output_is_a_sigmoid():
    module, x = net(4, classes=1), normal(2, 4)
    p, without = module(x).sigmoid(), module(torch.zeros_like(x)).sigmoid()
    found = PredictionDifference(window=4, infill=Zero())(module, x, 0)
    for i in range(2):
        expected = evidence(p[i].item(), without[i].item(), 2)
        torch.testing.assert_close(found[i], torch.full((4,), expected).double(), rtol=1e-5, atol=1e-8)
    squeezed = nn.Sequential(module, nn.Flatten(0))
    torch.testing.assert_close(PredictionDifference(window=4, infill=Zero())(squeezed, x, 0), found)


def test_dense_outputs():
    """A class is explained by its mean probability over the positions, an entry by its own."""
    torch.manual_seed(0)
    module, x = nn.Conv2d(1, 3, 3, padding=1).double(), normal(1, 1, 4, 4)
    whole = PredictionDifference(window=4, infill=Zero())
    p, without = (module(y).softmax(1) for y in (x, torch.zeros_like(x)))
    for target, read in ((1, lambda q: q[0, 1].mean()), ((2, 0, 3), lambda q: q[0, 2, 0, 3])):
        expected = evidence(read(p).item(), read(without).item(), 3)
        found = whole(module, x, target)
        torch.testing.assert_close(found, torch.full_like(x, expected), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("target", "score"),
    [
        (Contrast(2, 0), lambda module, x: module(x)[:, 2] - module(x)[:, 0]),
        (Neuron("2", 3), lambda module, x: module[:3](x)[:, 3]),
        (LogProbability(1), lambda module, x: module(x).log_softmax(1)[:, 1]),
        (lambda output: output[:, 1] ** 2, lambda module, x: module(x)[:, 1] ** 2),
    ],
    ids=["Contrast", "Neuron", "LogProbability", "function"],
)
def test_other_targets_have_the_raw_difference(target, score):
    """With a fixed infill that is what occlusion gives; after a fit, the mean over the draws."""
    module, x = net(1, 9), normal(2, 1, 9)
    method = PredictionDifference(window=3, samples=50)
    fixed = replace(method, infill=Constant(0.5))(module, x, target)
    torch.testing.assert_close(fixed, Occlusion(3, 1, Constant(0.5))(module, x, target))
    fitted = method.fit(module, normal(100, 1, 9, seed=3))
    sampler, windows = conditional(fitted, x)
    expected = torch.zeros(2, 7, dtype=torch.float64)
    for sample, w in itertools.product(range(2), range(7)):
        draws = sampler.hide(torch.full((50,), sample), torch.full((50,), w), 1 + w * 50 + torch.arange(50))
        expected[sample, w] = (score(module, x)[sample] - score(module, draws)).mean()
    torch.testing.assert_close(fitted.run(module, x, target).details["differences"], expected)
    torch.testing.assert_close(fitted(module, x, target), windows.average(expected))


def test_a_contrast_of_two_is_the_evidence_in_nats():
    """Two classes: odds are p/(1 − p), so the scores' difference is ln odds; equal to a fixed infill's bits."""
    module, x = net(5, classes=2), normal(3, 5)
    method = PredictionDifference(infill=Zero())
    nats = method(module, x, Contrast(0, 1))
    torch.testing.assert_close(nats / math.log(2), method(module, x, 0), rtol=1e-3, atol=1e-4)


# --- Discrete inputs: enumeration


def test_discrete_inputs_equal_enumeration():
    """Values of a known law: the mean over draws is the sum over all values, within its standard error."""
    values, x = (0.0, 1.0, 3.0), torch.tensor([[0.0, 3.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    module, draws = net(3), 5_000
    answer = PredictionDifference(window=2, samples=draws, infill=OneOf(values)).run(module, x, 2, seed=1)
    p = torch.softmax(module(x), 1)[:, 2]
    for sample, w in itertools.product(range(2), range(2)):
        rows = x[sample].repeat(9, 1)
        rows[:, w : w + 2] = torch.tensor(list(itertools.product(values, repeat=2))).double()
        each = torch.softmax(module(rows), 1)[:, 2].detach()
        low, high = (
            evidence(p[sample].item(), (each.mean() + sign * 5 * each.std() / math.sqrt(draws)).item(), 3)
            for sign in (1, -1)
        )
        assert low < answer.details["differences"][sample, w] < high
        assert high - low < 0.2


@pytest.mark.parametrize("target", [1, SCORE], ids=["class", "score"])
def test_tokens_equal_enumeration(target):
    """Tokens replaced by those of the other sample, of which there is one: exact, and by token numbers."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(1), nn.Linear(20, 3)).double()
    tokens = torch.tensor([[1, 5, 2, 3, 0], [6, 5, 4, 3, 2]])
    found = PredictionDifference(infill=Sample(), samples=3)(module, tokens, target)
    for sample, place in itertools.product(range(2), range(5)):
        other = tokens[sample].clone()
        other[place] = tokens[1 - sample, place]
        rows = module(torch.stack([tokens[sample], other]))
        p, scores = rows.softmax(1)[:, 1].tolist(), rows[:, 0].tolist()
        expected = evidence(*p, 3) if target == 1 else scores[0] - scores[1]
        assert math.isclose(found[sample, place].item(), expected, rel_tol=1e-4, abs_tol=1e-6)
    assert not found[:, [1, 3]].any()  # the same token in both


# --- What is ignored, and what was planted


@pytest.mark.parametrize("target", [0, Probability(0), SCORE, Contrast(0, 1)], ids=lambda t: type(t).__name__)
def test_what_is_ignored_gets_exactly_nothing(target):
    """A net that reads the left half: places that no window shares with it have a 0 without any rounding."""

    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(2, 9, 4)

        def forward(self, x):
            return self.net(x[..., :4].contiguous())

    module, data = Left(), textures(60, 2, 9, 9).float()
    module.float()
    method = PredictionDifference(window=2, samples=3)
    for each in (method, replace(method, infill=UniformNoise()), method.fit(module, data)):
        relevance = each(Model(module, chunk=1), data[:2], target)
        assert not relevance[..., 5:].any()
        assert (relevance[..., :4] != 0).all()


def test_a_constant_model():
    data = textures(30, 3, 16, 16).float()
    method = PredictionDifference(samples=2, stride=4)
    for each in (method, method.fit(Model(Constantly()), data)):
        for target in (1, Contrast(0, 1)):
            assert not each(Constantly(), data[:3], target).any()


class Classifier(nn.Module):
    """A class for large values in one place, and another for what is left."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        inside = x[(slice(None), *self.place)].flatten(1).mean(1)
        return torch.stack([4 * inside - 4, torch.zeros_like(inside)], 1)


METHODS = {
    "picture": PredictionDifference(window=2),
    "table": PredictionDifference(),
    "series": PredictionDifference(window=3),
    "tokens": PredictionDifference(window=(1, 4)),
    "video": PredictionDifference(window=(1, 4, 4)),
}


@pytest.mark.parametrize("fit", [False, True], ids=["infill", "fitted"])
@pytest.mark.parametrize("name", METHODS)
def test_what_was_planted_is_found(name, fit):
    """Evidence for the class lies in the place that is read, not elsewhere; a model that reads elsewhere shows it."""
    shape, place, elsewhere = PLACES[name]
    if name == "tokens":
        shape = (1, *shape)
        place, elsewhere = ((slice(None), *each) for each in (place, elsewhere))
    x = 1.5 + 0.3 * normal(3, *shape)
    method = replace(METHODS[name], infill=UniformNoise())
    if fit:
        method = method.fit(Constantly(), 1.5 * normal(400, *shape, seed=1))
    relevance = method(wrapped(Classifier(place)), x, 0)
    assert float(share_inside(relevance, x, place).min()) > 0.5
    assert (relevance.expand_as(x)[(slice(None), *place)] > 0).all()
    assert not relevance.expand_as(x)[(slice(None), *elsewhere)].any()
    assert not share_inside(method(wrapped(Classifier(elsewhere)), x, 0), x, place).any()


def test_planted_in_tokens():
    """Class 1 wherever token 5 stands: its place is found in every row, by token numbers and behind the embedding."""
    module = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(1), nn.Linear(18, 2)).double()
    with torch.no_grad():
        module[0].weight.zero_()[5] = 1
        module[2].weight.copy_(torch.tensor([[0.0], [0.6]]).expand(2, 18))
    tokens = torch.tensor([[1, 5, 2, 3, 0, 4], [5, 2, 2, 7, 8, 1]])
    stands = tokens == 5
    for relevance in (
        PredictionDifference(infill=Constant(0))(module, tokens, 1),
        PredictionDifference(infill=Zero())(module, tokens, 1, at="0")[..., 0],
    ):
        assert (relevance[stands] > 1).all()
        assert not relevance[~stands].any()


def test_what_is_around_matters():
    """A stripe goes on across the window: the conditional draws know it, draws that ignore what is around do not."""
    data = textures(400, 1, 1, 24, seed=3).expand(-1, -1, 12, -1).contiguous() + 0.01 * normal(400, 1, 12, 24)

    class Stripes(nn.Module):
        def forward(self, x):
            return x[:, :, 4:7, 8:11].sum((1, 2, 3))[:, None]

    x, score = data[:3], Function(lambda output: output[:, 0])
    method = PredictionDifference(window=3, samples=4)
    alone = method(Stripes(), x, score)
    known = method.fit(Stripes(), data)(Stripes(), x, score)
    assert known.abs().max() < 0.1 * alone.abs().max()


# --- Several inputs, other methods around it, cost, seeds


def test_several_inputs():
    class Both(nn.Module):
        def forward(self, picture, table):
            return (picture.flatten(1).sum(1) * table[:, 1])[:, None]

    picture, table = normal(2, 3, 4, 4), normal(2, 3, seed=1)
    answer = PredictionDifference(window=None, infill=Zero()).run(Model(Both(), chunk=7), (picture, table), SCORE)
    occluded = Occlusion(2, 1)(Both(), (picture, table[:, :2]), SCORE)
    torch.testing.assert_close(answer.relevance[0], occluded[0])
    whole = picture.flatten(1).sum(1)
    torch.testing.assert_close(answer.relevance[1], torch.stack([0 * whole, whole * table[:, 1], 0 * whole], 1))
    assert [grid.shape for grid in answer.details["differences"]] == [(2, 3, 3), (2, 3)]


@pytest.mark.parametrize("infill", [Shuffled(), Sample(), UniformNoise(), Mean(), Blur(1.0)], ids=repr)
def test_a_seed_gives_the_same_map_in_any_chunks(infill):
    module, x = net(2, 6, 6), normal(3, 2, 6, 6)
    method = PredictionDifference(window=3, samples=4, infill=infill)
    answers = [method(Model(module, chunk=chunk), x, 1, seed=4) for chunk in (1, 5, 64, None)]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-6, atol=1e-9)
    assert torch.equal(method(Model(module, chunk=5), x, 1, seed=4), answers[1])
    assert torch.allclose(method(Model(module, chunk=5), x, 1, seed=5), answers[1]) == infill.fixed


def test_fitted_in_any_chunks_and_bit_for_bit():
    module, data = net(2, 6, 6), textures(40, 2, 6, 6)
    fitted = PredictionDifference(window=3, samples=4).fit(module, data)
    answers = [fitted(Model(module, chunk=chunk), data[:3], seed=4) for chunk in (1, 5, 64, None)]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-6, atol=1e-9)
    assert torch.equal(fitted(Model(module, chunk=5), data[:3], seed=4), answers[1])
    torch.testing.assert_close(fitted(module, data[:1], seed=4), answers[0][:1])


def test_inside_of_another_method():
    module, data = net(2, 12), textures(40, 2, 12)
    smooth = SmoothGrad(of=PredictionDifference(window=4, samples=2).fit(module, data), samples=3)
    answers = [smooth(Model(module, chunk=chunk), data[:2], 1) for chunk in (1, 64)]
    torch.testing.assert_close(*answers)


@pytest.mark.parametrize(
    ("method", "forwards"),
    [
        (PredictionDifference(window=3, samples=4), 1 + 16 * 4),
        (PredictionDifference(window=3, samples=4, infill=Zero()), 1 + 16),  # every draw would be the same
        (PredictionDifference(window=3, stride=None, samples=4), 1 + 9 * 4),
        (PredictionDifference(window=3, samples=4).fit(Constantly(), textures(9, 2, 6, 6)), 1 + 16 * 4),
    ],
)
def test_cost(method, forwards):
    answer = method.run(net(2, 6, 6), normal(2, 2, 6, 6), 1)
    assert (answer.forwards, answer.backwards) == (2 * forwards, 0)


@pytest.mark.parametrize(("edge", "windows"), [(8, 6), (28, 19), (32, 23), (64, 55)])
def test_the_usual_window_is_the_papers_where_it_fits(edge, windows):
    answer = PredictionDifference(samples=1, infill=Zero()).run(Constantly(), torch.ones(1, 3, edge, edge), 1)
    assert answer.details["differences"].shape == (1, windows, windows)


def test_the_papers_patches():
    windows = Windows.of(Task(Model(Constantly()), torch.ones(1, 3, 227, 227), Logit(0), (0,)), 10, 1)
    assert patch_sizes(windows, PredictionDifference().margin) == (14, 14)
    assert sum(windows.counts) == 218**2


def test_memory_does_not_grow_with_draws():
    module, data = net(3, 32, 32).float(), textures(20, 3, 32, 32).float()
    for method in (PredictionDifference(stride=8), PredictionDifference(stride=8).fit(module, data)):
        peaks = []
        for samples in (2, 30):
            own = (
                Fitted(replace(method.method, samples=samples), method.state)
                if isinstance(method, Fitted)
                else (replace(method, samples=samples))
            )
            with Peak() as peak:
                own(Model(module, chunk=4), data[:2], 1)
            peaks.append(peak.peak)
        assert peaks[1] <= 1.01 * peaks[0]


def test_an_interrupt_says_how_far_it_got():
    class Interrupted(Constantly):
        asked = 0

        def forward(self, x):
            self.asked += len(x)
            if self.asked > 40:
                raise KeyboardInterrupt
            return super().forward(x)

    data = textures(10, 1, 8, 8).float()
    method = PredictionDifference(window=3)
    for own in (method, method.fit(Constantly(), data)):
        module = Interrupted().train()
        with pytest.raises(KeyboardInterrupt) as caught:
            own(Model(module, chunk=8), data[:2], 1)
        assert caught.value.__notes__ == ["PredictionDifference stopped after 48 of 722 model evaluations"]
        assert module.training
        assert not module._forward_hooks


# --- What has been fitted


def test_a_fit_is_saved_and_equal(tmp_path):
    module, data = net(2, 9, 9), textures(40, 2, 9, 9)
    fitted = PredictionDifference(window=3, samples=2).fit(module, data, seed=1)
    fitted.save(tmp_path / "f")
    again = Fitted.load(tmp_path / "f")
    assert again == fitted == pickle.loads(pickle.dumps(fitted)) == fitted.method.fit(module, data, seed=1)
    model = Model(module, chunk=5)
    assert torch.equal(again(model, data[:2]), fitted(model, data[:2]))
    assert fitted != fitted.method.fit(module, data, seed=2)
    assert fitted != fitted.method.fit(module, data[:39], seed=1)


def test_a_fit_serves_pictures_of_another_size():
    fitted = PredictionDifference(window=3, samples=2).fit(Constantly(), textures(40, 2, 10, 10))
    assert fitted(net(2, 12, 9), normal(1, 2, 12, 9), 1).shape == (1, 1, 12, 9)


@pytest.mark.parametrize(
    ("x", "options", "says"),
    [
        (torch.ones(1, 3, 6, 6), {}, r"patches of \(6, 6\) places and 2 channels.*\(3, 6, 6\) have \(6, 6\) and 3"),
        (
            torch.ones(1, 2, 9, 9),
            {},
            r"patches of \(6, 6\) places.*\(2, 9, 9\) have \(7, 7\) and 2; fit to data of the shape",
        ),
        (torch.ones(1, 2, 36), {}, r"\(2, 36\) have \(7,\) and 2"),
        (torch.ones(1, 7), {}, r"\(7,\) have \(7,\) and 1"),
        (torch.ones(1, 2, 6, 6), {"at": "0"}, "fitted to the inputs of a model"),
        ((torch.ones(1, 2, 6, 6),) * 2, {}, "fitted to the inputs of a model with a single one"),
        (torch.ones(1, 2, 6, 6, dtype=torch.long), {}, "numbers that are no tokens"),
    ],
    ids=["channels", "size", "rank", "table", "layer", "two", "tokens"],
)
def test_a_fit_to_something_else_is_refused(x, options, says):
    class Asked(nn.Module):
        asked = 0

        def forward(self, *x):
            self.asked += 1
            return torch.zeros(len(x[0]), 2)

    fitted = PredictionDifference(window=3, samples=2).fit(Constantly(), textures(40, 2, 6, 6))
    module = Asked() if "at" not in options else nn.Sequential(nn.Flatten(), nn.Linear(72, 2))
    with pytest.raises(InputError, match=says):
        fitted(module, x, 0, **options)
    assert getattr(module, "asked", 0) == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (torch.ones(4, 5, dtype=torch.long), r"one tensor of numbers.*without fit, tokens"),
        ((torch.ones(4, 5), torch.ones(4, 5)), "one tensor of numbers"),
        (torch.ones(4), "one tensor of numbers"),
        (torch.ones(1, 5), "at least two samples"),
        (torch.full((4, 5), math.nan), "NaN or infinity"),
        (torch.ones(4, 1, 2, 2), "a window of 3 at a stride of 1 does not slide over 2 places"),
    ],
    ids=["tokens", "two", "scalars", "one sample", "NaN", "small"],
)
def test_what_cannot_be_fitted(data, says):
    with pytest.raises(InputError, match=says):
        PredictionDifference(window=3).fit(Constantly(), data)


@pytest.mark.parametrize("fields", [{"samples": 0}, {"margin": -1}])
def test_fields(fields):
    with pytest.raises(InputError, match="whole samples ≥ 1 and margin ≥ 0"):
        PredictionDifference(**fields)
