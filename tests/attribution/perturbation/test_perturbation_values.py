"""Occlusion equals Captum's, with windows and with regions; in float32 where Captum sums windows up in that."""

import importlib.util

import pytest
import torch
from planted import normal
from torch import nn

from whybox import Constant, Model, Occlusion, Patches, Superpixels

if importlib.util.find_spec("captum") is None:
    pytest.skip("Captum: pip install 'whybox[bench]'", allow_module_level=True)

from captum import attr

TARGETS = torch.tensor([2, 0, 1])


def convolutional(axes, places):
    torch.manual_seed(axes)
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[axes]
    return nn.Sequential(kind(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * places, 4), nn.Tanh()).double()


def assert_equal(ours, theirs):
    assert theirs.any(), "nothing to compare: all zero"
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}[theirs.dtype]
    torch.testing.assert_close(
        ours.expand_as(theirs), theirs.detach(), rtol=tolerance, atol=tolerance, check_dtype=False
    )


@pytest.mark.parametrize("value", [0, 0.7])
@pytest.mark.parametrize(("window", "stride"), [((3, 3), (3, 3)), ((4, 2), (3, 1)), ((5, 4), (2, 3))])
def test_windows_over_pictures(window, stride, value):
    """Strides that do not end at the border included: the last window is cut."""
    module, x = convolutional(2, 8 * 6), normal(3, 3, 10, 8)
    theirs = attr.Occlusion(module).attribute(
        x, (3, *window), strides=(3, *stride), baselines=value, target=TARGETS, perturbations_per_eval=3
    )
    assert_equal(Occlusion(window, stride, Constant(value))(Model(module, chunk=4), x, TARGETS), theirs)


def test_windows_over_a_series():
    module, x = convolutional(1, 17), normal(3, 3, 19)
    theirs = attr.Occlusion(module).attribute(x, (3, 4), strides=(3, 3), target=TARGETS)
    assert_equal(Occlusion(4, 3)(module, x, TARGETS), theirs)


@pytest.mark.parametrize("regions", [Patches(3), Superpixels(9)], ids=repr)
def test_regions(regions):
    module, x = convolutional(2, 8 * 6), normal(3, 3, 10, 8)
    labels = regions.labels(x)
    theirs = torch.cat(
        [
            attr.FeatureAblation(module).attribute(
                x[i : i + 1], 0.3, TARGETS[i : i + 1], feature_mask=labels[i : i + 1] if len(labels) > 1 else labels
            )
            for i in range(3)
        ]
    )
    assert_equal(Occlusion(regions=regions, infill=Constant(0.3))(module, x, TARGETS), theirs)
