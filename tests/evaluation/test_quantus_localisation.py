"""Equality with Quantus where the definitions are the same: maps of one channel, without parts below zero."""

from types import ModuleType

import numpy
import pytest
import torch
from torch import Tensor, nn

from whybox import (
    AUC,
    Complexity,
    EffectiveComplexity,
    EnergyInBox,
    PointingGame,
    RelevanceMass,
    RelevanceRank,
    Sparseness,
)
from whybox import Metric as OurMetric
from whybox.models.torchvision_models import prepare_torchvision

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 11, 2))
LOCALISATION = {
    "PointingGame": PointingGame(tolerance=0.0),
    "RelevanceMassAccuracy": RelevanceMass(),
    "RelevanceRankAccuracy": RelevanceRank(),
    "AttributionLocalisation": EnergyInBox(),
    "AUC": AUC(),
}
COMPLEXITY = {
    "Sparseness": Sparseness(),
    "Complexity": Complexity(),
    "EffectiveComplexity": EffectiveComplexity(threshold=0.3),
}


@pytest.fixture(scope="module")
def quantus() -> ModuleType:
    """Quantus, which imports torchvision."""
    prepare_torchvision()
    return pytest.importorskip("quantus", reason="quantus: pip install 'whybox[bench]'")


def given() -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, positive maps and boxes as masks."""
    generator = torch.Generator().manual_seed(0)
    x, relevance = (torch.rand(6, channels, 12, 11, generator=generator) for channels in (3, 1))
    truth = torch.zeros(6, 1, 12, 11, dtype=torch.bool)
    for i in range(6):
        truth[i, :, i : i + 3 + i // 2, 2 : 4 + i] = True
    return x, relevance, truth


def theirs(metric: object, relevance: Tensor, x: Tensor, truth: Tensor | None = None) -> numpy.ndarray:
    options = {} if truth is None else {"s_batch": truth.numpy()}
    y = numpy.zeros(len(x), dtype=int)
    found = metric(model=MODEL, x_batch=x.numpy(), y_batch=y, a_batch=relevance.numpy().copy(), **options)
    return numpy.asarray(found, dtype=float)


@pytest.mark.parametrize("name", LOCALISATION)
def test_localisation(quantus: ModuleType, name: str) -> None:
    x, relevance, truth = given()
    ours: OurMetric = LOCALISATION[name]
    expected = theirs(getattr(quantus, name)(disable_warnings=True), relevance, x, truth)
    assert ours(MODEL, x, 0, relevance, truth=truth).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", COMPLEXITY)
def test_complexity(quantus: ModuleType, name: str) -> None:
    x, relevance, _ = given()
    options = {"eps": 0.3} if name == "EffectiveComplexity" else {}
    signed = relevance - 0.4
    scaled = signed / signed.abs().amax((1, 2, 3), keepdim=True)
    expected = theirs(getattr(quantus, name)(disable_warnings=True, normalise=False, **options), scaled, x)
    assert COMPLEXITY[name](MODEL, x, 0, signed).numpy() == pytest.approx(expected, abs=1e-4)


def test_the_rest_of_the_batch_matters_there_and_not_here(quantus: ModuleType) -> None:
    """The fault as it is in Quantus 0.6: maps are normalised by the largest value of all of them."""
    x, relevance, _ = given()
    louder = relevance.clone()
    louder[0] *= 10
    metric = quantus.EffectiveComplexity(eps=0.3, disable_warnings=True)
    assert not numpy.array_equal(theirs(metric, relevance, x)[1:], theirs(metric, louder, x)[1:])
    ours = COMPLEXITY["EffectiveComplexity"]
    assert torch.equal(ours(MODEL, x, 0, relevance), ours(MODEL, x, 0, louder))


def test_empty_masks_are_hits_there_and_none_here(quantus: ModuleType) -> None:
    """The fault as it is in Quantus 0.6: NaN, written into an array of booleans, is True."""
    x, relevance, truth = given()
    truth[1] = False
    there = theirs(quantus.PointingGame(disable_warnings=True), relevance, x, truth)
    here = PointingGame(tolerance=0.0)(MODEL, x, 0, relevance, truth=truth)
    assert there[1] == 1
    assert torch.isnan(here[1])
