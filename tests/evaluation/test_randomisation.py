"""MPRT and its kin: literal references, known outcomes on a trained model, and the faults of other tools."""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy
import pytest
import scipy.stats
import torch
from torch import nn

import whybox
from whybox import (
    MPRT,
    Contrast,
    EdgeDetector,
    EfficientMPRT,
    External,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    Method,
    Model,
    RandomLogit,
    SmoothGrad,
    SmoothMPRT,
    Taxonomy,
)
from whybox.core.block import mix
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.likeness import Foreground
from whybox.evaluation.metric import case as as_case
from whybox.evaluation.randomisation import parameter_layers, randomised
from whybox.evaluation.similarity import correlation, direction

DEAD = "with random weights, a map with no order to compare, however they were drawn"


def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.Tanh(), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 4)
    module = nn.Sequential(*layers).double().eval()
    nn.init.uniform_(module[2].weight)
    return module


def pictures(count=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 2, 6, 6, generator=generator, dtype=torch.float64)
    x[:, :, :2] = 0.5  # a background
    return x


def gradient(module, x, target):
    """The gradient of each score, sample by sample, the channels summed: (n, 36)."""
    rows = []
    for one, index in zip(x, target, strict=True):
        leaf = one[None].clone().requires_grad_()
        module(leaf)[0, index].backward()
        rows.append(leaf.grad[0].sum(0).flatten())
    return torch.stack(rows).numpy()


def spearman(a, b):
    return scipy.stats.spearmanr(a, b).statistic


# Copies with random layers.


def test_copies_go_on_with_the_chunk_sizes():
    """A copy is asked once per sample, too few times for it to find a chunk size of its own."""
    model, x = whybox.Model(net()), torch.rand(8, 1, 6, 6)
    copies = [randomised(model, seed) for seed in range(2)]
    sizes = [one.chunk_size((x,), gradient=True) for one in (*copies, model)]
    assert sizes[0] is sizes[1] is sizes[2]


def test_only_the_layers_asked_for_are_randomised():
    module = net()
    assert parameter_layers(module) == ["0", "2", "3", "5"]
    for weights in ("shuffled", "initial"):
        whole = randomised(Model(module), 4, weights=weights).module
        part = randomised(Model(module), 4, ["3", "5"], weights).module
        for name, value in part.state_dict().items():
            gone = name[0] in "35"
            assert torch.equal(value, (whole if gone else module).state_dict()[name])
            assert torch.equal(value, module.state_dict()[name]) != gone


def test_initial_weights_are_drawn_as_the_module_does():
    module = nn.Sequential(nn.Linear(400, 100), nn.BatchNorm1d(100))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.full_like(parameter, 7.0))
    before = torch.get_rng_state()
    fresh = randomised(Model(module), weights="initial").module
    assert torch.equal(torch.get_rng_state(), before)
    assert fresh[0].weight.abs().max() <= 1 / 20
    assert float(fresh[0].weight.detach().std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    assert (fresh[1].weight == 1).all()
    with pytest.raises(InputError, match="no layer 'nothing'"):
        randomised(Model(module), layers=["nothing"])


def test_every_layer_has_a_seed_of_its_own():
    """Fault: every layer was randomised with the same seed, so that layers of one shape became the same."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    for layer in module[1:]:
        layer.load_state_dict(module[0].state_dict())
    for weights in ("shuffled", "initial"):
        copied = randomised(Model(module), 0, weights=weights).module
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert not torch.equal(copied[i].weight, copied[j].weight)
            assert abs(spearman(copied[i].weight.detach().flatten(), copied[j].weight.detach().flatten())) < 0.4


class Attends(nn.Module):
    """An attention with a token of its own: weights that are no module's `weight`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        nn.init.normal_(self.attention.in_proj_bias)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1)
        return self.head(self.attention(x, x, x)[0][:, 0])


@pytest.mark.parametrize("weights", ["shuffled", "initial"])
def test_attention_weights_are_randomised(weights):
    """Fault: only what had a public `reset_parameters` was randomised: not in_proj_weight, nor bare parameters."""
    module = Attends().eval()
    layers = parameter_layers(module)
    assert layers == ["", "attention", "attention.out_proj", "head"]
    copied = randomised(Model(module), weights=weights).module
    assert not torch.equal(copied.token, module.token)
    assert not torch.equal(copied.attention.in_proj_weight, module.attention.in_proj_weight)
    assert not torch.equal(copied.attention.in_proj_bias, module.attention.in_proj_bias)
    x = torch.randn(2, 5, 8)
    found = MPRT(weights=weights, order="independent").run(module, x, 0, Gradient()(module, x, 0), method="gradient")
    assert found.details["layers"] == ("(the model)", "attention", "attention.out_proj", "head")
    assert (found.details["signed"][:, 1] < 0.99).all()  # alone, the attention's own weights change the map


# The metrics against loops.


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
@pytest.mark.parametrize("weights", ["shuffled", "initial"])
def test_mprt_against_loops(order, weights):
    module, x, target = net(), pictures(), torch.tensor([1, 0, 3])
    found = MPRT(order=order, weights=weights).run(
        module, x, target, Gradient()(module, x, target), method="gradient", seed=3
    )
    seed = mix(mix(3, 0), 0)
    original, expected = gradient(module, x, target), {"signed": [], "absolute": [], "foreground": []}
    for names in {
        "top_down": (["5"], ["5", "3"], ["5", "3", "2"], ["5", "3", "2", "0"]),
        "bottom_up": (["0"], ["0", "2"], ["0", "2", "3"], ["0", "2", "3", "5"]),
        "independent": (["0"], ["2"], ["3"], ["5"]),
    }[order]:
        again = gradient(randomised(Model(module), seed, names, weights).module, x, target)
        expected["signed"].append([spearman(a, b) for a, b in zip(original, again, strict=True)])
        pairs = list(zip(abs(original), abs(again), strict=True))
        expected["absolute"].append([spearman(a, b) for a, b in pairs])
        expected["foreground"].append([spearman(a[12:], b[12:]) for a, b in pairs])
    for name, columns in expected.items():
        assert found.details[name].T.numpy() == pytest.approx(numpy.array(columns), abs=1e-9)
    assert found.values.numpy() == pytest.approx(numpy.mean(expected["signed"], 0), abs=1e-9)
    assert (found.forwards, found.backwards) == (4 * 3, 4 * 3)
    for name in expected:
        chosen = MPRT(order=order, weights=weights, compares=name)
        values = chosen(module, x, target, Gradient()(module, x, target), method="gradient", seed=3)
        assert torch.equal(values, found.details[name].mean(1))


def test_the_average_leaves_the_original_out():
    """Fault: the original model's map, which is like itself by 1, was averaged with the others."""
    module, x = net(), pictures()
    found = MPRT().run(module, x, 1, Gradient()(module, x, 1), method="gradient")
    steps = found.details["signed"]
    assert steps.shape == (3, 4)
    assert (steps < 1).all()
    assert torch.allclose(found.values, steps.mean(1), atol=1e-12)


def test_few_steps_take_several_layers_at_once():
    module, x = net(), pictures()
    relevance = Gradient()(module, x, 1)
    all_steps = MPRT().run(module, x, 1, relevance, method="gradient")
    two = MPRT(steps=2).run(module, x, 1, relevance, method="gradient")
    assert two.details["layers"] == ("5, 3", "2, 0")
    assert torch.equal(two.details["signed"], all_steps.details["signed"][:, [1, 3]])
    assert two.forwards == 2 * 3
    apart = MPRT(steps=2, order="independent").run(module, x, 1, relevance, method="gradient")
    assert torch.equal(
        apart.details["signed"][:, 1],
        MPRT(steps=2, order="top_down").run(module, x, 1, relevance, method="gradient").details["signed"][:, 0],
    )


class Two(nn.Module):
    """A picture and a table."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.seen, self.told = nn.Linear(16, 3).double(), nn.Linear(5, 3).double()

    def forward(self, picture, table):
        return torch.tanh(self.seen(picture.flatten(1))) * self.told(table)


def test_the_places_of_all_inputs_are_compared_together():
    module = Two()
    inputs = torch.rand(2, 1, 4, 4, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64)
    first = Gradient()(module, inputs, 1)
    found = MPRT(steps=1).run(module, inputs, 1, first, method="gradient")
    second = Gradient()(randomised(Model(module), mix(mix(0, 0), 0)), inputs, 1)
    rows = [torch.cat([part.flatten(1) for part in maps], 1) for maps in (first, second)]
    assert found.values.tolist() == pytest.approx([spearman(a, b) for a, b in zip(*rows, strict=True)], abs=1e-9)


def test_metrics_share_the_copies():
    """The model without any of its weights is the same in every cascade, and is asked once."""
    module, x = net(), pictures()
    with started(Model(module), x, 1) as task:
        one = as_case(Samples(task), Gradient()(module, x, 1), Gradient())
        costs = [m.score(one).forwards for m in (MPRT(), MPRT(order="bottom_up"), EfficientMPRT(), MPRT(steps=1))]
    assert costs == [4 * 3, 3 * 3, 0, 0]


def test_a_layer_that_cannot_change_is_left_out():
    """A norm as it was before training has equal entries everywhere; shuffled it is the same model."""
    module, x = net(), pictures()
    nn.init.ones_(module[2].weight)
    found = MPRT(order="independent").run(module, x, 1, Gradient()(module, x, 1), method="gradient")
    assert found.details["layers"] == ("0", "3", "5")
    bare = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    with pytest.raises(InputError, match="no parameters"):
        MPRT()(bare, x, 1, Gradient()(bare, x, 1), method="gradient")


def test_smooth_mprt_is_mprt_of_the_smoothed_method():
    module, x = net(), pictures()
    smooth = SmoothGrad(Gradient(), 5, 0.2)
    expected = MPRT().run(module, x, 1, smooth(module, x, 1, seed=2), method=smooth, seed=2)
    found = SmoothMPRT(samples=5, noise=0.2).run(module, x, 1, Gradient()(module, x, 1), method="gradient", seed=2)
    assert torch.allclose(found.values, expected.values, atol=1e-9)
    assert found.forwards == 5 * 5 * 3


@pytest.mark.parametrize("bins", [2, 7, 100])
def test_efficient_mprt_against_loops(bins):
    module, x, target = net(), pictures(), torch.tensor([1, 0, 3])
    relevance = Gradient()(module, x, target)
    found = EfficientMPRT(bins).run(module, x, target, relevance, method="gradient", seed=3)
    maps = (gradient(m, x, target) for m in (module, randomised(Model(module), mix(mix(3, 0), 0)).module))
    before, after = (numpy.array([scipy.stats.entropy(numpy.histogram(row, bins)[0]) for row in rows]) for rows in maps)
    assert found.details["before"].numpy() == pytest.approx(before, abs=1e-12)
    assert found.details["after"].numpy() == pytest.approx(after, abs=1e-12)
    assert found.values.numpy() == pytest.approx((after - before) / before, abs=1e-12)
    assert (found.forwards, found.backwards) == (3, 3)


def test_random_logit_against_loops():
    module, x, target = net(), pictures(60), torch.arange(60) % 4
    found = RandomLogit().run(module, x, target, Gradient()(module, x, target), method="gradient")
    other = found.details["other"]
    maps = zip(gradient(module, x, target), gradient(module, x, other), strict=True)
    assert found.values.tolist() == pytest.approx([spearman(a, b) for a, b in maps], abs=1e-9)
    assert (other != target).all()
    counts = torch.bincount((other - target) % 4, minlength=4)
    assert counts[0] == 0
    assert (counts[1:] - 20).abs().max() < 4 * (60 * 2 / 9) ** 0.5
    assert found.forwards == 60 + 1


def test_random_logit_needs_another_class():
    module, x = net(), pictures()
    relevance = Gradient()(module, x, 1)
    with pytest.raises(InputError, match="one class for each"):
        RandomLogit()(module, x, Contrast(0, 1), relevance, method="gradient")
    single = nn.Sequential(nn.Flatten(), nn.Linear(72, 1)).double()
    with pytest.raises(InputError, match="single output"):
        RandomLogit()(single, x, 0, relevance, method="gradient")


# Copies that say nothing.


@dataclass(frozen=True)
class DiesAlone(Method):
    """Input times weight; for the first `count` models it sees, blank where the first pixel is negative."""

    count: int = 1

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="closed-form")
    seen: ClassVar[list[float]] = []

    def attribute(self, task):
        weight = task.model.module[-1].weight[1].detach()
        key = float(weight[0])
        if key not in self.seen:
            self.seen.append(key)
        map = task.inputs * weight[: task.inputs[0].numel()].view(1, *task.inputs.shape[1:])
        first = self.seen.index(key) < self.count
        return torch.where((task.inputs[:, :1, :1, :1] < 0) & first, 0.0, map)


def test_a_dead_copy_is_no_pass():
    """A blank map is like no other; that is no proof that the weights matter, so another copy is drawn."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    x = pictures()[:, :1]
    x[0, 0, 0, 0] = -1.0
    relevance = x * module[1].weight[1].detach().view(1, 1, 6, 6)
    DiesAlone.seen.clear()
    found = MPRT().run(module, x, 1, relevance, method=DiesAlone(2))
    again = [
        randomised(Model(module), mix(mix(0, 0), attempt)).module[1].weight[1].detach().view(1, 6, 6)
        for attempt in range(3)
    ]
    pairs = ((0, 2), (1, 0), (2, 0))  # the first sample's copies die twice, the others' live
    expected = [spearman(relevance[i].flatten(), (x[i] * again[k]).flatten()) for i, k in pairs]
    assert found.values.tolist() == pytest.approx(expected, abs=1e-9)
    assert not found.skipped[DEAD].any()
    DiesAlone.seen.clear()
    for metric in (MPRT(), EfficientMPRT()):
        found = metric.run(module, x, 1, relevance, method=DiesAlone(100))
        assert found.skipped[DEAD].tolist() == [True, False, False]
        assert found.values.isnan().tolist() == [True, False, False]


def test_a_blank_map_of_another_class_is_named():
    module, x = net(), pictures()
    blank = External(lambda module, x, y: torch.where((y == 1).view(-1, 1, 1, 1), x, 0.0), "only for class 1")
    found = RandomLogit().run(module, x, 1, x, method=blank)
    assert found.values.isnan().all()
    assert found.skipped["for the other class, a map with no order to compare"].all()


# What the maps are compared by.


def test_the_foreground_is_what_is_not_the_most_frequent_value():
    x = torch.rand(2, 3, 4, 4)
    x[0, :, :2] = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    x[0, 0, 3] = 0.1  # one channel alone is no background
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with started(Model(module), x, 0) as task:
        found = Samples(task).once(Foreground())
    assert found.view(2, 4, 4)[0].all(1).tolist() == [False, False, True, True]
    assert found[1].all()


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_correlation_against_scipy(kind):
    torch.manual_seed(0)
    a, b = torch.randn(6, 20).double(), torch.randn(6, 20).double().round()  # with ties
    where = torch.rand(6, 20) < 0.6
    a[3], b[4], a[5, where[5]] = 0.1 + 0.2, 3.0, -1.0
    statistic = {"spearman": scipy.stats.spearmanr, "pearson": scipy.stats.pearsonr}[kind]
    for mask in (None, where):
        chosen = torch.ones_like(where) if mask is None else mask
        found = (direction(a, kind, mask) * direction(b, kind, mask)).sum(1)
        if mask is None:
            assert torch.allclose(found, correlation(a, b, kind), equal_nan=True)
        for i in (0, 1, 2, *((5,) if mask is None else ())):
            assert float(found[i]) == pytest.approx(statistic(a[i, chosen[i]], b[i, chosen[i]]).statistic, abs=1e-12)
        assert found[[3, 4]].isnan().all()
    assert math.isnan(found[5])


# Known outcomes.


@pytest.fixture(scope="module")
def digits():
    model = whybox.models.load("digits")
    x, y = whybox.datasets.load("digits")
    return model, x[:16], y[:16]


@pytest.mark.parametrize(
    ("order", "weights"),
    [("top_down", "shuffled"), ("top_down", "initial"), ("bottom_up", "shuffled"), ("independent", "shuffled")],
)
def test_the_order_of_adebayo(digits, order, weights):
    """Gradient and GradCAM lose their maps with the weights, GuidedBackprop keeps them: it restores the picture."""
    model, x, y = digits
    methods = {"gradient": Gradient(), "grad_cam": GradCAM(), "guided": GuidedBackprop(), "edges": EdgeDetector()}
    metric = MPRT(order=order, weights=weights)
    found = {k: metric.run(model, x, y, m(model, x, y), method=m).details for k, m in methods.items()}
    for reading in ("signed", "foreground"):
        means = {name: details[reading].nanmean() for name, details in found.items()}
        assert means["guided"] > means["gradient"] + 0.2
        assert means["guided"] > means["grad_cam"] + 0.2
        assert means["edges"] > means["guided"]
        assert means["edges"] == pytest.approx(1.0)


def test_size_alone_hides_the_fall_of_what_is_multiplied_by_the_input(digits):
    model, x, y = digits
    found = MPRT().run(model, x, y, InputXGradient()(model, x, y), method="input_x_gradient").details
    signed, absolute, foreground = (float(found[name].mean()) for name in ("signed", "absolute", "foreground"))
    assert absolute > foreground + 0.3
    assert absolute > signed + 0.3


def test_guided_backprop_explains_no_class(digits):
    model, x, y = digits
    guided, plain = (
        RandomLogit()(model, x, y, method(model, x, y), method=method).mean()
        for method in (GuidedBackprop(), Gradient())
    )
    assert guided > plain + 0.5


def test_smoothing_does_not_turn_the_order(digits):
    model, x, y = digits
    guided, plain = (
        SmoothMPRT(samples=4)(model, x, y, method(model, x, y), method=method).mean()
        for method in (GuidedBackprop(), Gradient())
    )
    assert guided > plain + 0.2


def test_a_map_of_few_values_becomes_more_complex():
    """Weights at nine places, then everywhere: the entropy of the histogram rises from known to known."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(400, 2, bias=False)).double()
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].weight[:, :9] = 1.0
    x = torch.ones(2, 1, 20, 20, dtype=torch.float64)
    found = EfficientMPRT(weights="initial").run(module, x, 1, Gradient()(module, x, 1), method="gradient")
    share = 9 / 400
    before = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found.details["before"].tolist() == pytest.approx([before] * 2, abs=1e-12)
    assert (found.values > 10).all()  # 400 uniform values in 100 bins: close to log 100


def test_the_caller_keeps_the_model(digits):
    model, x, y = digits
    before = copy.deepcopy(model.module.state_dict())
    MPRT(weights="initial")(model, x[:2], y[:2], Gradient()(model, x[:2], y[:2]), method="gradient")
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


@pytest.mark.parametrize(
    "text",
    [
        "mprt(steps=0)",
        "mprt(order='sideways')",
        "mprt(compares='size')",
        "smooth_mprt(weights='zero')",
        "random_logit(similarity='kendall')",
        "efficient_mprt(bins=1)",
    ],
)
def test_what_cannot_be_is_refused(text):
    with pytest.raises(InputError):
        whybox.metric(text)


def test_a_reset_touches_the_layers_own_parameters_only():
    """A batch norm's forgets its statistics, an attention's changes the layer behind it."""
    norm = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3))
    norm(3 * torch.randn(9, 2, 4, 4) + 2)
    fresh = randomised(Model(norm), weights="initial").module
    assert all(torch.equal(a, b) for a, b in zip(fresh[1].buffers(), norm[1].buffers(), strict=True))
    attention = nn.MultiheadAttention(8, 2)
    nn.init.normal_(attention.out_proj.bias)
    alone = randomised(Model(attention), layers=[""], weights="initial").module
    assert torch.equal(alone.out_proj.bias, attention.out_proj.bias)
    assert not torch.equal(alone.in_proj_weight, attention.in_proj_weight)


@pytest.mark.parametrize("name", ["mprt", "efficient_mprt", "random_logit"])
def test_a_map_that_cancels_over_the_channels_is_blamed_itself(name):
    module = nn.Sequential(nn.Flatten(), nn.Linear(18, 3))
    x = torch.randn(2, 2, 3, 3)
    relevance = torch.cat((x[:, :1], -x[:, :1]), 1)
    found = whybox.metric(name).run(module, x, 1, relevance, method="gradient")
    assert found.values.isnan().all()
    reasons = [reason for reason, rows in found.skipped.items() if rows.any()]
    assert reasons == ["summed over the channels, a map with no order to compare"]
