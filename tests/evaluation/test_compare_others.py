"""Methods of Captum and zennit in the same table as whybox's own: the same explanation has the same scores."""

import pytest
import torch

import whybox
from whybox.models.torchvision_models import prepare_torchvision

captum = pytest.importorskip("captum.attr", reason="captum: pip install 'whybox[bench]'")
prepare_torchvision()  # zennit imports it
attribution = pytest.importorskip("zennit.attribution", reason="zennit: pip install 'whybox[bench]'")
composites = pytest.importorskip("zennit.composites", reason="zennit: pip install 'whybox[bench]'")


def by_captum(module, inputs, target):
    return captum.InputXGradient(module).attribute(inputs.requires_grad_(), target=target)


def by_zennit(module, inputs, target):
    classes = torch.eye(10)[target]
    with attribution.Gradient(module, composites.EpsilonPlusFlat()) as explain:
        return explain(inputs.requires_grad_(), classes)[1]


def test_they_stand_in_the_same_table():
    inputs, labels = whybox.datasets.load("digits")
    found = whybox.compare(
        whybox.models.load("digits"),
        (inputs, labels),
        [
            "input_x_gradient",
            whybox.External(by_captum, "captum InputXGradient"),
            whybox.External(by_zennit, "zennit EpsilonPlusFlat"),
        ],
        ["deletion(steps=8)"],
        n=16,
        controls=False,
    )
    assert not found.failures
    assert found.names == ["InputXGradient", "captum InputXGradient", "zennit EpsilonPlusFlat"]
    for column in range(len(found.criteria)):
        assert found.cells[1, column].values == pytest.approx(found.cells[0, column].values, abs=1e-4)
        assert found.difference(0, 1, column).sign == 0
        assert found.cells[2, column].values != pytest.approx(found.cells[0, column].values, abs=1e-4)
