"""DeepLIFT: literal loops on every toy net, closed forms, identities, and what other implementations get wrong."""

import math
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, Architecture, prepared
from difference_reference import Differences, Value
from jaxtyping import TypeCheckError
from test_gated import draw, filled
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from toy_nets import TOYS, Toy
from unrolled import Unrolled

from whybox import LRP, Constant, DeepLIFT, Gradient, IntegratedGradients, Model, UniformNoise
from whybox.core.errors import InputError, ModelError
from whybox.core.tree import as_tuple
from whybox.models.torchvision_models import import_torchvision

by_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
by_rule = pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])


class Net(nn.Module):
    """Parts, and a function that runs them."""

    def __init__(self, run: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


class Rows(TorchDispatchMode):
    """Which operations have run, and on how many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, int]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.ndim:
            self.rows.append((str(function.overloadpacket), len(output)))
        return output


def summed(method: DeepLIFT, net: nn.Module, *inputs: Tensor, model: Model | None = None) -> tuple[float, Any]:
    """The worst difference between the relevance's sum and the model's own two scores; and the answer."""
    target = 1
    answer = method.run(model or net, inputs if len(inputs) > 1 else inputs[0], target)
    starts = as_tuple(answer.details["baseline"])
    with torch.no_grad():
        change = net(*(x.clone() for x in inputs)) - net(*(b.clone() for b in starts))
    total = sum(r.flatten(1).sum(1) for r in as_tuple(answer.relevance))
    return float((total - change[:, target]).abs().max()), answer


def reference(toy: Toy, net: nn.Module, inputs: tuple[Tensor, ...], starts: tuple[Tensor, ...], rule: str) -> Any:
    rows = []
    for sample in range(len(inputs[0])):
        at = slice(sample, sample + 1)
        loops = Differences(rule)
        values = [loops.keep(Value(x[at], b[at])) for x, b in zip(inputs, starts, strict=True)]
        with torch.no_grad():
            output = toy.steps(loops, net, *values)
            assert output.a[1] == pytest.approx(net(*(x[at].clone() for x in inputs))[0, 1].item(), rel=1e-9)
        loops.relevance(output, 1)
        parts = [(v.parts(), v.multipliers, v.data.shape) for v in values]
        rows.append([torch.from_numpy(p * mp + n * mn).view(shape) for (p, n), (mp, mn), shape in parts])
    return tuple(map(torch.cat, zip(*rows, strict=True)))


@by_toy
@by_rule
def test_every_net_is_the_literal_reference_and_the_sum_is_the_difference_of_scores(toy: Toy, rule: Any) -> None:
    net, inputs = toy.net(), toy.example()
    for baseline in (Constant(0.0), UniformNoise()):
        gap, answer = summed(DeepLIFT(rule, baseline), net, *inputs)
        assert gap <= 1e-9
        assert bool((answer.checks[0].values <= 1e-9).all())
        if rule == "reveal_cancel" and toy.name in ("gelu by tanh", "gelu by erf", "root mean square norm by hand"):
            continue  # loops of their own would be needed: what is spelled out is no one curve of the parts
        wanted = reference(toy, net, inputs, as_tuple(answer.details["baseline"]), rule)
        size = max(float(w.abs().max()) for w in wanted)
        for found, want in zip(as_tuple(answer.relevance), wanted, strict=True):
            assert float((found - want).abs().max()) <= 1e-9 * size


class TestIdentities:
    @by_toy
    def test_at_a_zero_baseline_without_biases_it_is_lrp_0(self, toy: Toy) -> None:
        """Zhang et al., section 3.3: on piecewise linear nets without constants, where LRP-0 is input × gradient."""
        if not (toy.piecewise and toy.conserves) or "norm" in toy.name:
            pytest.skip("not piecewise linear, or with constants")
        net, inputs = toy.net(bias=False), toy.example()
        x = inputs if len(inputs) > 1 else inputs[0]
        for found, wanted in zip(
            as_tuple(DeepLIFT()(net, x, 1)), as_tuple(LRP("epsilon", epsilon=1e-30)(net, x, 1)), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)

    def test_close_to_the_baseline_it_is_gradient_times_difference(self) -> None:
        net = filled(nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 4), nn.Softmax(-1)))
        x = 1e-5 * draw(3, 5)
        want = x * Gradient()(net, x, 1)
        torch.testing.assert_close(DeepLIFT()(net, x, 1), want, rtol=2e-4, atol=1e-12)

    def test_on_one_nonlinear_unit_it_is_integrated_gradients(self) -> None:
        for curve in (nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.Softplus()):
            net, x = filled(nn.Sequential(nn.Linear(5, 1), curve)), draw(4, 5)
            want = IntegratedGradients(steps=256, baseline=Constant(0.3))(net, x, 0)
            torch.testing.assert_close(DeepLIFT(baseline=Constant(0.3))(net, x, 0), want, rtol=1e-2, atol=1e-3)

    def test_of_what_is_quadratic_it_is_integrated_gradients(self) -> None:
        weight = draw(4, 4)
        net, x = Net(lambda n, x: ((x @ weight) * x).sum(1, keepdim=True)), draw(3, 4, seed=1)
        want = IntegratedGradients(steps=4, baseline=Constant(0.3))(net, x, 0)
        torch.testing.assert_close(DeepLIFT(baseline=Constant(0.3))(net, x, 0), want)

    def test_positively_homogeneous_nets_scale(self) -> None:
        net = filled(nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)))
        x = draw(3, 5)
        for rule in ("rescale", "reveal_cancel"):
            torch.testing.assert_close(DeepLIFT(rule)(net, 3 * x, 1), 3 * DeepLIFT(rule)(net, x, 1))

    def test_the_baseline_gets_nothing(self) -> None:
        net, x = filled(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))), torch.full((1, 3), 0.25).double()
        assert bool((DeepLIFT(baseline=Constant(0.25))(net, x, 1) == 0).all())


def minimum(_n: Any, x: Tensor) -> Tensor:
    """min(i₁, i₂) as in figure 2 of the paper: i₁ − ReLU(i₁ − i₂)."""
    first, second = x[:, :1], x[:, 1:]
    return first - torch.relu(first - second)


class TestThePaper:
    def test_saturation(self) -> None:
        """Figure 1: y = min(1, i₁ + i₂) by 1 − ReLU(1 − i₁ − i₂) is flat at (1, 1), where gradients are zero."""
        net, x = Net(lambda n, x: 1 - torch.relu(1 - x.sum(1, keepdim=True))), torch.ones(1, 2).double()
        torch.testing.assert_close(DeepLIFT()(net, x, 0), torch.full((1, 2), 0.5).double())
        assert bool((Gradient()(net, x, 0) == 0).all())

    def test_thresholding(self) -> None:
        """Figure 3: a bias of −10 makes no jump: ReLU(x − 10) at 10 + ε gets ε."""
        net, x = Net(lambda n, x: torch.relu(x - 10)), torch.full((1, 1), 10.001).double()
        torch.testing.assert_close(DeepLIFT()(net, x, 0), x - 10)

    @pytest.mark.parametrize(("first", "second"), [(3.0, 2.0), (2.0, 3.0), (1.0, 1.0)])
    def test_minimum_gives_all_to_one_by_rescale_and_half_to_each_by_reveal_cancel(
        self, first: float, second: float
    ) -> None:
        """Section 3.5.3, for i₁ > i₂: by Rescale (and gradients) i₁ gets nothing of min; RevealCancel halves it."""
        net, x = Net(minimum), torch.tensor([[first, second]]).double()
        least = min(first, second)
        by_rescale = [0.0, second] if first > second else [first, 0.0]
        assert DeepLIFT("rescale")(net, x, 0).tolist() == [by_rescale]
        assert DeepLIFT("reveal_cancel")(net, x, 0)[0].tolist() == pytest.approx([least / 2, least / 2])

    def test_positive_and_negative_parts_of_one_relu(self) -> None:
        """h = ReLU(2 i₁ − i₂ + b): Δ⁺ = 2 i₁, Δ⁻ = −i₂, each averaged over being added first and last."""
        net, x = Net(lambda n, x: torch.relu(x @ torch.tensor([[2.0], [-1.0]]).double() + 0.5)), draw(6, 2).abs()
        for (p, n), found in zip(
            (x * torch.tensor([2, -1])).tolist(), DeepLIFT("reveal_cancel")(net, x, 0), strict=True
        ):

            def relu(v: float) -> float:
                return max(v + 0.5, 0.0)

            rises = (relu(p) - relu(0) + relu(p + n) - relu(n)) / 2
            falls = (relu(n) - relu(0) + relu(p + n) - relu(p)) / 2
            assert found.tolist() == pytest.approx([rises, falls])


class TestWhatOthersGetWrong:
    """Captum: a module that runs twice (#1085) and functional activations (#1082) are not, or wrongly, explained."""

    def shared(self, reused: bool) -> nn.Module:
        relu = nn.ReLU()
        parts = {"a": nn.Linear(4, 5), "b": nn.Linear(5, 5), "out": nn.Linear(5, 2), "r": relu}
        parts["s"] = relu if reused else nn.ReLU()
        return filled(Net(lambda n, x: n.out(n.s(n.b(n.r(n.a(x))))), **parts))

    def test_a_relu_that_is_used_twice(self) -> None:
        x, once = draw(3, 4), DeepLIFT()(self.shared(False), draw(3, 4), 1)
        gap, answer = summed(DeepLIFT(), self.shared(True), x)
        assert gap < 1e-12
        assert torch.equal(answer.relevance, once)

    @pytest.mark.parametrize(
        "relu",
        [
            F.relu, torch.relu, Tensor.relu, lambda h: F.relu(h, inplace=True), lambda h: h.clone().relu_(),
            lambda h: h.clamp(min=0), lambda h: torch.maximum(h, torch.zeros_like(h)), lambda h: h * (h > 0),
            lambda h: torch.where(h > 0, h, 0.0), lambda h: h.masked_fill(h < 0, 0.0), lambda h: (h + h.abs()) / 2,
            lambda h: F.threshold(h, 0.0, 0.0), lambda h: -torch.minimum(-h, torch.zeros_like(h)),
        ],
    )  # fmt: skip
    def test_a_relu_by_any_name(self, relu: Any) -> None:
        x, want = draw(3, 4), DeepLIFT()(self.shared(False), draw(3, 4), 1)
        plain = self.shared(False)
        net = Net(lambda n, x: plain.out(relu(plain.b(relu(plain.a(x))))))
        gap, answer = summed(DeepLIFT(), net, x)
        assert gap < 1e-12
        torch.testing.assert_close(answer.relevance, want)

    def test_overlapping_pools_whose_winners_differ(self) -> None:
        net = filled(Net(lambda n, x: n.o(F.max_pool2d(n.a(x), 3, 2, 1).flatten(1)), a=nn.Conv2d(1, 2, 3, padding=1),
                         o=nn.Linear(18, 2)))  # fmt: skip
        assert summed(DeepLIFT(baseline=UniformNoise()), net, draw(4, 1, 5, 5))[0] < 1e-12

    def test_the_winner_that_lost_less_gets_the_multiplier_below_one(self) -> None:
        net = Net(lambda n, x: x.amax(1, keepdim=True))
        x, start = torch.tensor([[1.0, 3.0, 2.0]]).double(), Constant(5.0)
        assert DeepLIFT(baseline=start)(net, x, 0).tolist() == [[0.0, -2.0, 0.0]]
        steep = Net(lambda n, x: (x * torch.tensor([1.0, 1.0, 2.0])).amax(1, keepdim=True))  # 4 here; 10 there
        assert DeepLIFT(baseline=start)(steep, x, 0).tolist() == [[0.0, 0.0, -6.0]]


class TestOperations:
    """Sums on what the toy nets have not; each with a baseline that differs everywhere."""

    @pytest.mark.parametrize(
        "run",
        [
            lambda n, h: h / (1 + h.abs().sum(1, keepdim=True)), lambda n, h: h / n.b(h),
            lambda n, h: 1 / (2 + h.tanh()),
            lambda n, h: torch.maximum(h, n.b(h)), lambda n, h: torch.minimum(h, n.b(h)), lambda n, h: h**3,
            lambda n, h: h.sigmoid() ** n.b(h), lambda n, h: 2.0**h,
            lambda n, h: torch.addcmul(h, h, n.b(h), value=2.0),
            lambda n, h: torch.addcdiv(h, h, 3 + n.b(h).tanh()), lambda n, h: torch.where(h > 0, h, n.b(h)),
            lambda n, h: h.masked_fill(h > 0.5, 0.1), lambda n, h: h.cumsum(1),
            lambda n, h: h * h * n.b(h), lambda n, h: torch.einsum("ni,nj->ni", h, n.b(h)),
            lambda n, h: F.glu(torch.cat([h, n.b(h)], 1)),
            lambda n, h: (h[:, :, None] @ n.b(h)[:, None]).mean(2), lambda n, h: h.softmax(1),
            lambda n, h: F.log_softmax(h, 1),
            lambda n, h: h - h.logsumexp(1, keepdim=True), lambda n, h: h.exp() / h.exp().sum(1, keepdim=True),
            lambda n, h: h - h.max(1, keepdim=True).values, lambda n, h: h - h.amin(1, keepdim=True),
            lambda n, h: h - h.max(1)[0][:, None],
            lambda n, h: F.normalize(h), lambda n, h: h / h.norm(dim=1, keepdim=True),
            lambda n, h: F.rms_norm(h, (6,)),
            lambda n, h: h * torch.rsqrt(h.square().mean(1, keepdim=True) + 1e-6),
            lambda n, h: (h - h.mean(1, keepdim=True)) / h.std(1, keepdim=True),
            lambda n, h: torch.var_mean(h, 1)[0][:, None] * h, lambda n, h: F.group_norm(h, 2),
            lambda n, h: h.view(-1, 2, 3).max(2).values.repeat(1, 3),
            lambda n, h: F.instance_norm(h.view(-1, 2, 3)).flatten(1),
            lambda n, h: F.local_response_norm(h.view(-1, 3, 2), 2).flatten(1),
            lambda n, h: torch.lerp(h, n.b(h), 0.3), lambda n, h: h.sign() * h.abs().sqrt(),
            lambda n, h: h.round(), lambda n, h: h.detach() * n.b(h),
            lambda n, h: torch.linalg.vector_norm(h, 3, 1, True) * h, lambda n, h: F.dropout(h, 0.5, False),
            lambda n, h: torch.baddbmm(h[:, None], h[:, None], h[:, :, None] * h[:, None])[:, 0],
        ],
    )  # fmt: skip
    def test_the_sum_and_the_model_untouched(self, run: Any) -> None:
        parts = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 6), "out": nn.Linear(6, 2)}
        net = filled(Net(lambda n, x: n.out(run(n, n.a(x))), **parts))
        before = {name: value.clone() for name, value in net.state_dict().items()}
        for rule in ("rescale", "reveal_cancel"):
            gap, answer = summed(DeepLIFT(rule, UniformNoise()), net, draw(3, 4))
            assert gap < 1e-9
            assert "chosen by the input" not in answer.details
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())

    @pytest.mark.parametrize(
        "write",
        [
            lambda h, b: h.add_(b), lambda h, b: h[:, :3].mul_(b[:, 3:]),
            lambda h, b: h.__setitem__((slice(None), 0), b[:, 1]),
            lambda h, b: h.view(-1, 2, 3)[:, 0].copy_(b[:, :3]), lambda h, b: h.t().relu_(),
            lambda h, b: h.chunk(2, 1)[1].sigmoid_(),
            lambda h, b: h.masked_fill_(b > 0, 0.3), lambda h, b: h.fill_(0.3),
        ],
    )  # fmt: skip
    def test_writing_in_place(self, write: Any) -> None:
        def run(n: Any, x: Tensor) -> Tensor:
            h = n.a(x)
            write(h, n.b(h))
            return n.out(h.relu())

        net = filled(Net(run, a=nn.Linear(4, 6), b=nn.Linear(6, 6), out=nn.Linear(6, 2)))
        for rule in ("rescale", "reveal_cancel"):
            assert summed(DeepLIFT(rule, UniformNoise()), net, draw(3, 4))[0] < 1e-12

    def test_a_constant_that_is_written_into(self) -> None:
        def run(n: Any, x: Tensor) -> Tensor:
            out = torch.ones(len(x), 4, dtype=x.dtype)
            rows = out[:, 1:3]
            rows.copy_(x[:, :2])
            out[:, 3] = x[:, 3] * x[:, 2]
            return n.out(out.tanh())

        net = filled(Net(run, out=nn.Linear(4, 2)))
        assert summed(DeepLIFT(baseline=UniformNoise()), net, draw(3, 4))[0] < 1e-12

    def test_softmax_against_its_definition(self) -> None:
        net, x, b = nn.Softmax(1), draw(1, 4), 0.0
        s, t = x.softmax(1)[0].tolist(), [0.25] * 4
        mean = [(p - q) / math.log(p / q) for p, q in zip(s, t, strict=True)]
        step = [v - b for v in x[0].tolist()]
        shift = sum(m * d for m, d in zip(mean, step, strict=True)) / sum(mean)
        want = [mean[2] * ((d if i == 2 else 0) - mean[i] * d / sum(mean)) for i, d in enumerate(step)]
        found = DeepLIFT()(net, x, 2)[0].tolist()
        assert found == pytest.approx(want)
        assert sum(found) == pytest.approx(mean[2] * (step[2] - shift)) == pytest.approx(s[2] - 0.25)

    def test_softmax_of_distant_and_masked_scores(self) -> None:
        mask = torch.tensor([0.0, 0.0, -torch.inf, 0.0])
        net = Net(lambda n, x: (x + mask).softmax(1))
        for size in (1.0, 300.0):
            gap, answer = summed(DeepLIFT(), net, size * draw(2, 4))
            assert gap < 1e-9
            assert bool((answer.relevance[:, 2] == 0).all())
            assert bool(torch.isfinite(answer.relevance).all())

    def test_normalising_a_blank_baseline_does_not_blow_up(self) -> None:
        """Its deviation is √ε; a quotient by that alone would be thousands, squared from layer to layer."""
        blocks = [part for _ in range(6) for part in (nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.GELU())]
        net, x = filled(nn.Sequential(*blocks, nn.Linear(8, 2))), draw(4, 8)
        for part in net.modules():
            if isinstance(part, nn.LayerNorm):
                nn.init.zeros_(part.bias)
        gap, answer = summed(DeepLIFT(), net, x)
        assert gap < 1e-9
        assert float(answer.relevance.abs().max()) < 1e4

    def test_an_index_that_the_input_chooses_is_told(self) -> None:
        net = Net(lambda n, x: x.gather(1, x.argsort(1)))
        answer = DeepLIFT(baseline=UniformNoise()).run(net, draw(3, 4), 1)
        assert answer.details["chosen by the input"] == ("in ''",)

    def test_unknown_operations_are_refused_by_name(self) -> None:
        for run, name in ((lambda n, x: torch.fft.fft(x).abs(), "fft"), (lambda n, x: x.cumprod(1), "cumprod"),
                          (lambda n, x: x.quantile(0.5, 1, True), "quantile")):  # fmt: skip
            with pytest.raises(ModelError, match=name):
                DeepLIFT()(Net(run), draw(2, 4), 0)

    @pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
    @pytest.mark.parametrize("after", ["product", "dense", "in place", "activation"])
    @pytest.mark.parametrize("what", ["cumprod", "sort", "Double"])
    def test_what_is_refused_stays_so_whatever_follows(self, rule: Any, after: str, what: str) -> None:
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return 2 * x

            @staticmethod
            def backward(ctx: Any, *c: Tensor) -> Tensor:
                return 2 * c[0]

        unknown = {"cumprod": lambda x: x.cumprod(1), "sort": lambda x: x.sort(1)[0], "Double": Double.apply}[what]
        follow = {
            "product": lambda n, x: n.b(unknown(n.a(x)) * 2),
            "dense": lambda n, x: n.b(unknown(n.a(x))),
            "in place": lambda n, x: n.b(unknown(n.a(x)).mul_(2)),
            "activation": lambda n, x: n.b(unknown(n.a(x)).sigmoid()),
        }[after]
        net = Net(follow, a=nn.Linear(4, 3), b=nn.Linear(3, 2)).double()
        with pytest.raises(ModelError, match=what):
            DeepLIFT(rule)(net, draw(2, 4), 0)

    @pytest.mark.parametrize("function", [torch.sort, torch.median, torch.topk])
    def test_what_is_refused_keeps_the_names_of_its_parts(self, function: Any) -> None:
        more = (2,) if function is torch.topk else ()
        net = Net(lambda n, x: n.last(function(x, *more, dim=1).values.view(len(x), -1)[:, :1]), last=nn.Linear(1, 2))
        with pytest.raises(ModelError, match=function.__name__):
            DeepLIFT()(Model(net), torch.rand(2, 5), 0)

    def test_what_cannot_be_seen_is_refused(self) -> None:
        class Twice(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return 2 * x

            @staticmethod
            def backward(ctx: Any, *c: Tensor) -> Tensor:
                return 2 * c[0]

        with pytest.raises(ModelError, match="Twice"):
            DeepLIFT()(Net(lambda n, x: Twice.apply(x)), draw(2, 4), 0)

    def test_a_batch_norm_in_training_is_refused(self) -> None:
        net = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)).double()
        with pytest.raises(ModelError, match="samples mix"):
            DeepLIFT()(net, draw(3, 4), 0)


def recurrent(cell: type[nn.RNNBase], **options: Any) -> nn.Module:
    run, out = cell(4, 5, batch_first=True, **options), nn.Linear(10 if options else 5, 2)
    return Net(lambda n, x: n.o(n.r(x)[0].sum(1)), r=run, o=out)


def packed(n: Any, x: Tensor) -> Tensor:
    rows = nn.utils.rnn.pack_padded_sequence(x, [6, 4, 2], batch_first=True)
    return n.o(nn.utils.rnn.pad_packed_sequence(n.r(rows)[0], batch_first=True)[0].sum(1))


def attentive(mask: Tensor | None = None, causal: bool = False) -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        return n.o(F.scaled_dot_product_attention(n.q(x), n.k(x), n.v(x), mask, is_causal=causal).sum(1))

    return Net(run, o=nn.Linear(4, 2), **{name: nn.Linear(4, 4) for name in "qkv"})


BOTH_WAYS = {"num_layers": 2, "bidirectional": True}


class TestSequences:
    @pytest.mark.parametrize(
        "net",
        [
            *(recurrent(cell, **options) for cell in (nn.LSTM, nn.GRU, nn.RNN) for options in ({}, BOTH_WAYS)),
            Net(packed, r=nn.LSTM(4, 5, batch_first=True, bidirectional=True), o=nn.Linear(10, 2)),
            Net(lambda n, x: n.o(n.r(x[:, 0])[0]), r=nn.LSTMCell(4, 5), o=nn.Linear(5, 2)),
            Net(lambda n, x: n.o(n.r(x[:, 0])), r=nn.GRUCell(4, 5), o=nn.Linear(5, 2)),
            Net(lambda n, x: n.o(n.m(x, x, x)[0].sum(1)), o=nn.Linear(4, 2),
                m=nn.MultiheadAttention(4, 2, batch_first=True)),
            Net(lambda n, x: n.o(n.e(x).sum(1)), o=nn.Linear(4, 2),
                e=nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)),
            attentive(), attentive(causal=True), attentive(torch.ones(6, 6, dtype=torch.bool).tril(1)),
        ],
    )  # fmt: skip
    def test_recurrence_and_attention(self, net: nn.Module) -> None:
        net = Model(filled(net), chunk=3)
        for rule in ("rescale", "reveal_cancel"):
            gap, answer = summed(DeepLIFT(rule, UniformNoise()), net.module, draw(3, 6, 4), model=net)
            assert gap < 1e-9
            assert "chosen by the input" not in answer.details

    @pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
    def test_torchs_own_net_is_the_same_net_written_out(self, cell: type[nn.RNNBase]) -> None:
        net, x = filled(cell(4, 5, batch_first=True, **BOTH_WAYS)), draw(3, 6, 4)
        own, written = (Net(lambda n, x: n.r(x)[0].sum(1), r=run) for run in (net, Unrolled(net, False)))
        torch.testing.assert_close(DeepLIFT()(own, x, 1), DeepLIFT()(written, x, 1))

    def test_attention_is_the_same_written_out(self) -> None:
        net, x = filled(attentive()), draw(3, 6, 4)

        def run(n: Any, x: Tensor) -> Tensor:
            return n.o(((n.q(x) @ n.k(x).transpose(1, 2) / 2).softmax(-1) @ n.v(x)).sum(1))

        written = Net(run, **dict(net.named_children()))
        torch.testing.assert_close(DeepLIFT()(net, x, 1), DeepLIFT()(written, x, 1))


WHOLE = ("ResNet-18", "DenseNet-121", "MobileNet-v3", "ConvNeXt-tiny", "U-Net")


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a.name in WHOLE], ids=lambda a: a.name)
def test_whole_architectures(architecture: Architecture) -> None:
    net, x = prepared(architecture)
    for baseline in (Constant(0.0), UniformNoise()):
        _, answer = summed(DeepLIFT(baseline=baseline), net, x)
        scores = [net(run).detach()[:, 1] for run in (x, answer.details["baseline"])]
        gap = (answer.relevance.flatten(1).sum(1) - (scores[0] - scores[1])).abs()
        assert bool((gap <= 1e-4 * torch.stack(scores).abs().amax(0).clamp_min(answer.relevance.abs().max())).all())


def test_a_vision_transformer() -> None:
    torch.manual_seed(0)
    vit = import_torchvision().models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3).double().eval()
    nn.init.normal_(vit.heads.head.weight)
    assert summed(DeepLIFT(), vit, draw(2, 3, 32, 32))[0] < 1e-9


class TestTheMethod:
    def test_a_wrong_rule(self) -> None:
        with pytest.raises((InputError, TypeCheckError), match="reveal_cancel"):
            DeepLIFT(rule="linear")  # type: ignore[arg-type]

    def test_cost(self) -> None:
        net, x = filled(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))), draw(5, 4)
        answer = DeepLIFT().run(net, x, 1)
        assert (answer.forwards, answer.backwards) == (10, 5)

    def test_the_same_baseline_for_all_runs_as_one_row(self) -> None:
        kernel = draw(1, 1, 3, 3)  # as many images as channels: neither weight may be taken for repeated rows
        net = Net(
            lambda n, x: n.rest(F.conv2d(x, kernel.expand(3, 1, 3, 3), groups=3)),
            rest=filled(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                      nn.Dropout(), nn.Linear(12, 2)).eval()),
        )  # fmt: skip
        x, seen = draw(3, 3, 8, 8), Rows()
        with seen:
            answer = DeepLIFT().run(Model(net, chunk=3), x, 1)
        dear = [rows for name, rows in seen.rows if name in ("aten.convolution", "aten.addmm", "aten.relu")]
        assert sorted(dear) == [1] * 4 + [3] * 4
        assert bool(answer.checks[0].passed.all())
        single = torch.cat([DeepLIFT()(net, x[i : i + 1], 1) for i in range(3)])
        torch.testing.assert_close(answer.relevance, single)

    def test_a_layer_inside(self) -> None:
        net, x = filled(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))), draw(5, 4)
        inside = net[:2](x).detach()
        torch.testing.assert_close(DeepLIFT().run(net, x, 1, at="1").relevance, inside * net[2].weight[1].detach())

    def test_control_flow_that_differs_at_the_baseline_is_seen_by_the_models_own_scores(self) -> None:
        net = Net(lambda n, x: 2 * x if bool((x > 0).all()) else x + 1)
        x = draw(2, 3).abs() + 0.1
        model = Model(net)
        answer = DeepLIFT().run(model, x, 1)
        _, (check,) = DeepLIFT().evidence(model, x, answer.target)
        assert bool(answer.checks[0].passed.all())
        assert not bool(check.passed.any())

    def test_nothing_stays_behind_on_buffers(self) -> None:
        net = Net(lambda n, x: n.count.copy_(x[0]) * x)
        net.register_buffer("count", torch.zeros(3).double())
        DeepLIFT()(net, draw(2, 3), 1)
        assert net.count.grad_fn is None
        assert not vars(net.count)
