"""Curves of removal beside Quantus 0.6, where the definition is the same: the benchmarks' environment has it."""

import numpy
import pytest
import torch
from torch import Tensor, nn

from whybox import ROAD, Deletion, Insertion, Model, Patches, RegionPerturbation, Zero
from whybox.models.torchvision_models import import_torchvision

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def quantus():
    try:
        import_torchvision()  # first, so that it gets along with this build of torch
    except ImportError:
        pytest.skip("torchvision: pip install 'whybox[vision]'")
    return pytest.importorskip("quantus", reason="quantus: pip install 'whybox[bench]'")


@pytest.fixture
def question() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A net, pictures whose darkest value is 0 (what Quantus calls black), classes, and a map without ties."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 5)).eval()
    x = torch.rand(6, 1, 12, 12)
    x[:, :, 0, 0] = 0
    return net, x, torch.tensor([0, 1, 2, 3, 4, 0]), torch.randn(6, 1, 12, 12)


def theirs(metric, question, **options) -> numpy.ndarray:
    net, x, y, relevance = question
    return numpy.array(
        metric(net, x.numpy(), y.numpy(), relevance.numpy(), device="cpu", batch_size=4, **options), dtype=float
    )


SETTINGS = {"abs": False, "normalise": False, "disable_warnings": True}


@pytest.mark.parametrize(("order", "their_order"), [("most", "morf"), ("least", "lerf")])
def test_region_perturbation(quantus, question, order, their_order):
    net, x, y, relevance = question
    metric = quantus.RegionPerturbation(patch_size=3, order=their_order, regions_evaluation=10, **SETTINGS)
    fallen = theirs(metric, question, softmax=True)
    ours = RegionPerturbation(size=3, steps=10, levels=10, infill=Zero(), order=order).run(Model(net), x, y, relevance)
    curve = ours.details["probability"]
    assert numpy.allclose((curve[:, :1] - curve[:, 1:]).numpy(), fallen, atol=1e-6)
    assert numpy.allclose(ours.values.numpy(), fallen.sum(1) / 11, atol=1e-6)


def test_pixel_flipping_is_deletion(quantus, question):
    """Quantus' pixel flipping replaces pixels by black, and does not count the picture itself."""
    net, x, y, relevance = question
    curve = theirs(quantus.PixelFlipping(features_in_step=4, **SETTINGS), question, softmax=True)
    ours = Deletion(steps=36).run(Model(net), x, y, relevance)
    assert numpy.allclose(ours.details["probability"][:, 1:].numpy(), curve, atol=1e-6)


def test_insertion_is_deletion_from_the_other_end(quantus, question):
    net, x, y, relevance = question
    metric = quantus.RegionPerturbation(patch_size=2, order="lerf", regions_evaluation=36, **SETTINGS)
    fallen = theirs(metric, question, softmax=True)
    ours = Insertion(steps=36, regions=Patches(2)).run(Model(net), x, y, relevance)
    curve = ours.details["probability"]
    assert numpy.allclose((curve[:, :1] - curve[:, 1:]).numpy(), fallen, atol=1e-6)


def test_road(quantus, question):
    """The same accuracies, where Quantus scores all of them: it keeps those of the first batch only."""
    net, x, y, relevance = question
    shares = [20, 40, 60, 80]
    metric = quantus.ROAD(percentages=shares, noise=1e-9, **SETTINGS)
    given = (net, x.numpy(), y.numpy(), relevance.numpy())
    accuracy = metric(*given, device="cpu", batch_size=6)
    ours = ROAD(levels=4, upto=0.8, noise=0.0, follows="right").run(Model(net), x, y, relevance)
    right = ours.details["right"][:, 1:].mean(0)
    # Their number of pixels is rounded down, so that one sample may differ by one pixel.
    assert numpy.allclose(right.numpy(), [accuracy[share] for share in shares], atol=1 / 6 + 1e-9)
    assert sum(float(right[i]) == pytest.approx(accuracy[share]) for i, share in enumerate(shares)) >= 3
