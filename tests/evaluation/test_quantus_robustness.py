"""Equality with Quantus where the definition is the same, on the same neighbours."""

import importlib.util
import warnings
from dataclasses import dataclass, field

import numpy
import pytest
import torch
from torch import Tensor, nn

from whybox import (
    AverageSensitivity,
    Black,
    Constant,
    Continuity,
    Domain,
    InputXGradient,
    LocalLipschitz,
    MaxSensitivity,
    Method,
    Model,
    NonSensitivity,
    Pixels,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
    Taxonomy,
)
from whybox.models.torchvision_models import prepare_torchvision

pytestmark = pytest.mark.filterwarnings("ignore")  # Quantus' own

DRAWS, RADIUS, LAYER = 5, 0.05, "3"
PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}
TARGET = torch.tensor([0, 2, 1, 1])


@pytest.fixture(scope="module")
def quantus():
    if importlib.util.find_spec("quantus"):
        prepare_torchvision()  # which Quantus imports
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus", reason="quantus: pip install 'whybox[bench]'")


@dataclass(frozen=True)
class Recording(Method):
    """Input times gradient, of which everything that it is asked to explain is kept."""

    kept: list = field(default_factory=list, compare=False)

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task):
        self.kept.extend(task.inputs.clone())
        return InputXGradient().attribute(task)


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 3)
    ).eval()


def pictures() -> Tensor:
    return torch.rand(4, 2, 6, 6, generator=torch.Generator().manual_seed(2)) + 0.1


def explain(model, inputs, targets, **_):
    x, y = (torch.as_tensor(numpy.asarray(part)) for part in (inputs, targets))
    return InputXGradient()(model, x.float(), y.long()).numpy()


def theirs(metric, f, x, relevance):
    given = {"model": f, "x_batch": x.numpy(), "y_batch": TARGET.numpy(), "a_batch": relevance.numpy()}
    return numpy.asarray(metric(**given, explain_func=explain, softmax=False, device="cpu", channel_first=True))


SAME = [
    (MaxSensitivity, "MaxSensitivity", {}),
    (AverageSensitivity, "AvgSensitivity", {}),
    (LocalLipschitz, "LocalLipschitzEstimate", {}),
    (RelativeInputStability, "RelativeInputStability", {}),
    (RelativeOutputStability, "RelativeOutputStability", {}),
    (RelativeRepresentationStability, "RelativeRepresentationStability", {"layer_names": [LAYER]}),
]


@pytest.mark.parametrize(("metric", "name", "fields"), SAME, ids=[name for _, name, _ in SAME])
def test_the_same_neighbours_give_the_same_scores(quantus, metric, name, fields):
    f, x, method = net(), pictures(), Recording()
    relevance = InputXGradient()(f, x, TARGET)
    ours = metric(DRAWS, RADIUS, **({"layer": LAYER} if "layer_names" in fields else {}))
    found = ours.run(Model(f, domain=Domain((0.0,), (1.0,))), x, TARGET, relevance, method=method)
    assert found.details.get("kept", torch.ones(1)).all()  # for where the class changes we differ on purpose
    near = torch.stack(method.kept).view(4, DRAWS, -1).unbind(1)
    draws = iter([part.numpy() for part in near])
    options = {"nr_samples": DRAWS, "perturb_func": lambda arr, **_: next(draws), **fields}
    expected = theirs(getattr(quantus, name)(**options, **PLAIN), f, x, relevance)
    assert found.values.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_continuity(quantus):
    """Theirs moves by −W + k · ⌊(2W + 1) / steps⌋, k from 1, with each picture's least value moving in.

    It passes over 0 on its way, and fails where a picture is moved out of sight, as six steps would here: its map is
    zero, which Quantus refuses.
    """
    f, x = net(), pictures()
    x = x - x.amin((1, 2, 3), keepdim=True)
    relevance = InputXGradient()(f, x, TARGET)
    ours = Continuity((-4, -2, 2, 4), Black())
    found = ours(Model(f, domain=Domain((0.0,), (1.0,))), x, TARGET, relevance, method=InputXGradient())
    expected = theirs(quantus.Continuity(nr_steps=5, **PLAIN), f, x, relevance)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_non_sensitivity(quantus):
    """With one channel, positive relevance whose largest is 1, and effects that are nothing or large."""
    f = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    x = pictures()[:, :1]
    with torch.no_grad():
        f[1].weight[:, ::3] = 0
        f[1].weight[:, 1::3] += 1
    relevance = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    relevance[:, :, :3] = 0
    relevance = relevance / relevance.amax((1, 2, 3), keepdim=True)
    found = NonSensitivity(Pixels(), Constant(0)).run(f, x, TARGET, relevance)
    metric = quantus.NonSensitivity(features_in_step=1, perturb_func_kwargs={"perturb_baseline": 0.0}, **PLAIN)
    expected = theirs(metric, f, x, relevance)
    assert found.details["violations"].tolist() == expected.tolist()
    assert expected.sum() > 0
