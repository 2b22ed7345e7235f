"""NeuroMask's options: what each adds to the loss, written out, and what it is for."""

import math
from typing import Any

import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn

from whybox import (
    Black,
    Blur,
    Contrast,
    Domain,
    InvariantPerturbation,
    Mean,
    MeaningfulPerturbation,
    Method,
    Model,
    NeuroMask,
    Zero,
)
from whybox.attribution.masks.neuromask import START
from whybox.core.errors import InputError
from whybox.core.reference import Infill

UNIT = Domain((0.0,), (1.0,))
SIZE = 24
# What the mask is in the first step, and what its weights cost then.
FADED, SPARSE = 1 / (1 + math.exp(-START)), 0.35 * (10 + START)


class Two(nn.Module):
    """Class 1 for one bright square, or for another as well; class 2 for a third; class 0 for none."""

    PLACES = ((slice(2, 9), slice(2, 9)), (slice(14, 21), slice(14, 21)), (slice(2, 9), slice(14, 21)))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = (4 * x[..., rows, columns].mean((1, 2, 3)) for rows, columns in self.PLACES)
        return torch.stack((torch.full_like(first, 2.0), torch.maximum(first, second), third), 1)


class Conv(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(1, 4, 5, bias=False), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3))) * 4


def pictures(n: int = 2) -> Tensor:
    return 0.7 + 0.3 * torch.rand(n, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def first_loss(method: NeuroMask, net: nn.Module, x: Tensor, target: Any = 1) -> Tensor:
    return method.run(Model(net, domain=UNIT), x, target).details["losses"][:, 0]


@pytest.mark.parametrize("infill", [Black(), Mean(), Blur(3.0)], ids=["black", "mean", "blur"])
def test_the_first_loss_written_out(infill: Infill) -> None:
    """The mask is the same everywhere: it fades the picture, and what it leaves out is the rest."""
    net, x = Conv(), pictures()
    fillings = {
        "Black": torch.zeros_like(x),
        "Mean": x.mean((2, 3), keepdim=True).expand_as(x),
        "Blur": torch.as_tensor(scipy.ndimage.gaussian_filter(x.numpy(), 3.0, axes=(2, 3))),
    }
    filling = fillings[type(infill).__name__]
    output = net(filling + FADED * (x - filling)).detach().double()
    rest = net(x + FADED * (filling - x)).detach().double()
    p, original = output.softmax(1), net(x).detach().double().softmax(1)
    plain = -0.4 * p[:, 1].log() + SPARSE
    method = NeuroMask(infill=infill, steps=3)
    assert torch.allclose(first_loss(method, net, x), plain, atol=1e-5)
    divergence = (original * (original / p).log()).sum(1)
    soft = NeuroMask(infill=infill, steps=3, labels="soft")
    assert torch.allclose(first_loss(soft, net, x), 0.4 * divergence + SPARSE, atol=1e-5)
    deleting = NeuroMask(infill=infill, steps=3, deletion=0.7)
    assert torch.allclose(first_loss(deleting, net, x), plain - 0.7 * (1 - rest.softmax(1)[:, 1]).log(), atol=1e-5)
    score, left = (one[:, 1] - one[:, 0] for one in (output, rest))
    contrast = NeuroMask(infill=infill, steps=3, deletion=0.7)
    assert torch.allclose(first_loss(contrast, net, x, Contrast(1, 0)), SPARSE - 0.4 * score + 0.7 * left, atol=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_dense_and_single_outputs(classes: int) -> None:
    """The terms are the mean over all positions; a single output is the log-odds of its class against another one."""

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Conv(classes).conv

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)[:, :classes] * 4

    net, x = Dense(), pictures()
    outputs = [net(share * x).detach().double() for share in (FADED, 1 - FADED, 1)]
    if classes == 1:
        outputs = [torch.cat((one, torch.zeros_like(one)), 1) for one in outputs]
    p, rest, original = (one.softmax(1) for one in outputs)
    method = NeuroMask(steps=3, labels="soft", deletion=0.7)
    divergence = (original * (original / p).log()).sum(1).mean((1, 2))
    against = (1 - rest).log()
    expected = SPARSE + 0.4 * divergence - 0.7 * against[:, 0].mean((1, 2))
    assert torch.allclose(first_loss(method, net, x, 0), expected, atol=1e-5)
    entry = SPARSE + 0.4 * divergence - 0.7 * against[:, 0, 3, 4]
    assert torch.allclose(first_loss(method, net, x, (0, 3, 4)), entry, atol=1e-5)


def test_deletion_marks_all_that_shows_the_class() -> None:
    """Either of two squares is enough to keep the class; only with both hidden is it lost."""
    model, x = Model(Two(), domain=UNIT), pictures()
    alone, deleting = (NeuroMask(deletion=weight).run(model, x, 1) for weight in (0.0, 4.0))

    def shown(relevance: Tensor) -> list[Tensor]:
        return [relevance[..., rows, columns].mean((1, 2, 3)) for rows, columns in Two.PLACES]

    assert (torch.minimum(*shown(alone.relevance)[:2]) < 0.1).all()
    assert (model(x * (1 - deleting.relevance)).argmax(1) != 1).all()
    first, second, third = shown(deleting.relevance)
    assert (torch.minimum(first, second) > 0.3).all()
    assert (third < 0.1).all()
    assert (2 * torch.isfinite(deleting.details["losses"]).sum(1) == deleting.details["evaluations"]).all()
    assert deleting.forwards == int(deleting.details["evaluations"].sum()) + 2
    assert deleting.backwards == int(deleting.details["evaluations"].sum())


def test_soft_labels_keep_the_other_classes_too() -> None:
    model, x = Model(Two(), domain=UNIT), pictures()
    hard, soft = (NeuroMask(labels=labels, prediction=4.0)(model, x, 1) for labels in ("hard", "soft"))
    original = model(x).log_softmax(1)

    def divergence(relevance: Tensor) -> Tensor:
        return (original.exp() * (original - model(x * relevance).log_softmax(1))).sum(1)

    assert (divergence(soft) < divergence(hard)).all()
    rows, columns = Two.PLACES[2]
    assert (soft[..., rows, columns].mean((1, 2, 3)) > 0.3).all()
    assert (hard[..., rows, columns].mean((1, 2, 3)) < 0.1).all()


def test_soft_labels_cost_a_forward_each() -> None:
    found = NeuroMask(labels="soft", steps=10).run(Model(Two(), domain=UNIT), pictures(), torch.tensor([1, 1]))
    assert found.forwards == 2 * (1 + 10 + 1)


def test_soft_labels_need_a_class() -> None:
    with pytest.raises(InputError, match="class"):
        NeuroMask(labels="soft", steps=3)(Two(), pictures(), Contrast(1, 0))


def test_jitter_is_drawn_by_seed_sample_and_step() -> None:
    net, x = Two(), pictures(3)
    method = NeuroMask(jitter=4, steps=60)
    together = method.run(Model(net, domain=UNIT, chunk=2), x, 1)
    again = method.run(Model(net, domain=UNIT, chunk=3), x, 1)
    alone = method.run(Model(net, domain=UNIT), x[:1], 1)
    other = method.run(Model(net, domain=UNIT), x, 1, seed=1)
    assert torch.allclose(together.relevance, again.relevance, atol=1e-5)
    assert torch.allclose(together.relevance[:1], alone.relevance, atol=1e-5)
    assert not torch.allclose(together.relevance, other.relevance, atol=1e-3)


def test_jitter_makes_a_mask_that_bears_moving() -> None:
    """A mask that need not fit to the pixel: under it the class is kept wherever the picture is moved to."""

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            odds = 12 * (x[..., 8:16, 8:16].mean((1, 2, 3)) - 0.5)
            return torch.stack((-odds, odds), 1)

    x = torch.zeros(1, 1, SIZE, SIZE)
    x[..., 8:16, 8:16] = 1.0
    model = Model(Bright(), domain=UNIT)
    still, moved = (NeuroMask(jitter=jitter).run(model, x, 1) for jitter in (0, 6))
    assert all(bool(check.passed.all()) for check in moved.checks)

    def kept(relevance: Tensor) -> float:
        offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
        probabilities = [model(x.roll(o, (2, 3)) * relevance).softmax(1)[0, 1] for o in offsets]
        return float(torch.stack(probabilities).mean())

    assert kept(moved.relevance) > kept(still.relevance)


@pytest.mark.parametrize("infill", [Zero(), Mean(), Blur(2.0), Black()])
def test_a_background_of_ones_own_is_used(infill: Infill) -> None:
    found = NeuroMask(infill=infill, steps=60).run(Model(Conv(), domain=UNIT), pictures(), 1)
    assert torch.isfinite(found.relevance).all()
    assert found.checks[0].passed.all()


def test_black_inside_a_model_depends_on_the_batch_and_the_default_does_not() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.embedding, self.head = nn.Embedding(40, 6), nn.Linear(6, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embedding(tokens).mean(1)) * 8

    tokens = torch.arange(36).view(3, 12)
    for infill, same in ((None, True), (Black(), False)):
        method = NeuroMask(infill=infill, steps=40)
        together, alone = method(Words(), tokens, 1, at="embedding"), method(Words(), tokens[2:], 1, at="embedding")
        assert torch.allclose(together[2:], alone, atol=1e-6) is same


@pytest.mark.parametrize("wrong", [{"deletion": -1.0}, {"jitter": -1}, {"jitter": -2, "labels": "soft"}])
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        NeuroMask(**wrong)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (NeuroMask, {"steps": 1.5}),
        (NeuroMask, {"jitter": float("nan")}),
        (NeuroMask, {"kernel": float("inf")}),
        (NeuroMask, {"film": True}),
        (NeuroMask, {"infill": "zero"}),
        (NeuroMask, {"prediction": None}),
        (NeuroMask, {"search": "fast"}),
        (MeaningfulPerturbation, {"jitter": 1.5}),
        (MeaningfulPerturbation, {"softness": "5"}),
        (InvariantPerturbation, {"samples": 2.0}),
        (InvariantPerturbation, {"penalty": "high"}),
        (InvariantPerturbation, {"search": "random"}),
    ],
)
def test_fields_of_another_type_are_refused(method: type[Method], wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    given = method()
    object.__setattr__(given, name, value)  # past the type checks of the tests themselves
    with pytest.raises(InputError, match=f"{name} of {method.__name__} is .*, not "):
        given.__post_init__()  # type: ignore[attr-defined]
