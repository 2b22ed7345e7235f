"""Equality with Quantus 0.6 on the same random models: what differs there is how the models are made random."""

import numpy
import pytest
import torch
from torch import nn

from whybox import MPRT, EfficientMPRT, Gradient, Model
from whybox.core.block import mix
from whybox.evaluation.randomisation import parameter_layers, randomised

quantus = pytest.importorskip("quantus", reason="quantus: pip install 'whybox[bench]'")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).eval()


def gradients(model, inputs, targets, **_):
    x = torch.as_tensor(inputs, dtype=torch.float32)
    return Gradient()(model, x, torch.as_tensor(targets)).numpy()


class SameCopies:
    """Makes Quantus use whybox's random models: its own gives every layer the same seed."""

    def __init__(self, module, monkeypatch):
        layers = parameter_layers(module)
        wrapper = quantus.helpers.model.pytorch_model.PyTorchModel

        def copies(_, order="top_down", seed=0):
            named = layers[::-1] if order == "top_down" else layers
            for k, name in enumerate(named):
                gone = [name] if order == "independent" else named[: k + 1]
                yield name, randomised(Model(module), mix(mix(0, 0), 0), gone).module

        monkeypatch.setattr(wrapper, "get_random_layer_generator", copies)
        monkeypatch.setattr(wrapper, "random_layer_generator_length", property(lambda _: len(layers)))


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
@pytest.mark.parametrize("reading", ["signed", "absolute"])
def test_mprt(order, reading, monkeypatch):
    module, x, y = net(), torch.rand(5, 1, 10, 10), torch.tensor([0, 1, 2, 1, 0])
    SameCopies(module, monkeypatch)
    theirs = quantus.MPRT(
        layer_order=order, abs=reading == "absolute", normalise=False, disable_warnings=True, display_progressbar=False
    )(module, x.numpy(), y.numpy(), None, explain_func=gradients, softmax=False, device="cpu", batch_size=5)
    assert numpy.allclose(theirs.pop("original"), 1)  # which their average counts, and ours does not
    found = MPRT(order=order, compares=reading).run(module, x, y, Gradient()(module, x, y), method="gradient")
    expected = torch.tensor(list(theirs.values()), dtype=torch.float64).T
    assert torch.allclose(found.details[reading], expected, atol=1e-4)
    assert torch.allclose(found.values, expected.mean(1), atol=1e-4)


def test_efficient_mprt(monkeypatch):
    module, x, y = net(), torch.rand(5, 1, 10, 10), torch.tensor([0, 1, 2, 1, 0])
    SameCopies(module, monkeypatch)
    theirs = quantus.EfficientMPRT(
        complexity_func_kwargs={"n_bins": 20}, normalise=False, abs=False, disable_warnings=True
    )(module, x.numpy(), y.numpy(), None, explain_func=gradients, softmax=True, device="cpu", batch_size=5)
    found = EfficientMPRT(20)(module, x, y, Gradient()(module, x, y), method="gradient")
    assert found.tolist() == pytest.approx(theirs, abs=1e-4)
