"""CDeepEx and XGEM as methods: known answers through a model, what they report, and bad input."""

import re
from dataclasses import replace

import numpy
import pytest
import torch
from plain_problems import mlp, normal
from torch import nn

import whybox
from whybox import XGEM, CDeepEx, Contrast, Gradient, InputXGradient, Logit, Model
from whybox.contrast.latent import Latent
from whybox.contrast.record import NOT_FOUND, SOLVED
from whybox.core.errors import InputError, ModelError, TargetError


def linear(inside: int, outside: int, seed: int) -> nn.Linear:
    layer = nn.Linear(inside, outside).double()
    with torch.no_grad():
        layer.weight.copy_(normal(outside, inside, seed=seed))
        layer.bias.copy_(normal(outside, seed=seed + 1))
    return layer


def drawn(generator: nn.Module, size: int, n: int = 6) -> torch.Tensor:
    """Inputs that the generator draws exactly."""
    return generator(normal(n, size, seed=77)).detach()


@pytest.fixture(scope="module")
def nonlinear():
    """A latent model, a classifier of what it draws, and inputs."""
    generator, net = mlp((6, 24, 16), 0), mlp((16, 32, 5), 60, 2.0)
    x = drawn(generator, 6) + 0.05 * normal(6, 16, seed=5)
    return Latent.of(generator, 6, data=drawn(generator, 6, 40)), net, x


class TestLinear:
    """G(z) = B z + c and s = A x + b: the contrast is the foot of the perpendicular in latent space."""

    generator, net = linear(4, 7, 0), linear(7, 2, 10)

    @pytest.mark.parametrize("residual", [True, False])
    def test_the_closed_form(self, residual):
        x = normal(5, 7, seed=3)
        method = CDeepEx(Latent.of(self.generator, 4), residual=residual)
        answer = method.run(self.net, x, Contrast())
        b, c = self.generator.weight.detach(), self.generator.bias.detach()
        z0 = torch.linalg.lstsq(b, (x - c).T).solution.T
        torch.testing.assert_close(answer.details["latents"][:, 0], z0, rtol=0, atol=2e-2)
        z0 = answer.details["latents"][:, 0]
        scored = x if residual else z0 @ b.T + c
        sign = torch.where(answer.details["classes"][:, 0] == 0, 1.0, -1.0)
        normal_ = (self.net.weight[0] - self.net.weight[1]).detach() @ b
        gap = self.net(scored).detach() @ torch.tensor([1.0, -1.0]).double()
        step = -(gap / normal_.square().sum())[:, None] * normal_
        assert (sign * (self.net(x).detach() @ torch.tensor([1.0, -1.0]).double()) > 0).all()
        torch.testing.assert_close(answer.relevance, -step @ b.T, rtol=0, atol=1e-7)
        torch.testing.assert_close(answer.details["distance"], step.norm(dim=1), rtol=0, atol=1e-7)
        torch.testing.assert_close(answer.details["contrast_image"], scored + step @ b.T, rtol=0, atol=1e-7)
        torch.testing.assert_close(answer.details["probabilities"], torch.full((5, 2), 0.5).double())
        assert answer.details["status"].tolist() == [SOLVED] * 5

    def test_the_residual_gives_the_input_itself_at_z0(self):
        """With film, the first frame is I, to the last bit, and the last the contrast image."""
        x = normal(5, 7, seed=3)
        answer = CDeepEx(Latent.of(self.generator, 4), film=4).run(Model(self.net, chunk=5), x)
        film = answer.details["film"]
        assert film.shape == (5, 4, 7)
        assert torch.equal(film[:, 0], x)
        torch.testing.assert_close(film[:, -1], answer.details["contrast_image"])
        torch.testing.assert_close(film[:, 1], x + (film[:, -1] - x) / 3)
        assert "film" not in CDeepEx(Latent.of(self.generator, 4)).run(self.net, x).details


class Ridge(nn.Module):
    """s₀ = x, s₁ = −x, s₂ = 1 − y: the nearest tie of 0 and 1 is where class 2 is the strongest."""

    def forward(self, x):
        return torch.stack((x[:, 0], -x[:, 0], 1 - x[:, 1]), 1)


def itself(size: int) -> nn.Linear:
    layer = nn.Linear(size, size, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(size))
    return layer


class TestThirdClass:
    x = torch.tensor([[2.0, 0.0], [3.0, 0.5]], dtype=torch.float64)
    latent = Latent.of(itself(2), 2)

    def test_cdeepex_keeps_it_below(self):
        answer = CDeepEx(self.latent).run(Ridge(), self.x, Contrast(0, 1))
        expected = torch.tensor([[0.0, 1.05], [0.0, 1.05]], dtype=torch.float64)
        torch.testing.assert_close(answer.details["contrast_image"], expected, rtol=0, atol=5e-3)
        assert all(bool(check.passed.all()) for check in answer.checks)
        assert answer.details["violations"].max() <= 2e-2

    @pytest.mark.parametrize("form", ["boundary", "descent"])
    def test_xgem_does_not(self, form):
        answer = XGEM(self.latent, form=form, weight=0.05).run(Ridge(), self.x, Contrast(0, 1))
        takes_over = {check.name: check for check in answer.checks}["another class takes over"]
        if form == "boundary":
            assert takes_over.values.tolist() == [1, 1]
            foot = self.x * torch.tensor([0.0, 1.0]).double()
            torch.testing.assert_close(answer.details["contrast_image"], foot, rtol=0, atol=1e-7)
            torch.testing.assert_close(answer.details["violations"][:, 1], 1 - self.x[:, 1])
        else:
            assert answer.details["status"].tolist() == [NOT_FOUND] * 2  # the pull is too weak

    def test_the_plain_search_of_xgem_comes_to_the_same_foot(self):
        answer = XGEM(self.latent, search="plain", starts=1).run(Ridge(), self.x, Contrast(0, 1))
        foot = self.x * torch.tensor([0.0, 1.0]).double()
        torch.testing.assert_close(answer.details["contrast_image"], foot, rtol=0, atol=2e-2)
        assert answer.details["forwards"].tolist() == [825] * 2


class Never(nn.Module):
    """Class 2 is always above the mean of the two others."""

    def forward(self, x):
        return torch.stack((x[:, 0], x[:, 1], (x[:, 0] + x[:, 1]) / 2 + 0.5), 1)


def test_what_cannot_be_found_is_not_invented():
    x = normal(3, 2)
    answer = CDeepEx(Latent.of(itself(2), 2), rounds=2, film=3).run(Never(), x, Contrast(0, 1))
    assert answer.details["status"].tolist() == [NOT_FOUND] * 3
    assert answer.details["statuses"][NOT_FOUND].startswith("not found")
    for nothing in (answer.relevance, *(answer.details[name] for name in ("contrast_image", "distance", "film"))):
        assert nothing.isnan().all()
    assert (answer.details["violations"].amax(1) >= 0.5).all()
    assert not {check.name: check for check in answer.checks}["no contrast found"].passed.any()


class TestNonlinear:
    def test_the_answer_is_what_it_says(self, nonlinear):
        latent, net, x = nonlinear
        answer = CDeepEx(latent).run(net, x, Contrast())
        details = answer.details
        scores, end = net(x).detach(), net(details["contrast_image"]).detach()
        ranked = scores.argsort(dim=1, descending=True)
        assert torch.equal(details["classes"], ranked[:, :2])
        assert details["status"].tolist() == [SOLVED] * 6
        pair = end.gather(1, ranked[:, :2])
        assert (pair[:, 0] - pair[:, 1]).abs().max() <= 0.02
        assert (end.gather(1, ranked[:, 2:]) + 0.05 <= pair.amin(1, keepdim=True) + 0.021).all()
        gaps = (pair[:, 0] - pair[:, 1]).abs()
        torch.testing.assert_close(details["violations"][:, 0], gaps, rtol=0, atol=1e-9)
        z0, z_e = details["latents"].unbind(1)
        torch.testing.assert_close(answer.relevance, latent.decode(z0) - latent.decode(z_e))
        torch.testing.assert_close(details["contrast_image"], x + latent.decode(z_e) - latent.decode(z0))
        torch.testing.assert_close(details["distance"], (z_e - z0).norm(dim=1))
        torch.testing.assert_close(details["reconstruction"], latent.distance(x, z0))
        torch.testing.assert_close(details["probabilities"], end.softmax(1).gather(1, ranked[:, :2]))
        before = scores.softmax(1).gather(1, ranked[:, :2])
        one = CDeepEx(latent, starts=1).run(net, x, Contrast()).details
        torch.testing.assert_close(one["trajectory"][:, 0], before)

    def test_all_evaluations_are_counted(self, nonlinear):
        latent, net, x = nonlinear
        passed = []
        handle = net.register_forward_pre_hook(lambda _, given: passed.append(len(given[0])))
        answer = CDeepEx(latent).run(net, x, Contrast())
        handle.remove()
        assert answer.forwards == sum(passed)
        # Beside the search: the prediction, the classes of the pool, and the scores of what was found.
        assert answer.forwards == int(answer.details["forwards"].sum()) + 6 + 128 + 6
        assert answer.backwards == int(answer.details["backwards"].sum())

    def test_more_starts_are_never_farther(self, nonlinear):
        latent, net, x = nonlinear
        one, many = (CDeepEx(latent, starts=n).run(net, x, Contrast()).details["distance"] for n in (1, 5))
        assert (many <= one * (1 + 1e-6)).all()

    @pytest.mark.parametrize("method", [CDeepEx(), XGEM(), XGEM(form="descent", weight=20.0)], ids=repr)
    def test_one_sample_alone_and_other_chunks(self, nonlinear, method):
        latent, net, x = nonlinear
        method = replace(method, latent=latent)
        together = method.run(Model(net, chunk=64), x, Contrast()).relevance
        for chunk in (1, 4):
            other = method.run(Model(net, chunk=chunk), x, Contrast()).relevance
            torch.testing.assert_close(other, together, rtol=1e-6, atol=1e-6, equal_nan=True)
        first = method.run(net, x[:1], Contrast()).relevance
        torch.testing.assert_close(first, together[:1], rtol=1e-6, atol=1e-6, equal_nan=True)

    def test_a_class_is_contrasted_with_its_runner_up(self, nonlinear):
        latent, net, x = nonlinear
        contrast = CDeepEx(latent).run(net, x, Contrast())
        for target in (None, net(x).argmax(1), Logit()):
            torch.testing.assert_close(CDeepEx(latent)(net, x, target), contrast.relevance, rtol=1e-6, atol=1e-6)

    def test_the_plain_search_and_the_paper(self, nonlinear):
        latent, net, x = nonlinear
        plain = CDeepEx.paper(latent).run(net, x, Contrast())
        ours = CDeepEx(latent, margin=0.0).run(net, x, Contrast())
        assert plain.details["forwards"].tolist() == [825] * 6
        assert 5 * (ours.forwards + ours.backwards) < plain.forwards + plain.backwards
        assert plain.details["trajectory"].shape == (6, 825, 2)

    def test_descent_goes_over_the_boundary(self, nonlinear):
        latent, net, x = nonlinear
        answer = XGEM(latent, form="descent", weight=20.0).run(net, x, Contrast())
        found = answer.details["status"] == SOLVED
        assert found.sum() >= 4
        end = net(answer.details["contrast_image"][found]).argmax(1)
        assert torch.equal(end, answer.details["classes"][found, 1])


class TestFamiliarity:
    def test_an_input_that_the_latent_model_does_not_know(self, nonlinear):
        latent, net, x = nonlinear
        x = torch.cat((x[:2], 3 * normal(2, 16, seed=8)))
        answer = CDeepEx(latent, rounds=1).run(net, x, Contrast())
        check = {check.name: check for check in answer.checks}["input unknown to the latent model"]
        limit = float(latent.spread.double()[99])
        torch.testing.assert_close(check.values, answer.details["reconstruction"] / limit, rtol=1e-4, atol=0)
        assert check.values[2:].min() > 1
        assert "does not know this input" in check.says
        assert f"{limit:.3g}" in check.says

    def test_where_the_training_data_are_not_known_nothing_is_said(self, nonlinear):
        _, net, x = nonlinear
        answer = CDeepEx(Latent.of(mlp((6, 24, 16), 0), 6)).run(net, x, Contrast())
        assert "input unknown to the latent model" not in {check.name for check in answer.checks}


class Picture(nn.Module):
    """Draws pictures of one channel from 3 numbers."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side
        self.dense = linear(3, side * side, 4)

    def forward(self, z):
        return torch.tanh(self.dense(z)).view(-1, 1, self.side, self.side)


def test_pictures_of_another_size_are_resized():
    net = nn.Sequential(nn.Flatten(), linear(36, 3, 9))
    small = Picture(4)
    x = torch.nn.functional.interpolate(
        drawn(small, 3, 2), (6, 6), mode="bilinear", align_corners=False, antialias=True
    )
    answer = CDeepEx(Latent.of(small, 3), residual=False).run(net, x, Contrast())
    assert answer.relevance.shape == (2, 1, 6, 6)
    assert answer.details["status"].tolist() == [SOLVED] * 2
    end = net(answer.details["contrast_image"]).gather(1, answer.details["classes"])
    assert (end[:, 0] - end[:, 1]).abs().max() <= 0.02


class TestBadInput:
    latent = Latent.of(linear(3, 6, 0), 3)
    net = linear(6, 3, 5)
    x = normal(2, 6)

    @pytest.mark.parametrize(
        ("run", "error", "says"),
        [
            (lambda s: CDeepEx(s.latent).run(s.net, s.x, Contrast(1, 1)), TargetError, "two different classes"),
            (lambda s: CDeepEx(s.latent).run(s.net, s.x, lambda out: out[:, 0]), TargetError, "why one class and not"),
            (lambda s: CDeepEx(s.latent).run(s.net, s.x, whybox.Neuron("", 1)), TargetError, "why one class and not"),
            (lambda s: CDeepEx(s.latent).run(linear(6, 1, 1), s.x), TargetError, "two classes"),
            (
                lambda s: CDeepEx(s.latent).run(linear(5, 3, 1), normal(2, 5), 0),
                InputError,
                r"shape \(6,\), but the model's inputs have shape \(5,\)",
            ),
            (
                lambda s: CDeepEx(Latent.of(Picture(4), 3)).run(nn.Flatten(), normal(2, 3, 8, 8), 0),
                InputError,
                r"shape \(1, 4, 4\), but the model's inputs have shape \(3, 8, 8\)",
            ),
            (lambda s: CDeepEx(s.latent).run(nn.Sequential(s.net), s.x, at="0"), InputError, "leave `at` out"),
            (lambda s: CDeepEx(s.latent, starts=0), InputError, "starts"),
            (lambda s: CDeepEx(s.latent, margin=-0.1), InputError, "margin"),
            (lambda s: XGEM(s.latent, weight=0.0), InputError, "weight"),
            (lambda s: XGEM(s.latent, steps=0), InputError, "steps"),
        ],
    )
    def test_it_is_refused(self, run, error, says):
        with pytest.raises(error, match=says):
            run(self)

    def test_a_probe_equal_to_the_predicted_class(self):
        predicted = self.net(self.x).argmax(1)
        with pytest.raises(TargetError, match="two different classes"):
            CDeepEx(self.latent).run(self.net, self.x, Contrast(None, predicted))

    def test_a_model_without_gradients(self):
        class Cut(nn.Module):
            def forward(self, x):
                return x.detach() * torch.ones(6, dtype=x.dtype)

        with pytest.raises(ModelError, match="does not depend on the input through operations"):
            CDeepEx(self.latent).run(Cut(), self.x, Contrast(0, 1))


class TestValue:
    latent = Latent.of(linear(3, 6, 0), 3)

    def test_equal_where_the_latent_models_are(self):
        again = CDeepEx(Latent.of(linear(3, 6, 0), 3))
        assert CDeepEx(self.latent) == again
        assert hash(CDeepEx(self.latent)) == hash(again)
        assert CDeepEx(self.latent) != CDeepEx(Latent.of(linear(3, 6, 1), 3))
        assert CDeepEx("a.latent") == CDeepEx("a.latent") != CDeepEx()

    def test_a_configuration_names_the_file_or_the_digest(self):
        assert CDeepEx("a.latent").config()["latent"] == "a.latent"
        assert whybox.method(**CDeepEx("a.latent").config()) == CDeepEx("a.latent")
        config = CDeepEx(self.latent).config()
        assert config["latent"]["digest"] == self.latent.digest
        with pytest.raises(InputError, match=re.escape("known by its digest alone")):
            whybox.method(**config)

    def test_it_can_be_explained_saved_and_taken_apart(self, nonlinear, tmp_path):
        latent, net, x = nonlinear
        explanation = whybox.explain(net, x, CDeepEx(latent, film=3), Contrast())
        explanation.save(tmp_path / "e")
        again = whybox.Explanation.load(tmp_path / "e")
        assert torch.equal(again.details["film"], explanation.details["film"])
        assert again.sample(2).details["status"].shape == (1,)
        assert again.details["statuses"][0] == "solved"


def test_contrast_as_a_target_is_the_cheap_form():
    """Any attribution of Contrast(a, b) is that of the score difference."""
    net, x = linear(6, 3, 5), normal(2, 6)
    expected = x * (net.weight[2] - net.weight[0]).detach()
    numpy.testing.assert_allclose(InputXGradient()(net, x, Contrast(2, 0)).numpy(), expected.numpy(), rtol=1e-12)
    assert not torch.equal(Gradient()(net, x, Contrast(2, 0)), Gradient()(net, x, 2))
