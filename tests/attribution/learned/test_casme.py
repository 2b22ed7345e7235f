"""CASME: its loss against a literal loop; shapes whose place is known, and a classifier that no masker has met."""

import copy
import math
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from experiments.shapes import plain, scenes, trained
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import whybox
from whybox import CASME, Fitted, Model
from whybox.attribution.learned.adversaries import masker_loss, train
from whybox.attribution.learned.masker import Masker
from whybox.attribution.learned.pool import Pool
from whybox.attribution.learned.training import minibatches, moments
from whybox.core.errors import InputError, ModelError

sys.path.append(str(Path(__file__).parents[2] / "core"))
from snapshots import differences, of_module, of_process

TINY = CASME(steps=3, batch=4, width=2, pool=2)
QUICK = CASME(steps=150, batch=16, width=4, rate=5e-3)


def net(channels=2, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, classes),
    )  # fmt: skip


def pictures(n=12, channels=2, size=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, size, size, generator=generator), torch.arange(n) % 3


@pytest.fixture(scope="module")
def tiny():
    return TINY.fit(net(), pictures())


# --- Shapes with a known place.


@pytest.fixture(scope="module")
def known():
    """Pictures to learn from, others, the classifier of the fit, and one of another architecture and seed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data, test = scenes(1000, 0, clutter=0.3), scenes(200, 1, clutter=0.3)
    unseen = nn.Sequential(
        nn.Conv2d(3, 12, 5, padding=2), nn.LeakyReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 32, 5, padding=2), nn.LeakyReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3), nn.LeakyReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(48, 32), nn.LeakyReLU(), nn.Linear(32, 4),
    )  # fmt: skip
    yield data, test, trained(plain(), data, 6, 6e-3, seed=0), trained(unseen, data, 8, 6e-3, seed=1)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fitted(known):
    data, _, own, _ = known
    return QUICK.fit(own, (data.images, data.labels))


def accuracy(model, x, labels):
    with torch.no_grad():
        return (model(x).argmax(1) == labels).double().mean()


def iou(a, b):
    return ((a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1)).double().mean()


def of_equal_area(mask, scores):
    rank = scores.flatten(1).argsort(1, descending=True).argsort(1)
    return (rank < mask.flatten(1).sum(1, keepdim=True)).view_as(mask)


def test_an_unseen_classifier_needs_what_the_mask_shows(known, fitted):
    _, test, _, unseen = known
    answer = fitted.run(unseen, test.images)
    mask = answer.relevance
    clean = accuracy(unseen, test.images, test.labels)
    assert clean > 0.9
    assert accuracy(unseen, test.images * (1 - mask), test.labels) < clean - 0.5
    assert accuracy(unseen, test.images * mask, test.labels) > clean - 0.15
    found = mask > 0.5
    at = torch.linspace(-1, 1, mask.shape[-1])
    centred = of_equal_area(found, -(at[:, None] ** 2 + at**2).expand_as(mask))
    random = of_equal_area(found, torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)))
    assert iou(found, test.truth) > 0.45
    assert iou(found, test.truth) > 2 * max(iou(centred, test.truth), iou(random, test.truth))
    left = accuracy(unseen, test.images * ~centred, test.labels)
    assert left > accuracy(unseen, test.images * ~found, test.labels) + 0.15
    torch.testing.assert_close(answer.details["area"], found.double().flatten(1).mean(1))
    passed = {check.name: check.passed.double().mean() for check in answer.checks}
    assert passed["collapsed mask"] > 0.95
    assert passed["masks collapsed in the training"] == passed["classes left in the training"] == 1
    assert passed["class left without the mask"] > 0.5
    assert passed["class lost under the mask"] > 0.8


def test_without_a_price_the_masks_hide_everything(known, fitted, caplog):
    """A negative control, and the area falls as its weight grows."""
    data, test, own, unseen = known
    free = replace(QUICK, area=0.0, steps=70).fit(own, (data.images, data.labels))
    assert "most of its masks hide everything" in caplog.text
    answer = free.run(unseen, test.images)
    checks = {check.name: check for check in answer.checks}
    assert not checks["masks collapsed in the training"].passed.any()
    assert not checks["collapsed mask"].passed.any()
    assert answer.relevance.mean() > 1.5 * fitted(unseen, test.images).mean()


def test_at_an_absurd_price_the_masks_hide_nothing(known, caplog):
    data, test, own, unseen = known
    dear = replace(QUICK, area=1e6).fit(own, (data.images, data.labels))
    assert "its masks hide nothing" in caplog.text
    checks = {check.name: check for check in dear.run(unseen, test.images).checks}
    assert not checks["classes left in the training"].passed.any()
    assert checks["class left without the mask"].values.mean() > 0.7


# --- The parts, against literal ones.


def test_the_loss_of_the_masker_is_that_of_a_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(162, 3)).double()
    x, labels = pictures(24)
    x = x.double()
    labels[:12] = model(x).argmax(1)[:12]
    mask = torch.rand(24, 1, 9, 9, generator=torch.Generator().manual_seed(1)).double()
    loss, right, lost = masker_loss(model, x, labels, mask, 7.0)
    terms, confused = [], 0
    with torch.no_grad():
        for picture, label, m in zip(x, labels, mask, strict=True):
            if model(picture[None]).argmax() != label:
                continue
            p = torch.softmax(model((picture * (1 - m))[None])[0], 0)
            wrong = float(p.argmax() != label)
            confused += wrong
            entropy = -sum(float(q) * math.log(q) for q in p)
            terms.append(-7.0 * max(wrong - float(m.mean()), 0.0) - entropy)
    assert 0 < confused < len(terms) < 24
    assert loss.item() == pytest.approx(sum(terms) / len(terms))
    assert right.item() == pytest.approx(len(terms) / 24)
    assert lost.item() == pytest.approx(confused / len(terms))


def test_the_training_is_that_of_a_loop():
    """Who learns from what, at which rate, against whom: written out, with whole copies as the pool."""
    (x, _), model = pictures(), net().eval()
    labels = model(x).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    torch.manual_seed(1)
    found = Masker((2, 9, 9), 2), copy.deepcopy(model)
    masker, classifier = expected = copy.deepcopy(found)
    settings = {"batch": 5, "steps": 10, "seed": 3, "progress": False}
    history = train(*found, x, labels, area=7.0, pool=2, rates=(0.05, 0.01), **settings).history
    chance, past, present = torch.Generator().manual_seed(3), [], 0
    pick = lambda: int(torch.randint(len(past), (), generator=chance))  # noqa: E731
    hide, learn = torch.optim.Adam(masker.parameters(), 0.05), torch.optim.Adam(classifier.parameters(), 0.01)
    for step, rows in minibatches(12, **settings):
        if step % 2 == 0:  # ten steps, which fill a pool of two twice
            if len(past) == 2:
                past.pop(pick())
            past.append(copy.deepcopy(classifier))
        known = float(torch.rand((), generator=chance)) < 0.5
        opponent = copy.deepcopy(classifier if known else past[pick()])
        present += known
        mask = masker(x[rows])
        confusion, _, _ = masker_loss(opponent, x[rows], labels[rows], mask, 7.0)
        hidden = x[rows] * (1 - mask.detach())
        losses = [nn.functional.cross_entropy(classifier(seen), labels[rows]) for seen in (x[rows], hidden)]
        for optimiser, loss in ((hide, confusion), (learn, (losses[0] + losses[1]) / 2)):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert history[step, 0].item() == pytest.approx(confusion.item(), abs=1e-4)
    assert 0 < present < 10
    # Not the weights themselves: a bias before a normalisation does nothing, and Adam makes steps of its rounding.
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine(x), theirs(x), rtol=1e-3, atol=1e-4)


def test_a_constant_channel_does_not_blow_up():
    """As the opacity of pictures, which another picture may have otherwise."""
    x = torch.cat((pictures()[0], torch.full((12, 1, 9, 9), 0.1)), 1)
    mean, spread = moments(x)
    torch.testing.assert_close(mean[0, :2], x[:, :2].mean((0, 2, 3))[:, None, None])
    torch.testing.assert_close(spread[0, :2], x[:, :2].std((0, 2, 3), correction=0)[:, None, None])
    assert mean[0, 2] == 0.1
    assert spread[0, 2] == 1
    assert TINY.fit(net(3), (x, pictures()[1])).state["masker.spread"][0, 2] == 1


def test_where_the_classifier_gets_nothing_right_the_masker_learns_nothing():
    model, (x, _) = net().eval(), pictures()
    mask = torch.full((12, 1, 9, 9), 0.5, requires_grad=True)
    wrong = (model(x).argmax(1) + 1) % 3
    loss, right, _ = masker_loss(model, x, wrong, mask, 7.0)
    loss.backward()
    assert right == loss == mask.grad.abs().sum() == 0


def test_the_pool_has_past_classifiers_and_lets_chance_choose():
    model = nn.Linear(1, 1, bias=False)
    pool = Pool(model, 3, torch.Generator().manual_seed(0))
    seen = []
    for number in range(6):
        with torch.no_grad():
            model.weight.fill_(number)
        pool.add()
        assert len(pool) == min(number + 1, 3)
    with torch.no_grad():
        model.weight.fill_(9)
    for _ in range(600):
        drawn = pool.draw()
        seen.append(drawn.weight.item())
        assert (drawn is model) == (seen[-1] == 9)
    assert seen.count(9) / 600 == pytest.approx(0.5, abs=0.08)
    past = sorted(set(seen) - {9})
    assert len(past) == 3
    assert past[-1] == 5
    assert all(seen.count(value) / 600 == pytest.approx(1 / 6, abs=0.06) for value in past)


@pytest.mark.parametrize("size", [(2, 2), (3, 7), (8, 8), (33, 20), (100, 70), (64, 224)])
def test_masks_have_the_size_of_the_picture(size):
    torch.manual_seed(0)
    masker = Masker((2, *size), 2)
    x = torch.randn(3, 2, *size)
    mask = masker(x)
    assert mask.shape == (3, 1, *size)
    assert 0 < mask.min() < mask.max() < 1
    torch.testing.assert_close(mask[1:2], masker(x[1:2]), rtol=0, atol=5e-6)


def test_large_pictures_have_masks_of_a_quarter():
    """56 × 56 for 224 × 224, as in the paper: what lies between is interpolated linearly, so without bends."""
    torch.manual_seed(0)
    masker = Masker((1, 224, 224), 2)
    assert masker.finest == 2
    assert len(masker.down) == 6
    assert Masker((1, 32, 32), 2).finest == 0


# --- What holds for every method.


def test_the_mask_does_not_depend_on_model_or_target(tiny):
    x, _ = pictures()
    mask = tiny(net(), x)
    assert mask.shape == (12, 1, 9, 9)
    assert 0 <= mask.min() <= mask.max() <= 1
    for model, target in ((net(seed=3), 1), (net(classes=7), whybox.Contrast(2, 1)), (net(), whybox.Neuron("0", 1))):
        torch.testing.assert_close(tiny(model, x, target), mask, rtol=0, atol=1e-6)  # chunks differ


def test_the_scores_are_those_of_the_masked_pictures(tiny):
    x, _ = pictures()
    model = net().eval()
    answer = tiny.run(model, x, 1)
    mask = answer.relevance
    with torch.no_grad():
        kept, hidden, whole = model(x * mask), model(x * (1 - mask)), model(x)
    torch.testing.assert_close(answer.details["kept_score"], kept[:, 1].double())
    torch.testing.assert_close(answer.details["hidden_score"], hidden[:, 1].double())
    checks = {check.name: check.values.bool() for check in answer.checks}
    assert torch.equal(checks["class lost under the mask"], kept.argmax(1) != whole.argmax(1))
    assert torch.equal(checks["class left without the mask"], hidden.argmax(1) == whole.argmax(1))
    assert answer.forwards == 5 * 12


@pytest.mark.parametrize("chunk", [1, 5, 12])
def test_alone_or_in_a_batch(tiny, chunk):
    x, _ = pictures()
    model = Model(net(), chunk=chunk)
    whole = tiny.run(model, x, 0)
    for row in (0, 7):
        alone = tiny.run(model, x[row : row + 1], 0)
        torch.testing.assert_close(alone.relevance[0], whole.relevance[row], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.details["kept_score"][0], whole.details["kept_score"][row])


def test_the_same_seed_learns_the_same(tiny, tmp_path):
    again, other = TINY.fit(net(), pictures()), TINY.fit(net(), pictures(), seed=1)
    assert again == tiny
    assert other != tiny
    assert all(torch.equal(tiny.state[name], value) for name, value in again.state.items())
    tiny.save(tmp_path / "casme.safetensors")
    loaded = Fitted.load(tmp_path / "casme.safetensors")
    assert loaded == tiny
    x, _ = pictures()
    assert torch.equal(loaded(net(), x), tiny(net(), x))
    assert tiny.state["history"].shape == (3, 5)


def test_any_loader_of_pairs(tiny):
    x, labels = pictures()
    assert TINY.fit(net(), DataLoader(TensorDataset(x, labels), batch_size=5)) == tiny
    assert TINY.fit(net(), [(x[:5], labels[:5]), (x[5:], labels[5:])]) == tiny


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_stays_as_it_was(mode, tiny):
    model, data = net().train(), pictures()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = of_module(model), of_process()
    with mode():
        assert TINY.fit(model, data) == tiny
        tiny.run(model, data[0])
    assert not differences(before, (of_module(model), of_process()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_pictures_and_models_in_other_precisions(dtype):
    """Those of 16 bits too learn by steps that 16 bits do not hold."""
    x, labels = pictures()
    x, model = x.to(dtype), net().to(dtype)
    fitted = TINY.fit(model, (x, labels))
    assert fitted(model, x).dtype == dtype
    wide = TINY.fit(copy.deepcopy(model).float(), (x.float(), labels))
    torch.testing.assert_close(fitted.state["history"], wide.state["history"], rtol=1e-4, atol=1e-4, check_dtype=False)


# --- What goes wrong.


class Failing(nn.Module):
    """Gives NaN, or raises, when its training copy is asked for the k-th time."""

    def __init__(self, k, error=None):
        super().__init__()
        self.inner, self.k, self.error, self.calls = net().eval(), k, error, 0

    def forward(self, x):
        self.calls += 1
        if self.calls >= self.k and self.error is not None:
            raise self.error
        return self.inner(x) * (math.nan if self.calls >= self.k else 1.0)


def test_a_training_that_diverges_late_keeps_the_last_good_masker(caplog):
    fitted = CASME(steps=12, batch=4, width=2, pool=1).fit(Failing(26), pictures())
    assert "diverged in step" in caplog.text
    assert 1 < int(fitted.state["diverged"]) < 13
    assert len(fitted.state["history"]) == int(fitted.state["diverged"])
    answer = fitted.run(net(), pictures()[0])
    assert torch.isfinite(answer.relevance).all()
    (check,) = (check for check in answer.checks if check.name == "training that diverged")
    assert not check.passed.any()


def test_a_training_that_diverges_at_once_is_an_error():
    with pytest.raises(ModelError, match="diverged in step 1, before it learned much; give lower rates"):
        TINY.fit(Failing(3), pictures())
    with pytest.raises(ModelError, match="diverged"):
        replace(TINY, rate=1e30, steps=5).fit(net(), pictures())


def test_an_interrupt_says_how_far_it_came():
    model = Failing(9, KeyboardInterrupt())
    before = of_module(model)
    with pytest.raises(KeyboardInterrupt) as caught:
        replace(TINY, steps=20).fit(model, pictures())
    assert re.search("CASME stopped after [2-9] of 20 steps", caught.value.__notes__[0])
    assert not differences(before, of_module(model))


@pytest.mark.parametrize(
    ("bias", "everywhere", "check", "value"),
    [(-30.0, 0.0, "class left without the mask", 1.0), (30.0, 1.0, "class lost under the mask", 0.0)],
)
def test_masks_of_all_zero_or_all_one_are_recognised(tiny, bias, everywhere, check, value):
    state = {**tiny.state, "masker.head.bias": torch.tensor([bias])}
    answer = Fitted(TINY, state).run(net(), pictures()[0])
    checks = {check.name: check for check in answer.checks}
    assert not checks["collapsed mask"].passed.any()
    torch.testing.assert_close(answer.relevance, torch.full_like(answer.relevance, everywhere))
    assert checks[check].values.eq(value).all()


class Locked(nn.Module):
    """Holds something that cannot be copied."""

    def __init__(self):
        super().__init__()
        self.inner, self.lock = net(), threading.Lock()

    def forward(self, x):
        return self.inner(x)


class Shared(nn.Module):
    """Says of itself that it is its own copy."""

    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return self.inner(x)

    def __deepcopy__(self, memo):
        again = copy.copy(self)
        again._modules = dict(self._modules)
        return again


class WithoutGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    @torch.no_grad()
    def forward(self, x):
        return self.inner(x)


class Parameterless(nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(2)


X, LABELS = pictures()


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        (net(), X, "learns from classes"),
        (net(), [(X,)], "learns from classes"),
        (net(), (X, LABELS + 1), "class 3 is out of range: the model's go from 0 to 2"),
        (net(), (X, LABELS - 1), "class -1 is out of range"),
        (net(), (X, LABELS * 0), "all pictures are of class 0"),
        (net(), (X, LABELS.float()), "integers, one for each picture"),
        (net(), [(X, LABELS), (X[:, :, 1:], LABELS)], "several shapes"),
        (net(), [], "empty"),
        (net(), (X, LABELS[:5]), "12 inputs with 5 classes"),
        (net(), [(X, LABELS[0])], "12 inputs with 1 classes"),
        (net(), (X, nn.functional.one_hot(LABELS)), r"integers, one for each picture, not torch.int64 of \(12, 3\)"),
        (net(), [(X, LABELS), (X, LABELS[:, None])], "classes with some batches only, or of several shapes"),
        (WithoutGradient(), (X, LABELS), "has no gradient"),
        (net(), (torch.where(X > 2, torch.nan, X), LABELS), "NaN"),
        (net(), (X[:, :, 0], LABELS), "is for pictures"),
        (Parameterless(), (X[:, :, :1], LABELS % 2), "is for pictures"),
        (nn.Sequential(nn.Flatten(), nn.Linear(162, 1)), (X, LABELS), "a score for each of at least two classes"),
        (nn.Conv2d(2, 3, 3), (X, LABELS), "a score for each of at least two classes"),
        (Locked(), (X, LABELS), "copy.deepcopy cannot make one: cannot pickle"),
        (Shared(), (X, LABELS), "shares its parameters"),
        (Parameterless(), (X, LABELS % 2), "no parameters"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(model, data, says):
    with pytest.raises((InputError, ModelError), match=says):
        TINY.fit(model, data)


def test_a_parameter_without_values_is_not_shared():
    model = net()
    model.register_parameter("none", nn.Parameter(torch.zeros(0)))
    assert TINY.fit(model, (X, LABELS)) == TINY.fit(net(), (X, LABELS))


def test_what_cannot_be_explained_is_refused(tiny):
    x, _ = pictures()
    with pytest.raises(InputError, match=r"whybox\.CASME\(\)\.fit\(model, loader\)"):
        CASME()(net(), x)
    with pytest.raises(InputError, match=r"fitted to pictures of shape \(2, 9, 9\), but asked to explain \(2, 8, 9\)"):
        tiny(net(), x[:, :, 1:])
    with pytest.raises(InputError, match="explain these"):
        tiny(net(), x, at="0")


@pytest.mark.parametrize(
    "fields",
    [{"area": -1.0}, {"area": math.inf}, {"steps": 0}, {"batch": 0}, {"pool": 0}, {"rate": 0.0}, {"width": 0},
     {"classifier_rate": math.nan}],
)  # fmt: skip
def test_settings_that_make_no_sense(fields):
    with pytest.raises(InputError):
        CASME(**fields)
