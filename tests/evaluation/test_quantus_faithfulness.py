"""The same values as Quantus where the definition is the same and the same is hidden.

Not compared is its SensitivityN, which hides features in the order of their relevance and correlates over the samples
of a batch: another measure than that of the paper.
"""

import contextlib

import numpy
import pytest
import torch
from torch import Tensor, nn

from whybox import (
    Constant,
    Domain,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Infidelity,
    Model,
    MonotonicityCorrelation,
    Patches,
    Pixels,
    Zero,
)
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.hiding import RandomSubsets
from whybox.evaluation.metric import case as as_case
from whybox.models.torchvision_models import import_torchvision

with contextlib.suppress(ImportError):  # Quantus imports torchvision, and that may be built for another torch
    import_torchvision()
quantus = pytest.importorskip("quantus", reason="quantus: pip install 'whybox[bench]'")
pytestmark = pytest.mark.filterwarnings("ignore")

PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "return_aggregate": False}


def net(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5)).eval()


def given(channels: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, relevance = torch.rand(2, 3, channels, 8, 8, generator=generator)
    return net(channels), x, torch.tensor([0, 4, 2]), relevance - 0.5


def theirs(metric, f, x, target, relevance, **options) -> Tensor:
    found = metric(model=f, x_batch=x.numpy(), y_batch=target.numpy(), a_batch=relevance.numpy(), **options)
    return torch.as_tensor(numpy.asarray(found), dtype=torch.float64)


def counted(f: nn.Module) -> list[int]:
    """The rows that the model sees from now on."""
    rows: list[int] = []
    f.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    return rows


@pytest.mark.parametrize("softmax", [True, False])
def test_faithfulness_estimate(softmax):
    f, x, target, relevance = given(1)
    ours = FaithfulnessEstimate(Pixels(), Constant(0.25), "probability" if softmax else "score")
    peer = quantus.FaithfulnessEstimate(perturb_baseline=0.25, **PLAIN)
    found = theirs(peer, f, x, target, relevance, softmax=softmax)
    assert torch.allclose(ours(f, x, target, relevance), found, atol=1e-4)


def test_faithfulness_correlation(monkeypatch):
    f, x, target, relevance = given(1)
    ours = FaithfulnessCorrelation(infill=Constant(0.0), draws=30, share=7 / 64)
    with started(f, x, target) as task:
        packed = Samples(task).once(RandomSubsets(Pixels(), Constant(0.0), 7 / 64, 30)).packed
    sets = numpy.unpackbits(packed, axis=2, count=64)
    drawn = iter([(run, i) for run in range(30) for i in range(3)])  # the order in which it asks
    monkeypatch.setattr(numpy.random, "choice", lambda *_, **__: numpy.flatnonzero(sets[next(drawn)[::-1]]))
    peer = quantus.FaithfulnessCorrelation(nr_runs=30, subset_size=7, perturb_baseline=0.0, **PLAIN)
    found = theirs(peer, f, x, target, relevance)
    monkeypatch.undo()
    assert torch.allclose(ours(f, x, target, relevance), found, atol=1e-4)


def test_monotonicity_correlation():
    f, x, target, relevance = given(1)
    ours = MonotonicityCorrelation(Pixels(), Constant(0.25))
    peer = quantus.MonotonicityCorrelation(nr_samples=1, perturb_baseline=0.25, **{**PLAIN, "abs": True})
    found = theirs(peer, f, x, target, relevance, softmax=True)
    assert torch.allclose(ours(f, x, target, relevance), found, atol=1e-4)


def test_infidelity():
    """Quantus removes patches one after another, and never puts one back; it is made to here."""
    f, x, target, relevance = given(1)

    def one_patch(arr: numpy.ndarray, indices: numpy.ndarray, **_) -> numpy.ndarray:
        changed = x.numpy().reshape(len(x), -1).copy()
        changed[:, indices[0]] = 0.25
        return changed

    peer = quantus.Infidelity(perturb_patch_sizes=[4], n_perturb_samples=1, perturb_func=one_patch, **PLAIN)
    ours = Infidelity(Patches(4), Constant(0.25), multiplied=False)
    found = theirs(peer, f, x, target, relevance, softmax=False)
    assert torch.allclose(ours(f, x, target, relevance), found, atol=1e-4)


def test_forwards():
    """At the same draws three explanations take fewer forwards than Quantus does for one, all four metrics together."""
    f, x, target, relevance = given(1)
    rows = counted(f)
    maps = (relevance, -relevance, relevance.square())
    for r in maps:
        theirs(quantus.FaithfulnessCorrelation(nr_runs=20, subset_size=13, **PLAIN), f, x, target, r)
        theirs(quantus.FaithfulnessEstimate(**PLAIN), f, x, target, r)
        theirs(quantus.Infidelity(perturb_patch_sizes=[1], n_perturb_samples=1, **PLAIN), f, x, target, r)
        theirs(quantus.MonotonicityCorrelation(nr_samples=2, **PLAIN), f, x, target, r)
    peer = sum(rows)
    metrics = (
        FaithfulnessCorrelation(draws=20),
        FaithfulnessEstimate(Pixels(), Zero()),
        Infidelity(Pixels(), Zero()),
        MonotonicityCorrelation(Pixels(), draws=2),
    )
    model = Model(net(1), domain=Domain((0.0,), (1.0,)))
    with started(model, x, target) as task:
        samples = Samples(task)
        ours = sum(metric.score(as_case(samples, r)).forwards for r in maps for metric in metrics)
    assert ours == 3 * (1 + 20 + 64 + 128)
    assert ours < peer / 3
