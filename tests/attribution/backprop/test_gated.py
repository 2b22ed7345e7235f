"""Methods that redefine the ReLU's backward: against literal loops, against nets with their ReLUs exchanged by hand."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, Architecture, prepared
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function
from torch.utils.checkpoint import checkpoint
from toy_nets import TOYS, Toy

from whybox import (
    Contrast,
    DeconvNet,
    DeSaLiNet,
    GradCAM,
    Gradient,
    GuidedBackprop,
    GuidedGradCAM,
    Method,
    Model,
    SaliNet,
)
from whybox.core.errors import ModelError

# What arrives at a ReLU's output, and the ReLU's input, to what goes on; and whether LRN is passed over.
BACK: dict[Method, tuple[Callable[[float, float], float], bool]] = {
    GuidedBackprop(): (lambda c, x: c if c > 0 and x > 0 else 0.0, False),
    DeconvNet(): (lambda c, x: c if c > 0 else 0.0, True),
    SaliNet(): (lambda c, x: c if x > 0 else 0.0, False),
    DeSaLiNet(): (lambda c, x: c if c > 0 and x > 0 else 0.0, True),
}
METHODS = list(BACK)
RECTIFIED = [GuidedBackprop(), DeconvNet(), DeSaLiNet()]
by_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(net: nn.Module) -> nn.Module:
    """The net in float64 and eval mode, with parameters and statistics of its own."""
    net = net.double().eval()
    for number, (name, value) in enumerate([*net.named_parameters(), *net.named_buffers()]):
        if value.is_floating_point():
            drawn = draw(*value.shape, seed=number) / max(value[0].numel() if value.ndim > 1 else 1, 1) ** 0.5
            value.data = drawn.abs() + 0.5 if name.endswith("running_var") else drawn
    return net


class Net(nn.Module):
    """Parts, and a function of them and of a ReLU."""

    def __init__(self, run: Callable[..., Tensor], relu: Callable[[Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run, self.relu = run, lambda x: relu(x)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, self.relu, *inputs)


class Reversed(torch.autograd.Function):
    """A ReLU with a backward of its own, for the nets whose ReLUs are exchanged by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, method: Method, highest: float) -> Tensor:
        ctx.method, ctx.highest = method, highest
        ctx.save_for_backward(x)
        return x.clamp(0, highest)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        back, _ = BACK[ctx.method]
        x = torch.where(x < ctx.highest, x, -1)
        flat = [back(c, a) for c, a in zip(given[0].flatten().tolist(), x.flatten().tolist(), strict=True)]
        return torch.tensor(flat, dtype=x.dtype).view_as(x), None, None


def by_hand(method: Method, net: Net, inputs: tuple[Tensor, ...], target: Any = 1, highest: float = 9e9) -> Any:
    """The gradient of the same net with its ReLUs exchanged."""
    exchanged = Net(net.run, lambda x: Reversed.apply(x, method, highest), **dict(net.named_children()))
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = exchanged(*(x.clone() for x in leaves))
    score = output[:, target] if isinstance(target, int) else target(output)
    return torch.autograd.grad(score.sum(), leaves)


# --- A net in literal loops


def literal(net: nn.Sequential, picture: Tensor, target: int, method: Method) -> list[list[list[float]]]:
    """One picture through convolution, ReLU, LRN, max pooling, dense layer, ReLU, dense layer, and back."""
    conv, lrn, pool, one, two = net[0], net[2], net[3], net[5], net[7]
    back, skips_lrn = BACK[method]
    x, w, b = picture.tolist(), conv.weight.tolist(), conv.bias.tolist()
    maps, channels, size = len(w), len(x), len(x[0]) - 1
    grid = [(c, i, j) for c in range(maps) for i in range(size) for j in range(size)]
    z, share, normed = {}, {}, {}
    for c, i, j in grid:
        z[c, i, j] = b[c]
        for k in range(channels):
            for di in range(2):
                for dj in range(2):
                    z[c, i, j] += w[c][k][di][dj] * x[k][i + di][j + dj]
    h = {place: max(value, 0.0) for place, value in z.items()}

    def near(c: int) -> list[int]:
        return [d for d in range(c - lrn.size // 2, c + (lrn.size - 1) // 2 + 1) if 0 <= d < maps]

    for c, i, j in grid:
        share[c, i, j] = lrn.k + lrn.alpha / lrn.size * sum(h[d, i, j] ** 2 for d in near(c))
        normed[c, i, j] = h[c, i, j] / share[c, i, j] ** lrn.beta
    half = size // pool.kernel_size
    switches = [
        max(((c, 2 * p + di, 2 * q + dj) for di in range(2) for dj in range(2)), key=normed.__getitem__)
        for c in range(maps)
        for p in range(half)
        for q in range(half)
    ]
    w1, b1, w2 = one.weight.tolist(), one.bias.tolist(), two.weight.tolist()
    hidden = [
        b1[u] + sum(w1[u][f] * normed[place] for f, place in enumerate(switches)) for u in range(one.out_features)
    ]

    up = [back(w2[target][u], hidden[u]) for u in range(len(hidden))]
    signal = dict.fromkeys(grid, 0.0)
    for f, place in enumerate(switches):
        signal[place] += sum(up[u] * w1[u][f] for u in range(len(hidden)))
    if not skips_lrn:
        above, signal = signal, dict.fromkeys(grid, 0.0)
        for c, i, j in grid:
            signal[c, i, j] += above[c, i, j] / share[c, i, j] ** lrn.beta
            for d in near(c):
                slope = -lrn.beta * share[c, i, j] ** (-lrn.beta - 1) * 2 * lrn.alpha / lrn.size * h[d, i, j]
                signal[d, i, j] += above[c, i, j] * h[c, i, j] * slope
    answer = [[[0.0 for _ in row] for row in channel] for channel in x]
    for c, i, j in grid:
        passed = back(signal[c, i, j], z[c, i, j])
        for k in range(channels):
            for di in range(2):
                for dj in range(2):
                    answer[k][i + di][j + dj] += w[c][k][di][dj] * passed
    return answer


def layered(inplace: bool = False) -> nn.Sequential:
    return filled(
        nn.Sequential(
            nn.Conv2d(2, 4, 2), nn.ReLU(inplace), nn.LocalResponseNorm(3, alpha=0.7, beta=0.6, k=1.2), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(16, 6), nn.ReLU(inplace), nn.Linear(6, 3),
        )
    )  # type: ignore[return-value]  # fmt: skip


@by_method
@pytest.mark.parametrize("inplace", [False, True])
def test_equals_literal_loops(method: Method, inplace: bool) -> None:
    net, x = layered(inplace), draw(3, 2, 5, 5, seed=50)
    wanted = torch.tensor([literal(net, picture, 2, method) for picture in x], dtype=torch.float64)
    assert wanted.any()
    torch.testing.assert_close(method(Model(net, chunk=2), x, 2), wanted, rtol=1e-12, atol=1e-14)


def test_the_four_are_four_on_a_net_with_local_response_normalisation() -> None:
    net, x = layered(), draw(3, 2, 5, 5, seed=50)
    answers = [method(net, x, 2) for method in METHODS]
    for i, one in enumerate(answers):
        for other in answers[:i]:
            assert not torch.allclose(one, other, rtol=0.01)


# --- Where methods coincide: whatever is no ReLU keeps its own gradient, bit for bit


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_coincide_on_toy_nets(toy: Toy) -> None:
    net, inputs = toy.net().requires_grad_(False), toy.example()  # else torch may compute weights' gradients otherwise

    def map(method: Method) -> tuple[Tensor, ...]:
        answer = method(Model(net, chunk=2), inputs if len(inputs) > 1 else inputs[0], 1)
        return answer if isinstance(answer, tuple) else (answer,)

    for one, other in ((SaliNet(), Gradient()), (DeSaLiNet(), GuidedBackprop())):
        assert all(torch.equal(a, b) for a, b in zip(map(one), map(other), strict=True))


WITHOUT_RELU = {
    "EfficientNet-b0", "ConvNeXt-tiny", "timm convnextv2_atto", "transformers ConvNeXt", "ViT-B/16", "Swin-T",
    "timm mixer_s32_224", "timm deit_tiny_patch16_224", "timm eva02_tiny_patch14_224", "timm cait_xxs24_224",
    "nn.TransformerEncoder", "nn.TransformerEncoder, fast path",
    *(architecture.name for architecture in ARCHITECTURES if architecture.at and "DistilBert" not in architecture.name),
}  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_coincide_on_architectures(architecture: Architecture, timm: Any) -> None:
    net, x = prepared(architecture)
    if architecture.name in WITHOUT_RELU:
        with pytest.raises(ModelError, match="plain gradient"):
            SaliNet()(net, x, 1)
        return
    assert torch.equal(SaliNet()(net, x, 1), Gradient()(net, x, 1))
    assert torch.equal(DeSaLiNet()(net, x, 1), GuidedBackprop()(net, x, 1))


def test_an_lrn_is_what_tells_desalinet_from_guided_backprop() -> None:
    net, x = layered(), draw(2, 2, 5, 5)
    assert not torch.equal(DeSaLiNet()(net, x, 1), GuidedBackprop()(net, x, 1))
    net[2] = nn.Identity()
    assert torch.equal(DeSaLiNet()(net, x, 1), GuidedBackprop()(net, x, 1))


# --- Nets with their ReLUs exchanged by hand


def head(n: Net, x: Tensor) -> Tensor:
    return n.out(x.flatten(1))


def residual(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = relu(n.a(x))
    return head(n, relu(h + n.b(relu(n.c(h)))))


def reused(n: Net, relu: Any, x: Tensor) -> Tensor:
    return head(n, relu(n.b(relu(n.b(relu(n.a(x)))))))


def concatenated(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = n.a(x)
    return n.wide(torch.cat([relu(h), relu(-h), h], 1).flatten(1))


def batch_normed(n: Net, relu: Any, x: Tensor) -> Tensor:
    return head(n, relu(n.norm(n.b(relu(n.norm(n.a(x)))))))


def layer_normed(n: Net, relu: Any, x: Tensor) -> Tensor:
    return head(n, relu(F.layer_norm(n.b(relu(n.a(x))), (4, 4))))


def normed_by_hand(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = relu(n.a(x))
    h = (
        (h - h.mean(1, keepdim=True))
        / (h.std(1, keepdim=True) + 0.1)
        * torch.rsqrt(h.square().mean(1, keepdim=True) + 1)
    )
    return head(n, relu(h / (h.norm(dim=1, keepdim=True) + 0.1) - 0.2))


def gated(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = relu(n.a(x))
    return head(n, relu(n.b(h) * torch.sigmoid(n.c(h))) * h.softmax(1))


def other_activations(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = F.leaky_relu(F.gelu(n.b(relu(n.a(x)))).clamp(min=-0.1), inplace=True)
    return head(n, relu(h).clamp_max(0.5) + F.hardtanh(h) + F.threshold(h, 0.1, 0.2) + h.amax(1, keepdim=True))


def maxima(n: Net, relu: Any, x: Tensor) -> Tensor:
    h, g = relu(n.a(x)), n.b(x)
    return head(n, torch.maximum(h, g) + h.max(1, keepdim=True)[0] + torch.max(g, torch.full_like(g, 0.1)))


def in_place(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = n.a(x)
    h += n.b(x)
    h = relu(h).clone()
    h *= 2
    h[:, 0] = relu(n.b(h.clone()))[:, 1]
    h[:, 1].add_(1)
    return head(n, h)


def cut(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = relu(n.a(x))
    with torch.no_grad():
        largest = relu(h).amax((1, 2, 3), keepdim=True)
    return head(n, relu(n.b(h / largest)) + h.detach())


def checkpointed(n: Net, relu: Any, x: Tensor) -> Tensor:
    return head(n, checkpoint(lambda h: relu(n.b(relu(h))), n.a(x), use_reentrant=False))


def functional(n: Net, relu: Any, x: Tensor) -> Tensor:
    h = F.conv2d(x, n.a.weight, n.a.bias, padding=1)
    return head(n, relu(F.interpolate(F.avg_pool2d(relu(h), 2), scale_factor=2.0)).cumsum(1))


NETS = (
    residual, reused, concatenated, batch_normed, layer_normed, normed_by_hand, gated, other_activations, maxima,
    in_place, cut, checkpointed, functional,
)  # fmt: skip


def net_of(run: Callable[..., Tensor], relu: Callable[[Tensor], Tensor] = torch.relu) -> Net:
    parts = {name: nn.Conv2d(i, 3, 3, padding=1) for name, i in (("a", 3), ("b", 3), ("c", 3))}
    return filled(Net(run, relu, **parts, norm=nn.BatchNorm2d(3), out=nn.Linear(48, 3), wide=nn.Linear(144, 3)))  # type: ignore[return-value]


@by_method
@pytest.mark.parametrize("run", NETS, ids=lambda run: run.__name__)
def test_equals_the_net_with_its_relus_exchanged(method: Method, run: Callable[..., Tensor]) -> None:
    net, x = net_of(run), draw(3, 3, 4, 4, seed=9)
    (wanted,) = by_hand(method, net, (x,))
    torch.testing.assert_close(method(Model(net, chunk=2), x, 1), wanted, rtol=1e-10, atol=1e-13)
    if method != SaliNet():
        assert not torch.allclose(wanted, Gradient()(net, x, 1), rtol=0.01)


@by_method
def test_transformer_layers_and_recurrent_cells_keep_their_gradient(method: Method) -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    parts = {"layer": layer, "cell": nn.LSTM(4, 4, batch_first=True), "out": nn.Linear(4, 3)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(lambda n, relu, x: n.out(relu(n.cell(n.layer(x))[0]).sum(1)), torch.relu, **parts).double().eval()
    x = draw(2, 5, 4)
    found = method(net, x, 1)
    layer.activation = lambda x: Reversed.apply(x, method, 9e9)
    (wanted,) = by_hand(method, net, (x,))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


def zeros(x: Tensor) -> Tensor:
    return torch.zeros((), dtype=x.dtype)


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "by name": lambda x: torch.relu(input=x),
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": Tensor.relu_,
    "clamp": lambda x: x.clamp(0),
    "clamp by name": lambda x: torch.clamp(x, min=0.0),
    "clamp in place": lambda x: x.clamp_(min=0),
    "clamp at a tensor": lambda x: x.clamp(min=zeros(x)),
    "clip": lambda x: x.clip(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clamp_min_": lambda x: x.clamp_min_(0),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 1e9),
    "hardtanh module": nn.Hardtanh(0.0, 1e9, inplace=True),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold by name": lambda x: torch.threshold(x, value=0, threshold=0),
    "threshold module": nn.Threshold(0, 0, inplace=True),
    "maximum": lambda x: torch.maximum(x, zeros(x)),
    "max": lambda x: torch.max(zeros(x), x),
    "fmax": lambda x: x.fmax(zeros(x)),
    "a view in place": lambda x: x.view(-1).relu_().view_as(x),
    "a part in place": lambda x: (x[:, :1].relu_(), F.relu(x[:, 1:], inplace=True), x)[-1],
}


@by_method
@pytest.mark.parametrize("name", RELUS)
def test_a_relu_under_any_name(method: Method, name: str) -> None:
    x = draw(3, 3, 4, 4, seed=3)
    wanted = method(net_of(residual), x, 1)
    found = method(net_of(residual, RELUS[name]), x, 1)
    assert torch.equal(found, wanted)


RELU6S: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU6(),
    "module in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "clamp": lambda x: x.clamp(0, 6),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
}


@by_method
@pytest.mark.parametrize("name", RELU6S)
def test_a_relu6_is_closed_above_too(method: Method, name: str) -> None:
    net, x = net_of(residual, RELU6S[name]), 6 * draw(3, 3, 4, 4, seed=3)
    assert (net.a(x) > 6).any()
    (wanted,) = by_hand(method, net, (x,), highest=6.0)
    torch.testing.assert_close(method(net, x, 1), wanted, rtol=1e-10, atol=1e-13)


# --- Properties


@by_method
def test_the_signal_behind_a_relu_is_not_negative(method: Method) -> None:
    net, x = layered(), draw(4, 2, 5, 5)
    signal = method(net, x, 1, at="0")
    assert signal.any()
    assert bool((signal >= 0).all()) == (method in RECTIFIED)


def test_a_deconvnet_without_switches_knows_nothing_of_the_input() -> None:
    net = filled(
        nn.Sequential(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 2))
    )
    one, other = draw(1, 2, 5, 5, seed=1), draw(1, 2, 5, 5, seed=2)
    assert torch.equal(DeconvNet()(net, one, 1), DeconvNet()(net, other, 1))
    assert not torch.equal(GuidedBackprop()(net, one, 1), GuidedBackprop()(net, other, 1))
    net.insert(2, nn.MaxPool2d(3, stride=1, padding=1))
    assert not torch.equal(DeconvNet()(net, one, 1), DeconvNet()(net, other, 1))


@by_method
def test_a_contrast_several_inputs_and_chunks(method: Method) -> None:
    def siamese(n: Net, relu: Any, x: Tensor, y: Tensor) -> Tensor:
        return n.wide(torch.cat([relu(n.a(x)), relu(n.a(y)), relu(n.b(x - y))], 1).flatten(1))

    net, inputs = net_of(siamese), (draw(5, 3, 4, 4, seed=1), draw(5, 3, 4, 4, seed=2))
    wanted = by_hand(method, net, inputs, target=lambda output: output[:, 2] - output[:, 0])
    for chunk in (1, 2, 5):
        found = method(Model(net, chunk=chunk), inputs, Contrast(2, 0))
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


@by_method
def test_a_layer_inside(method: Method) -> None:
    net, x = layered(), draw(3, 2, 5, 5)
    inside, found = net[:1](x).detach(), method(net, x, 1, at="0")
    assert torch.equal(found, method(net[1:], inside, 1))
    assert torch.equal(found, Gradient()(net[1:], inside, 1)) == (method == SaliNet())


def test_guided_grad_cam_is_the_product() -> None:
    net = filled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(5, 3),
        )
    )  # fmt: skip
    x = draw(4, 3, 9, 9)
    maps = net[:4](x).detach()
    coarse = torch.einsum("nk...,k->n...", maps, net[6].weight[1].detach() / 25)[:, None].relu()
    wanted = GuidedBackprop()(net, x, 1) * F.interpolate(coarse, size=(9, 9), mode="bilinear", align_corners=False)
    assert wanted.any()
    answer = GuidedGradCAM("3").run(net, x, 1)
    torch.testing.assert_close(answer.relevance, wanted)
    assert answer.details["layers"] == ("3",)
    assert (answer.forwards, answer.backwards) == (8, 8)
    found = GuidedGradCAM()(net, x, 1)
    torch.testing.assert_close(found, GuidedBackprop()(net, x, 1) * GradCAM()(net, x, 1))


# --- Refusals


def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(0)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return grad[0]


def elsewhere(x: Tensor) -> Tensor:
    """A function of another package, which torch's protocol lets be seen as one call."""
    return handle_torch_function(inner, (x,), x) if torch.overrides.has_torch_function((x,)) else inner(x)


def inner(x: Tensor) -> Tensor:
    return x.relu()


inner.__module__ = "another.package"


def elman(x: Tensor) -> Any:
    return nn.RNN(4, 4, nonlinearity="relu", dtype=x.dtype)(x)[0]


def elman_cell(x: Tensor) -> Any:
    return nn.RNNCell(4, 4, nonlinearity="relu", dtype=x.dtype)(x)


def own_gradient(x: Tensor) -> Tensor:
    return torch.autograd.grad(x.relu().sum(), x, create_graph=True)[0] + x


PARTS: dict[str, tuple[Callable[[], Any], str]] = {
    "scripted": (lambda: scripted().double(), "scripted or traced part"),
    "compiled": (lambda: torch.compile(lambda x: x.relu(), backend="eager"), "compiled part"),
    "autograd function": (lambda: Own.apply, "the autograd function Own"),
    "reentrant checkpoint": (lambda: lambda x: checkpoint(torch.relu, x, use_reentrant=True), "use_reentrant=False"),
    "operator": (lambda: torch.ops.aten.relu, "aten.relu.*ReLUs cannot be seen"),
    "operator's overload": (lambda: torch.ops.aten.relu.default, "aten.relu.*ReLUs cannot be seen"),
    "another package": (lambda: elsewhere, "inner.*ReLUs cannot be seen"),
    "recurrent ReLUs": (lambda: elman, "rnn_relu.*ReLUs cannot be seen"),
    "cell of ReLUs": (lambda: elman_cell, "rnn_relu_cell.*ReLUs cannot be seen"),
    "own gradient": (lambda: own_gradient, "a gradient that the model takes"),
}


class Part(nn.Module):
    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@by_method
@pytest.mark.parametrize("name", PARTS)
def test_what_cannot_be_seen_is_refused_by_name(method: Method, name: str) -> None:
    make, text = PARTS[name]
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Part(make()), nn.Linear(4, 2)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelError, match=f"(?s){text}") as caught:
            method(net, draw(3, 4), 1)
    assert "in module '2" in str(caught.value)


@by_method
def test_without_a_relu_it_would_be_the_gradient(method: Method) -> None:
    net, x = filled(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))), draw(3, 4)
    with pytest.raises(ModelError, match=f"{type(method).__name__} .*plain gradient; use gradient"):
        method(net, x, 1)
    net.append(nn.ReLU())
    assert method(net, x, 1, at="1").shape == x.shape
    with pytest.raises(ModelError, match="no ReLU runs between what is explained and the score"):
        method(net, x, 1, at="3")


def test_a_net_cut_off_from_its_input_is_refused_as_by_the_gradient() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return x.relu()

    with pytest.raises(ModelError, match="does not depend on the input"):
        GuidedBackprop()(Cut(), draw(3, 4), 1)


def test_two_threads_at_once() -> None:
    net, x = net_of(residual), draw(3, 3, 4, 4)
    wanted = {method: method(net, x, 1) for method in METHODS}
    found: dict[Method, list[Tensor]] = {method: [] for method in METHODS}

    def work(method: Method) -> None:
        found[method].extend(method(net, x, 1) for _ in range(10))

    threads = [threading.Thread(target=work, args=(method,)) for method in METHODS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for method in METHODS:
        assert len(found[method]) == 10
        assert all(torch.equal(answer, wanted[method]) for answer in found[method])
