"""Exact Shapley values equal Captum's, which goes through all orders; a linear model's those of its KernelShap."""

import importlib.util

import pytest
import torch
from planted import normal
from torch import nn

from whybox import Constant, KernelSHAP, Model, Patches, ShapleySampling

if importlib.util.find_spec("captum") is None:
    pytest.skip("Captum: pip install 'whybox[bench]'", allow_module_level=True)

from captum import attr

TARGETS = torch.tensor([2, 0, 1])


def convolutional(*between):
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 5, 3), *between, nn.Flatten(), nn.Linear(5 * 8 * 6, 4)).double()


@pytest.mark.parametrize("regions", [Patches(5), Patches(4)], ids=repr)
def test_all_orders(regions):
    module, x = convolutional(nn.Tanh()), normal(3, 3, 10, 8)
    labels = regions.labels(x).expand(3, 1, 10, 8)
    ours = KernelSHAP(regions, Constant(0.3))(Model(module, chunk=4), x, TARGETS).expand_as(x)
    for i in range(3):
        one = slice(i, i + 1)
        theirs = attr.ShapleyValues(module).attribute(
            x[one], 0.3, TARGETS[one], feature_mask=labels[one], perturbations_per_eval=8
        )
        assert theirs.any()
        # Captum adds up in float32.
        torch.testing.assert_close(ours[one], theirs.detach(), rtol=1e-6, atol=1e-6, check_dtype=False)


def test_a_linear_model():
    """Whose weighted least squares have no error either."""
    module, x, labels = convolutional(), normal(1, 3, 10, 8), Patches(3).labels(normal(1, 3, 10, 8))
    theirs = attr.KernelShap(module).attribute(
        x, 0.3, 1, feature_mask=labels.expand(1, 3, 10, 8), n_samples=400, perturbations_per_eval=50
    )
    assert theirs.any()
    for method in (KernelSHAP(Patches(3), Constant(0.3), 60), ShapleySampling(Patches(3), Constant(0.3), 60)):
        torch.testing.assert_close(
            method(module, x, 1).expand_as(x), theirs.detach(), rtol=1e-4, atol=1e-5, check_dtype=False
        )
