"""LIME: against numpy's weighted ridge, lime itself, coefficients known beforehand, and truths that were planted."""

import math
from dataclasses import dataclass

import numpy
import pytest
import torch
from planted import INFILLS, PLACES, Constantly, Reader, inputs, normal, outside, share_inside, token_counter, wrapped
from torch import nn

from whybox import LIME, Along, Constant, Model, Patches, Pixels, Superpixels, Zero
from whybox.attribution.perturbation.engine import Engine
from whybox.attribution.perturbation.partition import Partition
from whybox.core.errors import InputError
from whybox.core.regions import Regions
from whybox.core.target import Logit
from whybox.core.task import Task, noise_keys

REGIONS = {"picture": Patches(4), "table": None, "series": Patches(3), "tokens": Along(1), "video": Along(2)}


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()


def neighbourhood(method, module, x, target, seed=0):
    """The coalitions z and scores of each sample, literally: (regions, samples) lists; every variant by itself."""
    task = Task(Model(module), x, Logit(target), noise_keys(seed, len(x)))
    partition = Partition.of(task, method.regions)
    engine = Engine(task, Zero(), partition)
    labels = method.regions.labels(x).expand(len(x), *([-1] * (x.ndim - 1)))
    pairs = []
    for sample in range(len(x)):
        count = int(labels[sample].max()) + 1
        z = engine.uniform(torch.full((method.samples,), sample), torch.arange(method.samples), partition.size) < 0.5
        z = z[:, :count]
        z[0] = True
        variants = torch.stack([torch.where(row[labels[sample]], x[sample], 0.0) for row in z])
        pairs.append((z.double().numpy(), module(variants)[:, target].detach().numpy()))
    return pairs


def kernel(z, distance, width):
    """The exponential kernel by its definition, from vectors."""
    ones = numpy.ones(z.shape[1])
    if distance == "cosine":
        norms = numpy.linalg.norm(z, axis=1) * numpy.linalg.norm(ones)
        d = 1 - numpy.divide(z @ ones, norms, out=numpy.zeros(len(z)), where=norms > 0)
    else:
        d = numpy.linalg.norm(z - ones, axis=1)
    return numpy.sqrt(numpy.exp(-(d**2) / width**2))


@pytest.mark.parametrize("regions", [Superpixels(7), Patches(4)], ids=repr)
@pytest.mark.parametrize(
    ("distance", "width"), [("cosine", None), ("cosine", 0.6), ("euclidean", None), ("euclidean", 2.0)]
)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_against_a_ridge_in_numpy(regions, distance, width, penalty):
    """Weights, intercept and R², the samples with different numbers of superpixels."""
    module, x = net(), normal(3, 3, 8, 8)
    method = LIME(60, regions, distance=distance, kernel_width=width, penalty=penalty)
    answer = method.run(Model(module, chunk=7), x, 2)
    for sample, (z, y) in enumerate(neighbourhood(method, module, x, 2)):
        default = 0.25 if distance == "cosine" else 0.75 * math.sqrt(z.shape[1])
        w = kernel(z, distance, width or default)
        design = numpy.column_stack([z, numpy.ones(len(z))])
        shrink = penalty * numpy.diag([1.0] * z.shape[1] + [0.0])
        solution = numpy.linalg.solve(design.T @ (w[:, None] * design) + shrink, design.T @ (w * y))
        weights = answer.details["weights"][sample]
        numpy.testing.assert_allclose(weights[: z.shape[1]], solution[:-1], rtol=1e-8, atol=1e-10)
        assert not weights[z.shape[1] :].any()
        numpy.testing.assert_allclose(answer.details["intercept"][sample], solution[-1], rtol=1e-8, atol=1e-10)
        left = (w * (y - design @ solution) ** 2).sum() / (w * (y - numpy.average(y, weights=w)) ** 2).sum()
        numpy.testing.assert_allclose(answer.details["r2"][sample], 1 - left, rtol=1e-8)
        numpy.testing.assert_allclose(answer.checks[0].values[sample], left, rtol=1e-6)
        labels = regions.labels(x)[min(sample, len(regions.labels(x)) - 1)]
        torch.testing.assert_close(answer.relevance[sample], weights[labels])


@pytest.mark.parametrize("chosen", [None, 4])
def test_against_lime(chosen):
    """The same neighbourhood given to lime's own kernel, selection and regression."""
    lime_base = pytest.importorskip("lime.lime_base", reason="lime: pip install 'whybox[bench]'")
    lime_image = pytest.importorskip("lime.lime_image", reason="lime: pip install 'whybox[bench]'")
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    theirs = lime_image.LimeImageExplainer().base
    assert isinstance(theirs, lime_base.LimeBase)
    module, x = net(), normal(2, 3, 8, 8)
    method = LIME(80, Superpixels(9), features=chosen)
    answer = method.run(module, x, 0)
    for sample, (z, y) in enumerate(neighbourhood(method, module, x, 0)):
        distances = sklearn_metrics.pairwise_distances(z, z[:1], metric="cosine").ravel()
        intercept, weights, r2, predicted = theirs.explain_instance_with_data(
            z, y[:, None], distances, 0, chosen or 1000, feature_selection="highest_weights" if chosen else "none"
        )
        expected = torch.zeros_like(answer.details["weights"][sample])
        for region, weight in weights:
            expected[region] = weight
        torch.testing.assert_close(answer.details["weights"][sample], expected, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(float(answer.details["intercept"][sample]), float(intercept), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(float(answer.details["r2"][sample]), float(r2), rtol=1e-7, atol=1e-9)
        whole = answer.details["intercept"][sample] + answer.details["weights"][sample].sum()
        torch.testing.assert_close(float(whole), float(predicted[0]), rtol=1e-7, atol=1e-9)


def test_a_model_linear_in_the_regions_is_recovered():
    """Without a penalty exactly, whatever the kernel: the weights are w ⊙ (x − x′) summed in each region, R² is 1."""
    x = normal(3, 3, 8, 8)
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
    products = (module[1].weight[1].detach().view(3, 8, 8) * (x - 0.5)).sum(1)
    for regions in (Patches(3), Superpixels(8)):
        for options in ({}, {"distance": "euclidean"}, {"kernel_width": 0.1}):
            answer = LIME(100, regions, Constant(0.5), penalty=0.0, **options).run(Model(module, chunk=9), x, 1)
            labels = regions.labels(x).expand(3, 1, 8, 8)
            for sample in range(3):
                for region in range(int(labels[sample].max()) + 1):
                    inside = labels[sample, 0] == region
                    expected = products[sample][inside].sum().expand(int(inside.sum()))
                    torch.testing.assert_close(answer.relevance[sample, 0][inside], expected, rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(answer.details["r2"], torch.ones(3, dtype=torch.float64))
            assert bool(answer.checks[0].passed.all())


def test_r2_says_where_the_model_is_not_linear():
    """The parity of four columns has no linear part."""

    class Parity(nn.Module):
        def forward(self, x):
            return x.prod(1, keepdim=True)

    answer = LIME(400, infill=Constant(-1.0)).run(Parity(), torch.ones(2, 4), 0)
    assert float(answer.details["r2"].max()) < 0.2
    assert not bool(answer.checks[0].passed.any())


def test_only_so_many_features():
    x = normal(2, 12)
    module = nn.Linear(12, 1).double()
    model = Model(module, chunk=64)
    answer = LIME(200, features=3)(model, x, 0)
    strongest = (module.weight[0] * x).abs().topk(3).indices
    assert (answer != 0).sum(1).tolist() == [3, 3]
    assert torch.equal((answer != 0).nonzero()[:, 1].view(2, 3), strongest.sort(1).values)
    assert torch.equal(LIME(200, features=12)(model, x, 0), LIME(200)(model, x, 0))
    assert torch.equal(LIME(200, features=99)(model, x, 0), LIME(200)(model, x, 0))


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("infill", INFILLS, ids=repr)
def test_what_was_planted_is_found(name, infill):
    """A model that reads one region is seen to read there; one that reads elsewhere is not."""
    shape, place, elsewhere = PLACES[name]
    x, method = inputs(shape), LIME(400, REGIONS[name], infill)
    relevance = method(wrapped(Reader(place)), x, 0)
    assert float(share_inside(relevance, x, place).min()) > 0.5
    if infill == Zero():  # nothing but the place matters, so the fit is exact up to the penalty
        assert float(outside(relevance, x, place).abs().max()) < 0.02 * float(relevance.abs().max())
    assert float(share_inside(method(wrapped(Reader(elsewhere)), x, 0), x, place).max()) < 0.2


def test_planted_in_token_numbers():
    module, tokens, expected = token_counter()
    answer = LIME(200, infill=Constant(0), penalty=0.0)(module, tokens, 0)
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)


def test_a_constant_model():
    answer = LIME(50, Superpixels(5)).run(Constantly(), torch.randn(3, 3, 16, 16), 1)
    assert not answer.relevance.any()
    assert torch.equal(answer.details["r2"], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(answer.details["intercept"], torch.full((3,), 0.3, dtype=torch.float64))


def test_one_region():
    @dataclass(frozen=True)
    class Whole(Regions):
        def labels(self, x):
            return torch.zeros(1, 1, dtype=torch.long)

    x = normal(2, 4)
    module = nn.Linear(4, 1).double()
    answer = LIME(20, Whole(), penalty=0.0)(module, x, 0)
    torch.testing.assert_close(answer, (module.weight * x).sum(1, keepdim=True).detach())


def test_more_regions_than_samples():
    module = net()
    with pytest.raises(InputError, match="64 regions need at least 65 samples, not 64: give samples=65"):
        LIME(64, Pixels())(module, normal(1, 3, 8, 8), 0)
    LIME(65, Pixels())(module, normal(1, 3, 8, 8), 0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"samples": 1}, "whole samples ≥ 2"),
        ({"kernel_width": 0.0}, "kernel_width > 0"),
        ({"penalty": -1.0}, "penalty ≥ 0"),
        ({"features": 0}, "features is a whole number from 1"),
    ],
)
def test_fields_that_make_no_sense(fields, says):
    with pytest.raises(InputError, match=says):
        LIME(**fields)
