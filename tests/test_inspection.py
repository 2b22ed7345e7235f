"""Inspection: planted nets, one for each pitfall; verdicts where the answer is known; the command."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whybox
from test_cli import folder, run  # noqa: F401 (a fixture)
from whybox import Model, inspect
from whybox.core.errors import InputError
from whybox.core.registry import methods

PICTURE, VECTOR = (3, 6, 6), (5,)
GLUE = ("add", "mul", "cat", "mean", "sum")


class Net(nn.Module):
    """A forward pass over some layers, written down as a function of both."""

    def __init__(self, run, **layers):
        super().__init__()
        torch.manual_seed(0)
        self.run = run
        for name, make in layers.items():
            setattr(self, name, make())

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def dense(a=5, b=5):
    return lambda: nn.Linear(a, b)


def conv(a=3, b=4):
    return lambda: nn.Conv2d(a, b, 3, padding=1)


def norm(**options):
    return lambda: nn.BatchNorm2d(4, **options)


def vgg_like(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4, affine=True), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, bias=bias), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(),
        nn.Linear(16, 8, bias=bias), nn.ReLU(), nn.Linear(8, 3, bias=bias),
    )  # fmt: skip


def look(module, size=VECTOR, **options):
    return inspect(Model(module.eval(), input_size=size), **options)


def found(module, size=VECTOR):
    return {one.name: one for one in look(module, size).pitfalls}


class TestPitfalls:
    @pytest.mark.parametrize(
        ("name", "size", "run", "layers"),
        [
            ("sum of branches", VECTOR, lambda s, x: s.b(s.a(x) + x), {"a": dense(), "b": dense()}),
            ("sum of branches", VECTOR, lambda s, x: s.b(s.a(x).add_(x)), {"a": dense(), "b": dense()}),
            ("sum of branches", VECTOR, lambda s, x: s.b(torch.sub(s.a(x), x)), {"a": dense(), "b": dense()}),
            (
                "concatenation with a tensor that is used elsewhere too",
                VECTOR,
                lambda s, x: s.b(torch.cat([s.a(x), x], 1)),
                {"a": dense(), "b": dense(10)},
            ),
            ("linear map outside a layer", VECTOR, lambda s, x: F.linear(x, s.a.weight), {"a": dense()}),
            ("linear map outside a layer", VECTOR, lambda s, x: x @ s.a.weight, {"a": dense()}),
            (
                "linear map outside a layer",
                PICTURE,
                lambda s, x: s.b(F.conv2d(x, s.a.weight).flatten(1)),
                {"a": conv(), "b": dense(64)},
            ),
            (
                "linear map outside a layer",
                PICTURE,
                lambda s, x: s.b(F.batch_norm(s.a(x), s.n.running_mean, s.n.running_var).flatten(1)),
                {"a": conv(), "n": norm(), "b": dense(144)},
            ),
            (
                "average outside a layer",
                PICTURE,
                lambda s, x: s.b(s.a(x).mean((2, 3))),
                {"a": conv(), "b": dense(4)},
            ),
            (
                "average outside a layer",
                PICTURE,
                lambda s, x: s.b(F.avg_pool2d(s.a(x), 6).flatten(1)),
                {"a": conv(), "b": dense(4)},
            ),
            ("sum over an axis", VECTOR, lambda s, x: s.b(s.a(x).cumsum(1)), {"a": dense(), "b": dense()}),
            ("sum over an axis", PICTURE, lambda s, x: s.b(s.a(x).sum((2, 3))), {"a": conv(), "b": dense(4)}),
            ("layer that runs more than once", VECTOR, lambda s, x: s.a(s.r(s.a(x))), {"a": dense(), "r": nn.ReLU}),
            (
                "product or quotient of two signals",
                VECTOR,
                lambda s, x: s.b(s.a(x) * s.g(x)),
                {"a": dense(), "g": nn.Sigmoid, "b": dense()},
            ),
            (
                "product or quotient of two signals",
                VECTOR,
                lambda s, x: s.a(x) / s.g(x),
                {"a": dense(), "g": nn.Sigmoid},
            ),
            ("arithmetic with constants", VECTOR, lambda s, x: s.a(x) / x.norm(), {"a": dense()}),
            ("arithmetic with constants", VECTOR, lambda s, x: s.a(x / 3), {"a": dense()}),
            ("arithmetic with constants", VECTOR, lambda s, x: s.a(x - 0.5), {"a": dense()}),
            ("activation outside a layer", VECTOR, lambda s, x: s.b(F.gelu(s.a(x))), {"a": dense(), "b": dense()}),
            ("softmax", VECTOR, lambda s, x: s.b(s.a(x).softmax(1)), {"a": dense(), "b": dense()}),
            ("softmax", VECTOR, lambda s, x: s.r(s.a(x)), {"a": dense(), "r": lambda: nn.Softmax(1)}),
            (
                "normalisation by statistics of the sample",
                VECTOR,
                lambda s, x: s.b(s.n(s.a(x))),
                {"a": dense(), "n": lambda: nn.LayerNorm(5), "b": dense()},
            ),
            (
                "attention or recurrence in one operation",
                (4, 5),
                lambda s, x: s.b(s.a(x, x, x, need_weights=False)[0][:, 0]),
                {"a": lambda: nn.MultiheadAttention(5, 1, batch_first=True), "b": dense()},
            ),
            (
                "attention or recurrence in one operation",
                (4, 5),
                lambda s, x: s.a(x)[0][:, -1],
                {"a": lambda: nn.LSTM(5, 3, batch_first=True)},
            ),
            ("operation without a rule", VECTOR, lambda s, x: s.b(s.a(x).cumprod(1)), {"a": dense(), "b": dense()}),
            (
                "batch norm that does not follow its layer",
                PICTURE,
                lambda s, x: s.b(s.n(s.r(s.a(x))).flatten(1)),
                {"a": conv(), "n": norm(), "r": nn.ReLU, "b": dense(144)},
            ),
            (
                "batch norm that does not follow its layer",
                PICTURE,
                lambda s, x: s.d(s.n(s.c(s.m(s.a(x)))).flatten(1)),
                {"a": conv(), "n": norm(), "c": conv(4), "m": norm(), "d": dense(144)},
            ),
            (
                "batch norm declared away from its layer",
                PICTURE,
                lambda s, x: s.b(s.n(s.a(x)).flatten(1)),
                {"n": norm(), "a": conv(), "b": dense(144)},
            ),
            (
                "batch norm without weights",
                PICTURE,
                lambda s, x: s.b(s.n(s.a(x)).flatten(1)),
                {"a": conv(), "n": norm(affine=False), "b": dense(144)},
            ),
        ],
    )
    def test_planted(self, name, size, run, layers) -> None:
        pitfalls = found(Net(run, **layers), size)
        assert list(pitfalls) == [name], "this one, and no other"
        assert pitfalls[name].why

    @pytest.mark.parametrize(
        "module",
        [
            vgg_like(),
            Net(lambda s, x: s.b(s.r(s.c(s.r(s.a(x)))).flatten(1)), a=conv(), c=conv(4), r=nn.ReLU, b=dense(144)),
            Net(lambda s, x: s.b(torch.cat([s.a(x), s.c(x)], 1).relu().flatten(1)), a=conv(), c=conv(), b=dense(288)),
        ],
        ids=["Sequential", "one ReLU used twice", "Inception"],
    )
    def test_none(self, module) -> None:
        seen = look(module, PICTURE)
        assert seen.pitfalls == ()
        assert "would go wrong: nowhere" in str(seen)

    def test_where_and_how_often(self) -> None:
        block = lambda: Net(lambda s, x: x + s.a(x), a=dense())  # noqa: E731
        sums = found(nn.Sequential(block(), block(), nn.Linear(5, 2)))["sum of branches"]
        assert (sums.count, sums.modules, sums.operations) == (2, ("0", "1"), "add")

    def test_what_the_target_does_is_not_the_models(self) -> None:
        seen = look(nn.Linear(5, 3), target=whybox.Contrast(0, 1))
        assert seen.pitfalls == ()
        assert [(one.name, one.modules) for one in seen.operations] == [("torch.nn.functional.linear", ("",))]


class TestOperations:
    def test_they_are_counted_with_their_rules(self) -> None:
        seen = {(one.name.rpartition(".")[2], one.rule): one for one in look(vgg_like(), PICTURE).operations}
        assert seen["conv2d", "flat"].modules == ("0",)
        assert seen["linear", "epsilon"].count == 2
        assert seen["relu", ""].modules == ("2", "5", "10")
        assert seen["batch_norm", "flat"].kind == "batch_norm"

    def test_the_shares_are_those_of_the_trace(self) -> None:
        module, x = vgg_like().eval(), torch.rand(2, *PICTURE)
        seen = inspect(module, x, 1, composite="epsilon")
        trace = whybox.LRP("epsilon").trace(module, x, 1)
        score = trace.score
        assert [one.rule for one in seen.operations if one.kind == "convolution"] == ["epsilon"]
        for cause in ("bias", "epsilon"):
            share = sum(one.absorbed.get(cause, 0.0) for one in seen.operations)
            wanted = float((trace.absorbed[cause].sum(1) * score.sign()).sum() / score.abs().sum())
            assert share == pytest.approx(wanted)
        assert seen.scores == pytest.approx(tuple(score.tolist()))

    def test_a_refused_model_is_listed_all_the_same(self) -> None:
        seen = look(Net(lambda s, x: s.a(x).cumprod(1), a=dense()))
        assert "cumprod" in seen.refusal
        assert [one.kind for one in seen.operations] == ["dense", "unknown"]
        assert seen.refusal in " ".join(str(seen).split())

    def test_what_cannot_be_listed_says_why(self) -> None:
        seen = look(Net(lambda s, x: torch.einsum("ni,ij,jk->nk", x, s.a.weight, s.a.weight), a=dense()))
        assert (seen.operations, seen.pitfalls) == ((), ())
        assert "einsum of more than two" in " ".join(str(seen).split())
        assert {one.method: one.word for one in seen.methods}["gradient"] == "exact"


class TestMethods:
    def test_all_that_are_registered(self) -> None:
        seen = look(vgg_like(), PICTURE)
        assert [one.method for one in seen.methods] == methods()
        assert all(one.why for one in seen.methods)

    def words(self, module, size=PICTURE, **options) -> dict[str, tuple[str, str]]:
        return {one.method: (one.word, one.why) for one in look(module, size, **options).methods}

    def test_a_plain_relu_net_without_biases(self) -> None:
        seen = self.words(vgg_like(bias=False))
        assert {name: seen[name][0] for name in ("lrp", "deep_taylor", "guided_backprop", "input_x_gradient")} == (
            dict.fromkeys(("lrp", "deep_taylor", "guided_backprop", "input_x_gradient"), "exact")
        )
        assert "equals LRP" in seen["input_x_gradient"][1]
        assert seen["cam"][0] == "refused"
        assert seen["grad_cam"][0] == "approximate"

    def test_positive_biases_are_against_deep_taylor(self) -> None:
        module = vgg_like()
        nn.init.constant_(module[4].bias, 0.5)
        assert self.words(module)["deep_taylor"][0] == "approximate"
        assert "biases that are not positive" in self.words(module)["deep_taylor"][1]
        for layer in (0, 1, 4, 9, 11):
            nn.init.constant_(module[layer].bias, -0.01)
        assert self.words(module)["deep_taylor"][0] == "exact"

    def test_other_activations(self) -> None:
        module = nn.Sequential(nn.Linear(5, 5), nn.GELU(), nn.ReLU(), nn.Linear(5, 3))
        seen = self.words(module, VECTOR)
        assert seen["guided_backprop"] == ("approximate", "made for ReLUs; 1 × gelu with a gradient of their own")
        assert seen["lrp"][0] == "approximate"
        assert "does not decompose" in seen["input_x_gradient"][1]
        assert seen["gradient"][0] == "exact"
        assert self.words(nn.Sequential(nn.Linear(5, 5), nn.GELU()), VECTOR)["guided_backprop"][0] == "refused"

    def test_input_x_gradient_equals_lrp_where_it_is_said(self) -> None:
        x = torch.rand(2, 5)
        for activation, equal in ((nn.LeakyReLU(), True), (nn.Hardtanh(-0.1, 0.1), False), (nn.SiLU(), False)):
            torch.manual_seed(1)
            module = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 2))
            said = "equals LRP" in self.words(module, VECTOR)["input_x_gradient"][1]
            lrp = whybox.LRP("epsilon", epsilon=0.0)(module, x, 0)
            assert torch.allclose(lrp, whybox.InputXGradient()(module, x, 0), atol=1e-6) == said == equal

    def test_cam_and_what_generalises_it(self) -> None:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        seen = self.words(module)
        assert (seen["cam"][0], seen["grad_cam"][0]) == ("exact", "exact")
        assert "drawn from 1;" in seen["grad_cam"][1]

    def test_gates_are_shared_by_convention(self) -> None:
        module = Net(lambda s, x: s.b(s.a(x) * torch.sigmoid(s.g(x))), a=dense(), g=dense(), b=dense())
        assert "shared by convention at 1 × mul of two signals" in self.words(module, VECTOR)["lrp"][1]

    def test_asking_for_outputs_only(self) -> None:
        seen = self.words(vgg_like())
        assert seen["occlusion"][0] == "exact"
        assert seen["rise"][0] == "approximate"
        assert "samples" in seen["rise"][1]

    def test_refusals_come_with_their_reason(self) -> None:
        word, why = self.words(Net(lambda s, x: s.a(x).cumprod(1), a=dense()), VECTOR)["lrp"]
        assert word == "refused"
        assert "cumprod" in why

    def test_gates_of_a_recurrent_net_are_constants(self) -> None:
        module = Net(lambda s, x: s.a(x)[0][:, -1], a=lambda: nn.LSTM(5, 3, batch_first=True))
        word, why = self.words(module, (4, 5))["lrp"]
        assert word == "approximate"
        assert "the gates of 1 × lstm count as constants" in why


class TestCall:
    def test_the_model_is_left_as_it_was(self) -> None:
        module = vgg_like().train()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        inspect(Model(module, input_size=PICTURE))
        assert module.training
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_without_a_size_an_input_is_asked_for(self) -> None:
        with pytest.raises(InputError, match="give an input"):
            inspect(nn.Linear(5, 3))

    def test_random_values_lie_in_the_domain(self) -> None:
        domain = whybox.Domain((-2.0, 0.0), (-1.0, 5.0))
        noise = Model(nn.Linear(1, 1), domain=domain, input_size=(2, 8, 8)).noise()
        assert noise is not None
        assert -2 <= noise[:, 0].min() <= noise[:, 0].max() <= -1
        assert 0 <= noise[:, 1].min() < 1 < 4 < noise[:, 1].max() <= 5

    def test_json(self) -> None:
        nothing = nn.Linear(5, 2)
        nn.init.zeros_(nothing.weight)
        nn.init.zeros_(nothing.bias)
        for module in (nothing, nn.Linear(5, 2)):
            seen = look(module)
            text = json.dumps(seen.as_json(), allow_nan=False)
            assert json.loads(text)["methods"][0]["word"] == seen.methods[0].word


@pytest.mark.usefixtures("folder")
class TestCommand:
    def test_text(self) -> None:
        result = run("inspect", "digits", "one.png")
        assert result.exit_code == 0
        for line in ("on one input.", "conv2d ", "Methods", "integrated_gradients", "would go wrong: nowhere"):
            assert line in result.stdout

    def test_json(self) -> None:
        record = json.loads(run("inspect", "digits", "--json", "--composite", "epsilon").stdout)
        assert record["inputs"] == "random values"
        assert record["composite"] == "epsilon"
        assert {one["rule"] for one in record["operations"]} == {"", "epsilon"}

    def test_a_model_of_ones_own(self) -> None:
        assert "linear " in run("inspect", "models.py:flat").stdout
        result = run("inspect", "models.py:any_size", "wide.png")
        assert result.exit_code == 0
        assert "adaptive_avg_pool2d" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            (("models.py:any_size",), 2, "give an input"),
            (("models.py:misfit",), 1, "fails on an input of shape"),
            (("nothing",), 2, "there is no model"),
            (("digits", "none.png"), 2, "none.png"),
            (("loaded.py:make", "text.png"), 2, "text.png"),
            (("loaded.py:make", "--composite", "epsilom"), 2, "did you mean 'epsilon'"),
        ],
    )
    def test_errors(self, arguments: tuple[str, ...], code: int, says: str) -> None:
        result = run("inspect", *arguments)
        assert says in result.stderr
        assert result.exit_code == code
        assert result.stdout == ""
        assert Path("loaded.py").is_file()
