"""Patterns: against their definition in literal loops, against known signals, and where there are none."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import Net
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from toy_nets import MAPS, TOYS, Toy

import whybox
from whybox import Contrast, Fitted, Logit, Method, Model, Neuron, PatternAttribution, PatternNet, SmoothGrad
from whybox.core.errors import InputError, ModelError

Array = NDArray[np.float64]
METHODS: list[Method] = [
    PatternNet(), PatternAttribution(), PatternNet(estimator="linear"), PatternAttribution(estimator="linear"),
]  # fmt: skip
by_method = pytest.mark.parametrize("method", METHODS, ids=repr)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(net: nn.Module) -> nn.Module:
    """The net in float64 and eval mode, with parameters and statistics of its own."""
    net = net.double().eval()
    for number, (name, value) in enumerate([*net.named_parameters(), *net.named_buffers()]):
        if value.is_floating_point():
            drawn = draw(*value.shape, seed=number) / max(value[0].numel() if value.ndim > 1 else 3, 1) ** 0.5
            value.data = drawn.abs() + 0.5 if name.endswith("running_var") else drawn
    return net


def close(found: Tensor, wanted: Any, tolerance: float = 1e-9) -> None:
    wanted = torch.as_tensor(wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * float(wanted.abs().max().clamp_min(1e-3)))


# The definition, in loops.


def definition(rows: Array, w: Array, b: float, regime: bool) -> Array:
    """The pattern of one neuron from the rows of its inputs."""
    y = np.array([sum(w[i] * row[i] for i in range(len(w))) for row in rows])
    open_rows = [k for k in range(len(rows)) if y[k] + b > 0 or not regime]
    a = np.zeros(len(w))
    if not open_rows:
        return a
    for i in range(len(w)):
        xy = sum(rows[k][i] * y[k] for k in open_rows) / len(open_rows)
        x = sum(rows[k][i] for k in open_rows) / len(open_rows)
        a[i] = xy - x * sum(y) / len(y)
    result: Array = a / sum(w[i] * a[i] for i in range(len(w)))
    return result


def patch(x: Array, i: int, j: int) -> Array:
    """What a convolution of 3 × 3 with a border of zeros sees at one position."""
    return np.array([
        x[k, i + di, j + dj] if 0 <= i + di < x.shape[1] and 0 <= j + dj < x.shape[2] else 0.0
        for k in range(len(x)) for di in (-1, 0, 1) for dj in (-1, 0, 1)
    ])  # fmt: skip


class Literal:
    """conv, batch norm, ReLU, max pooling; conv, plus what went into it, ReLU; dense, ReLU, dense; sample by sample."""

    def __init__(self, net: nn.Module, data: Tensor, method: Any) -> None:
        n: Any = net
        scale = (n.norm.weight / (n.norm.running_var + n.norm.eps).sqrt()).detach()
        self.a = (n.a.weight.detach() * scale[:, None, None, None]).flatten(1).numpy()
        self.a_bias = ((n.a.bias - n.norm.running_mean) * scale + n.norm.bias).detach().numpy()
        self.b, self.b_bias = n.b.weight.detach().flatten(1).numpy(), n.b.bias.detach().numpy()
        self.mid, self.mid_bias = n.mid.weight.detach().numpy(), n.mid.bias.detach().numpy()
        self.out, self.out_bias = n.out.weight.detach().numpy(), n.out.bias.detach().numpy()
        self.attribution = isinstance(method, PatternAttribution)
        relu = method.estimator == "relu"
        runs = [self.forward(x) for x in data.numpy()]
        places = [(i, j) for i in range(4) for j in range(4)]
        halves = [(i, j) for i in range(2) for j in range(2)]
        one = np.ones(2)
        self.patterns = {
            "a": self._all([patch(r["x"], *p) for r in runs for p in places], self.a, self.a_bias, relu),
            "b": self._all([patch(r["h"], *p) for r in runs for p in halves], self.b, self.b_bias, False),
            "sum": np.stack([
                definition(np.array([[r["h"][k][p], r["z"][k][p]] for r in runs for p in halves]), one, 0.0, relu)
                for k in range(3)
            ]),
            "mid": self._all([r["s"].reshape(-1) for r in runs], self.mid, self.mid_bias, relu),
            "out": self._all([r["m"] for r in runs], self.out, self.out_bias, False),
        }  # fmt: skip

    def _all(self, rows: list[Array], w: Array, b: Array, regime: bool) -> Array:
        return np.stack([definition(np.array(rows), w[j], b[j], regime) for j in range(len(w))])

    def forward(self, x: Array) -> dict[str, Any]:
        def conv(x: Array, w: Array, b: Array) -> Array:
            size = x.shape[1]
            z = np.zeros((len(w), size, size))
            for j in range(len(w)):
                for i in range(size):
                    for k in range(size):
                        z[j, i, k] = w[j] @ patch(x, i, k) + b[j]
            return z

        first = conv(x, self.a, self.a_bias)
        h = np.zeros((3, 2, 2))
        winners = {}
        for k in range(3):
            for i in range(2):
                for j in range(2):
                    window = [(2 * i + di, 2 * j + dj) for di in (0, 1) for dj in (0, 1)]
                    winners[k, i, j] = max(window, key=lambda p: first[k][p])
                    h[k, i, j] = max(first[k][winners[k, i, j]], 0)
        z = conv(h, self.b, self.b_bias)
        s = np.maximum(h + z, 0)
        m = np.maximum(self.mid @ s.reshape(-1) + self.mid_bias, 0)
        y = self.out @ m + self.out_bias
        return {"x": x, "winners": winners, "h": h, "z": z, "s": s, "m": m, "y": y}

    def explain(self, x: Array, target: int) -> Array:
        run = self.forward(x)

        def weights(name: str, own: Array) -> Array:
            return own * self.patterns[name] if self.attribution else self.patterns[name]

        def conv_back(c: Array, v: Array, inputs: int) -> Array:
            size = c.shape[1]
            back = np.zeros((inputs, size, size))
            for j in range(len(c)):
                for i in range(size):
                    for k in range(size):
                        for t, value in enumerate(v[j]):
                            channel, di, dj = t // 9, t % 9 // 3 - 1, t % 3 - 1
                            if 0 <= i + di < size and 0 <= k + dj < size:
                                back[channel, i + di, k + dj] += c[j, i, k] * value
            return back

        c = run["y"][target] * weights("out", self.out)[target]
        c = np.where(run["m"] > 0, c, 0) @ weights("mid", self.mid)
        c = np.where(run["s"] > 0, c.reshape(3, 2, 2), 0)
        shares = weights("sum", np.ones((3, 2)))
        pooled = c * shares[:, 0][:, None, None]
        pooled = pooled + conv_back(c * shares[:, 1][:, None, None], weights("b", self.b), 3)
        first = np.zeros((3, 4, 4))
        for (k, i, j), place in run["winners"].items():
            first[k][place] += pooled[k, i, j] if run["h"][k, i, j] > 0 else 0
        return conv_back(first, weights("a", self.a), 2)


def residual() -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(n.norm(n.a(x))), 2)
        s = F.relu(h + n.b(h), inplace=True)
        return n.out(F.relu(n.mid(s.flatten(1))))

    return filled(
        Net(
            run,
            a=nn.Conv2d(2, 3, 3, padding=1),
            norm=nn.BatchNorm2d(3),
            b=nn.Conv2d(3, 3, 3, padding=1),
            mid=nn.Linear(12, 5),
            out=nn.Linear(5, 3),
        )
    )


@by_method
def test_the_definition_in_literal_loops(method: Any) -> None:
    net, data, x = residual(), draw(30, 2, 4, 4) + 0.2, draw(3, 2, 4, 4, seed=1)
    fitted = method.fit(net, data)
    literal = Literal(net, data, method)
    for name, key in (("a+norm", "a"), ("b", "b"), ("", "sum"), ("mid", "mid"), ("out", "out")):
        close(fitted.state[f"{name}.pattern"].flatten(1), literal.patterns[key])
    assert len(fitted.state) == 5 * 2 + 4  # patterns, where they are known, and the biases of all but the sum
    for target in range(3):
        close(fitted(net, x, target), np.stack([literal.explain(one, target) for one in x.numpy()]))


@pytest.mark.parametrize("name", ["dense", *MAPS])
@pytest.mark.parametrize("estimator", ["relu", "linear"])
def test_every_kind_of_map(name: str, estimator: Any) -> None:
    """A unit in the place of the weight shows what of the input this weight sees."""
    own: Any = filled(MAPS[name][0](2, 4, True) if name in MAPS else nn.Linear(6, 4))
    data = draw(40, 2, 4, 4) if name in MAPS else draw(40, 6)
    net = nn.Sequential(own, nn.ReLU())
    fitted = PatternNet(estimator).fit(net, data)
    pattern = fitted.state["0.pattern"]

    def channels_first(z: Tensor) -> Tensor:
        return z.movedim(1, 0).flatten(1).detach()

    z, bias = channels_first(own(data)), own.bias.detach()
    parameters, wanted = dict(own.named_parameters()), torch.zeros_like(pattern)
    seen: dict[int, list[tuple[Any, Tensor]]] = {j: [] for j in range(len(bias))}
    for place in np.ndindex(*own.weight.shape):
        unit = torch.zeros_like(own.weight)
        unit[place] = 1
        shown = channels_first(torch.func.functional_call(own, {**parameters, "weight": unit}, data)) - bias[:, None]
        [channel] = (shown != 0).any(1).nonzero().flatten().tolist()
        seen[channel].append((place, shown[channel]))
    for j, weights in seen.items():
        y = z[j] - bias[j]
        on = (z[j] > 0) if estimator == "relu" else torch.ones_like(z[j], dtype=torch.bool)
        raw = torch.stack([(x[on] * y[on]).mean() - x[on].mean() * y.mean() for _, x in weights])
        size = sum(own.weight[place].detach() * part for (place, _), part in zip(weights, raw, strict=True))
        for (place, _), part in zip(weights, raw, strict=True):
            wanted[place] = part / size
    close(pattern, wanted)
    c = draw(*own(data).shape, seed=3)
    leaf = data.clone().requires_grad_()
    replaced = torch.func.functional_call(own, {**parameters, "weight": wanted}, leaf)
    (back,) = torch.autograd.grad(replaced, leaf, c * (own(data) > 0))
    score = (net(data) * c).flatten(1).sum(1).detach()
    found = fitted(Model(net, chunk=40), data, lambda output: (output * c).flatten(1).sum(1))
    close(found, score.view(-1, *(1,) * (data.ndim - 1)) * back)


# Known signals.


def test_signal_and_distractor() -> None:
    """x = (1, 0) y + (1, 1) ε and w = (1, −1): the filter cancels ε, the pattern shows y."""
    y, noise = draw(20_000), draw(20_000, seed=1)
    x = torch.stack((y + noise, noise), 1)
    linear = nn.Linear(2, 1, bias=False).double()
    linear.weight.data = torch.tensor([[1.0, -1.0]]).double()
    with_relu = nn.Sequential(linear, nn.ReLU())
    close(PatternNet().fit(linear, x).state[".pattern"], torch.tensor([[1.0, 0.0]]).double(), 0.02)
    close(PatternNet().fit(with_relu, x).state["0.pattern"], torch.tensor([[1.0, 0.0]]).double(), 0.02)
    once, two = (PatternNet(e).fit(with_relu, x).state["0.pattern"] for e in ("relu", "linear"))
    assert not torch.allclose(once, two, atol=1e-4)
    shown = PatternNet().fit(linear, x)(linear, x[:5], 0)
    close(shown, torch.stack((y[:5], 0 * y[:5]), 1), 0.02)
    close(PatternAttribution().fit(linear, x)(linear, x[:5], 0).sum(1), y[:5])


def test_a_shift_of_the_inputs_and_of_the_bias_change_nothing_in_the_linear_estimator() -> None:
    x = draw(200, 6)
    net, moved = filled(nn.Linear(6, 3)), filled(nn.Linear(6, 3))
    moved.bias.data -= 1000 * net.weight.detach().sum(1)
    close(PatternNet().fit(moved, x + 1000).state[".pattern"], PatternNet().fit(net, x).state[".pattern"], 1e-6)


RUN = [toy for toy in TOYS if toy.inputs == 1]
REFUSED = {
    "gate": "mul", "squeeze and excitation": "mul", "product": "mul", "in-place product": "mul",
    "layer norm": "layer_norm", "layer norm by hand": "div", "root mean square norm by hand": "mul",
    "gated layer": "mul", "gelu by tanh": "mul", "gelu by erf": "mul", "attention by hand": "matmul",
    "multi-head attention without weights": "multi_head_attention",
    "multi-head attention with weights": "multi_head_attention",
    **dict.fromkeys(("attention", "causal attention", "attention with a bias", "attention of constant queries",
                     "attention to a constant memory", "rotary attention"), "scaled_dot_product_attention"),
}  # fmt: skip


def example(toy: Toy, count: int = 40) -> Tensor:
    return torch.cat([draw(count, *toy.shape, seed=5), toy.example()[0]])


@pytest.mark.parametrize("toy", [toy for toy in RUN if toy.name not in REFUSED], ids=lambda toy: toy.name)
def test_what_a_neuron_detects_in_its_pattern_is_one(toy: Toy) -> None:
    """wᵀa = 1, on every net that is not refused."""
    net, x = toy.net(), example(toy)
    parameters = dict(net.named_parameters())
    fitted = PatternNet().fit(net, x)
    seen = 0
    for key, a in fitted.state.items():
        name, _, what = key.rpartition(".")
        weight = parameters.get(f"{name}.weight")
        if what == "pattern" and weight is not None and weight.shape == a.shape and "transposed" not in toy.name:
            close((weight.detach() * a).flatten(1).sum(1), fitted.state[f"{name}.known"].double())
            seen += 1
    assert seen or toy.name in ("matmul", "functional convolution") or "transposed" in toy.name
    for method in (PatternNet(), PatternAttribution()):
        relevance = Fitted(method, fitted.state)(net, x[:3], 1)
        assert relevance.shape == x[:3].shape
        assert bool(torch.isfinite(relevance).all())
        assert bool(relevance.any())


@pytest.mark.parametrize("toy", [toy for toy in RUN if toy.name in REFUSED], ids=lambda toy: toy.name)
def test_what_has_no_pattern_is_refused_by_name(toy: Toy) -> None:
    with pytest.raises(ModelError, match=rf"the operation \S*{REFUSED[toy.name]}\S* in .*patterns are those of"):
        PatternNet().fit(toy.net(), example(toy))


# The same function, written otherwise.


def small(run: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> nn.Module:
    return filled(Net(run, **parts))


def agree(one: nn.Module, other: nn.Module, data: Tensor, method: Method, tolerance: float = 1e-9) -> None:
    x = data[:4]
    close(other(x), one(x).detach())
    close(method.fit(other, data)(other, x, 0), method.fit(one, data)(one, x, 0), tolerance)


@by_method
def test_the_same_net_in_other_words(method: Method) -> None:
    data = draw(60, 2, 5, 5)
    parts: dict[str, nn.Module] = {"a": nn.Conv2d(2, 4, 3), "b": nn.Linear(36, 6), "c": nn.Linear(6, 2)}
    plain = small(lambda n, x: n.c(n.b(n.a(x).relu().flatten(1)).relu()), **parts)
    words: dict[str, Callable[[Any, Tensor], Tensor]] = {
        "functional": lambda n, x: F.linear(
            F.linear(F.conv2d(x, n.a.weight, n.a.bias).relu().flatten(1), n.b.weight, n.b.bias).relu(),
            n.c.weight, n.c.bias,
        ),
        "in place": lambda n, x: n.c(n.b(n.a(x).relu_().flatten(1)).relu_()),
        "clamped": lambda n, x: n.c(torch.maximum(n.b(n.a(x).clamp(min=0).flatten(1)), torch.zeros(())).double()),
        "flattened before": lambda n, x: n.c(n.b(n.a(x).flatten(1).relu()).view(-1, 2, 3).relu().flatten(1)),
    }  # fmt: skip
    for run in words.values():
        agree(plain, Net(run, **dict(plain.named_children())), data, method)


@pytest.mark.parametrize("method", METHODS[2:], ids=repr)
def test_constants_outside_the_layers(method: Method) -> None:
    """The signal is scaled back, relevance handed on; the linear estimator does not ask what is behind."""
    data = draw(60, 6)
    plain = small(lambda n, x: n.c(n.b(x).relu()), b=nn.Linear(6, 6), c=nn.Linear(6, 2))
    parts = dict(plain.named_children())
    agree(
        plain, Net(lambda n, x: (x @ n.b.weight.T + n.b.bias).relu() @ n.c.weight.T + n.c.bias, **parts), data, method
    )
    agree(plain, Net(lambda n, x: n.c(((3 - 2 * (1.5 - n.b(x))) / 2).relu()), **parts), data, method)
    shifted = Net(lambda n, x: n.c(n.b((5 - x) / -4).relu()), **parts)
    own = method.fit(shifted, 4 * data + 5)(shifted, 4 * data[:4] + 5, 0)
    factor = 4 if isinstance(method, PatternNet) else 1
    close(own, factor * method.fit(plain, data)(plain, data[:4], 0))


@by_method
def test_batch_norm_is_folded_or_passed(method: Method) -> None:
    data = draw(60, 2, 5, 5)
    norm, conv = filled(nn.BatchNorm2d(3)), filled(nn.Conv2d(2, 3, 3))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    folded = nn.Conv2d(2, 3, 3).double()
    folded.weight.data = conv.weight.detach() * scale[:, None, None, None]
    folded.bias.data = ((conv.bias - norm.running_mean) * scale + norm.bias).detach()
    last = filled(nn.Linear(27, 2))
    one = nn.Sequential(folded, nn.ReLU(), nn.Flatten(), last)
    agree(one, nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), last), data, method)
    alone = nn.Sequential(nn.ReLU(), norm, nn.Flatten(), filled(nn.Linear(75, 2)))
    alone = nn.Sequential(filled(nn.Conv2d(2, 3, 1)), *alone)
    fitted = method.fit(alone, data)
    x = data[:3].clone().requires_grad_()
    attribution = isinstance(method, PatternAttribution)
    a, b = (fitted.state[f"{name}.pattern"] for name in ("0", "4"))
    if attribution:
        a, b = a * alone[0].weight.detach(), b * alone[4].weight.detach()
    h = alone[0](x).relu()
    through = 1 if attribution else 1 / scale.view(-1, 1, 1)
    c = F.conv_transpose2d((b[0].view(3, 5, 5) * through) * (h > 0), a)
    close(fitted(alone, data[:3], 0), (alone(x)[:, 0].view(-1, 1, 1, 1) * c).detach())


@by_method
def test_a_layer_that_runs_twice_has_a_pattern_for_each_run(method: Method) -> None:
    data = draw(60, 6)
    twice = small(lambda n, x: n.out(n.a(n.a(x).relu()).relu()), a=nn.Linear(6, 6), out=nn.Linear(6, 2))
    apart = nn.Sequential(twice.a, nn.ReLU(), filled(nn.Linear(6, 6)), nn.ReLU(), twice.out)
    apart[2].load_state_dict(twice.a.state_dict())
    agree(apart, twice, data, method)
    state = method.fit(twice, data).state
    assert {key.rpartition(".")[0] for key in state} == {"a", "a:2", "out"}
    assert not torch.allclose(state["a.pattern"], state["a:2.pattern"], atol=1e-3)


def test_a_difference_of_branches() -> None:
    """cov[x, y] / var[y] of y = u − v for each channel, u and v what was measured."""
    net = small(lambda n, x: n.a(x) - n.b(x), a=nn.Linear(6, 3), b=nn.Linear(6, 3))
    data = draw(100, 6)
    u, v = net.a(data).detach(), net.b(data).detach()
    state = PatternNet().fit(net, data).state
    for j in range(3):
        covariance = np.cov(np.stack([u[:, j], v[:, j], u[:, j] - v[:, j]]))
        close(state[".pattern"][j], covariance[:2, 2] / covariance[2, 2])
    picture = small(lambda n, x: torch.add(n.a(x), x, alpha=-2.0).relu(), a=nn.Conv2d(2, 2, 1))
    state = PatternNet().fit(picture, draw(50, 2, 3, 3)).state
    close(state[".pattern"] @ torch.tensor([1.0, -2.0]).double(), torch.ones(2).double())


def test_sums_of_single_values_and_products_with_masks() -> None:
    data = draw(100, 6)
    net = small(lambda n, x: (n.a(x)[:, 0] + n.b(x)[:, 0])[:, None], a=nn.Linear(6, 1), b=nn.Linear(6, 1))
    u, v = net.a(data).detach()[:, 0], net.b(data).detach()[:, 0]
    covariance = np.cov(np.stack([u, v, u + v]))
    close(PatternNet().fit(net, data).state[".pattern"][0], covariance[:2, 2] / covariance[2, 2])
    mask = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0, -1.0]).double()
    masked = small(lambda n, x: n.a(x * mask), a=nn.Linear(6, 2))
    for method in METHODS:
        relevance = method.fit(masked, data)(masked, data[:3], 0)
        assert bool((relevance != 0).any(0).eq(mask != 0).all())


# How it is learned.


@pytest.mark.parametrize("method", [PatternNet(), PatternAttribution("linear")], ids=repr)
def test_batches_chunks_and_order_do_not_matter(method: Method) -> None:
    net, data = residual(), 3 + draw(40, 2, 4, 4)
    x, wanted = data[:3], method.fit(net, data)
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    ways: list[Any] = [
        DataLoader(TensorDataset(data), batch_size=7),
        DataLoader(TensorDataset(data, torch.arange(40)), batch_size=33),
        (data, torch.arange(40)),
        data[rows],
        ({"pixel_values": part} for part in data.split(4)),
    ]
    for given in ways:
        fitted = method.fit(net, given)
        assert fitted.state.keys() == wanted.state.keys()
        for name, value in wanted.state.items():
            close(fitted.state[name].double(), value.double())
        close(fitted(net, x, 0), wanted(net, x, 0))
    chunked = method.fit(Model(net, chunk=3), data)
    close(chunked(net, x, 0), wanted(net, x, 0))
    close(wanted(Model(net, chunk=1), x, 0), wanted(Model(net, chunk=3), x, 0), 1e-12)


def test_in_single_precision_far_from_zero() -> None:
    """The mean over all samples is known only in the end; the sums must not drown in it."""
    net, data = filled(nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))), 100 + draw(3000, 8)
    net[0].bias.data -= 100 * net[0].weight.detach().sum(1)
    wanted = PatternNet().fit(net, data).state
    found = PatternNet().fit(net.float(), data.float().split(500)).state
    for name in ("0.pattern", "2.pattern"):
        assert found[name].dtype == torch.float32
        close(found[name].double(), wanted[name], 1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """The model that was fitted is known again where its weights, or what was fitted, are rounded."""
    net, data = filled(nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))), draw(300, 8)
    low = copy.deepcopy(net).to(dtype)
    for fitted in (PatternNet().fit(net, data), PatternNet().fit(low, data.to(dtype))):
        found, wanted = fitted(low, data[:4].to(dtype), 1), PatternNet().fit(net, data)(net, data[:4], 1)
        assert found.dtype == dtype
        close(found.double(), wanted, 0.1 * float(wanted.abs().max()))


@by_method
def test_dead_neurons_and_constants(method: Method) -> None:
    net = filled(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    net[0].bias.data[1] = -1000.0  # never positive
    net[0].weight.data[2] = 0.0  # does not vary
    net[0].weight.data[3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    net[0].bias.data[2:] = torch.tensor([1.0, 1.0, 20.0, 20.0])
    data = draw(50, 4)
    data[:, 3] = 0.7  # nor does this
    fitted = method.fit(net, data)
    relu = "linear" not in repr(method)
    known = [True, not relu, False, False, True, True]
    assert fitted.state["0.known"].tolist() == known
    assert not fitted.state["0.pattern"][~torch.tensor(known)].any()
    answer = fitted.run(net, data[:5], 0)
    assert answer.details["without a pattern"] == (f"{known.count(False)} of 6 in '0'",)
    [check] = answer.checks
    assert check.values.tolist() == [known.count(False) / 6] * 5
    assert bool(check.passed.all())
    assert bool(torch.isfinite(answer.relevance).all())


def test_constants_in_single_precision_have_no_pattern() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    data = (torch.rand(1, 3, 5, 5) * 9).expand(100, 3, 5, 5)
    state = PatternNet("linear").fit(net, DataLoader(data, batch_size=7)).state
    assert not state["3.known"].any()
    assert not state["3.pattern"].any()


# What is explained.


@by_method
def test_targets_and_layers(method: Method) -> None:
    net, data = residual(), draw(50, 2, 4, 4)
    x, fitted = data[:4], method.fit(net, data)
    y = net(x).detach()

    def per_unit(target: int) -> Tensor:
        return fitted(net, x, target) / y[:, target].view(-1, 1, 1, 1)

    contrast = (y[:, 0] - y[:, 2]).view(-1, 1, 1, 1) * (per_unit(0) - per_unit(2))
    close(fitted(net, x, Contrast(0, 2)), contrast)
    mixed = torch.stack([fitted(net, x[i : i + 1], i % 3)[0] for i in range(4)])
    close(fitted(net, x, [0, 1, 2, 0]), mixed)
    assert fitted.run(net, x).target is not None
    inner = fitted(net, x, Neuron("mid", 1))
    assert inner.shape == x.shape
    at_mid = fitted(net, x, Logit(1), at="mid")
    a = fitted.state["out.pattern"][1]
    a = a * net.out.weight.detach()[1] if isinstance(method, PatternAttribution) else a
    seen: list[Tensor] = []
    handle = net.mid.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
    net(x)
    handle.remove()
    close(at_mid, y[:, 1:2] * a * (seen[0] > 0))
    smooth = SmoothGrad(of=fitted, samples=2, noise=0.0)
    close(smooth(net, x, 0), fitted(net, x, 0))


def test_auxiliary_parts_are_not_asked_for() -> None:
    """What the output does not depend on has no pattern and needs none."""

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aside = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            self.noted = F.layer_norm(self.aside(x), (2,)).sum()
            return self.main(x)

    net, data = filled(Twin()), draw(20, 4)
    fitted = PatternNet().fit(net, data)
    assert {key.rpartition(".")[0] for key in fitted.state} == {"main"}
    assert bool(fitted(net, data, 0).any())


# What is refused.


def test_errors() -> None:
    net, data = filled(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))), draw(30, 4)
    for method in METHODS:
        name = type(method).__name__
        with pytest.raises(InputError, match=rf"fitted = {name}\(\)\.fit\(model, loader\)"):
            method(net, data, 0)
    fitted = PatternNet().fit(net, data)

    def changed(part: str, change: Callable[[Tensor], Tensor]) -> nn.Module:
        other = filled(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        parameter = dict(other.named_parameters())[part]
        parameter.data = change(parameter.detach().clone())
        return other

    for part in ("0.weight", "0.bias", "2.weight", "2.bias"):
        other = changed(part, lambda w: w + 0.1 * (torch.arange(w.numel()).view_as(w) == 1))
        with pytest.raises(ModelError, match=f"the linear map '{part[0]}' was fitted to other weights; fit to this"):
            fitted(other, data, 1)
    with pytest.raises(ModelError, match="fitted to other weights"):
        fitted(filled(nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))), data, 1)
    with pytest.raises(ModelError, match=r"of the linear map '2' has shape \(2, 3\), but the weight \(5, 3\)"):
        fitted(filled(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5))), data, 1)
    with pytest.raises(ModelError, match="no pattern was fitted for the linear map '3', but for '0', '2'; fit to"):
        fitted(filled(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.ReLU(), nn.Linear(3, 2))), data, 1)
    for name in ("patternnet", "pattern_attribution"):
        with pytest.raises(InputError, match="field estimator"):
            whybox.method(f"{name}(estimator='both')")
    for empty in ([], [data[:0]]):
        with pytest.raises(InputError, match="empty"):
            PatternNet().fit(net, empty)
    with pytest.raises(InputError, match="NaN or infinity"):
        PatternNet().fit(net, torch.full((3, 4), torch.nan))
    with pytest.raises(InputError, match=r"needs gradients, but the input is torch\.int64"):
        PatternNet().fit(net, torch.zeros(3, 4, dtype=torch.long))
    with pytest.raises(ModelError, match="depends on no linear layer"):
        PatternNet().fit(nn.ReLU(), data)
    with pytest.raises(ModelError, match="depends on no linear layer"):
        PatternNet().fit(Net(lambda n, x: n.a(x.detach()), a=nn.Linear(4, 2).double()), data)
    huge = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ModelError, match="values in the linear map '0' are not finite"):
        PatternNet().fit(huge, data.float() * 1e30)


@pytest.mark.parametrize(
    ("net", "shape", "says"),
    [
        (nn.MultiheadAttention(4, 2, batch_first=True), (3, 4), "multi_head_attention"),
        (nn.LSTM(4, 2, batch_first=True), (3, 4), "lstm"),
        (Net(lambda n, x: n.a(x) / n.a(x).norm(dim=1, keepdim=True), a=nn.Linear(4, 2)), (4,), "div"),
        (Net(lambda n, x: 1 / n.a(x), a=nn.Linear(4, 2)), (4,), "reciprocal|div"),
        (Net(lambda n, x: n.a(x) @ n.a(x).mT, a=nn.Linear(4, 2)), (3, 4), "matmul"),
        (Net(lambda n, x: torch.addmm(n.a.bias, x, n.a.weight.T), a=nn.Linear(4, 2)), (4,), "addmm"),
        (Net(lambda n, x: torch.einsum("ni,oi->no", x, n.a.weight), a=nn.Linear(4, 2)), (4,), "einsum"),
    ],
    ids=["attention", "lstm", "norm", "denominator", "two signals", "addmm", "einsum"],
)
def test_operations_that_are_refused(net: nn.Module, shape: tuple[int, ...], says: str) -> None:
    first = Net(lambda n, x: y[0] if isinstance(y := n.a(*((x,) * n.inputs)), tuple) else y, a=net)
    first.inputs = 3 if isinstance(net, nn.MultiheadAttention) else 1  # type: ignore[assignment]
    with pytest.raises(ModelError, match=rf"operation \S*({says})\S* in module .*patterns are those of"):
        PatternNet().fit(first, torch.randn(10, *shape))


def test_it_is_a_value(tmp_path: Any) -> None:
    net, data = residual(), draw(40, 2, 4, 4)
    fitted = PatternNet().fit(net, data)
    fitted.save(tmp_path / "patterns.safetensors")
    again = Fitted.load(tmp_path / "patterns.safetensors")
    assert again == fitted == pickle.loads(pickle.dumps(fitted)) != PatternNet("linear").fit(net, data)
    assert again.digest == fitted.digest
    assert torch.equal(again(net, data[:3], 1), fitted(net, data[:3], 1))
    other = PatternAttribution().fit(net, data)
    assert other.digest == fitted.digest
    assert torch.equal(Fitted(PatternAttribution(), fitted.state)(net, data[:3], 1), other(net, data[:3], 1))


def test_the_model_is_left_alone() -> None:
    net, data = residual().train(), draw(40, 2, 4, 4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    fitted = PatternNet().fit(net, data)
    fitted(net, data[:3], 1)
    assert all(part.training for part in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) for parameter in net.parameters() if parameter.grad is not None)
