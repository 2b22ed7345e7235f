"""Small nets, one for each thing that an engine can get wrong, each with its steps written down for the reference."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from dense_reference import Dense, Value
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """Parts, and a function that runs them."""

    def __init__(self, run: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


@dataclass(frozen=True)
class Toy:
    """A net and the same net as steps of the dense reference.

    Attributes:
        make: bias → the net.
        steps: (reference, net, input values) → output value.
        shape: of one input.
        inputs: how many inputs it takes.
        piecewise: LRP-0 is input times gradient on it.
        conserves: without biases nothing is absorbed but by ε, whatever the composite.
    """

    name: str
    make: Callable[[bool], Net]
    steps: Callable[..., Value]
    shape: tuple[int, ...]
    inputs: int = 1
    piecewise: bool = True
    conserves: bool = True

    def net(self, bias: bool = True) -> Net:
        """The net in float64 and eval mode, with weights and statistics of its own."""
        generator = torch.Generator().manual_seed(sum(map(ord, self.name)))
        net = self.make(bias).double().eval()
        for part in net.modules():
            for name, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                if value.dtype != torch.float64:
                    continue
                noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                fan = value[0].numel() if value.ndim > 1 else 4
                value.data = noise / fan**0.5
                if name == "running_var" or (name == "weight" and value.ndim == 1):
                    value.data = 0.5 + noise.abs()
                if isinstance(part, nn.modules.batchnorm._BatchNorm) and not bias and name in ("bias", "running_mean"):
                    value.data = torch.zeros_like(value)
        return net

    def example(self, nonnegative: bool = False) -> tuple[Tensor, ...]:
        """Two samples with values of both signs, some exactly zero."""
        generator = torch.Generator().manual_seed(7)
        xs = tuple(
            torch.randn((2, *self.shape), generator=generator, dtype=torch.float64).clamp(-2, 2)
            for _ in range(self.inputs)
        )
        xs = tuple(torch.where(x.abs() < 0.3, 0, x) for x in xs)
        return tuple(x.abs() for x in xs) if nonnegative else xs


TOYS: list[Toy] = []


def toy(name: str, shape: tuple[int, ...] = (2, 4, 4), **facts: Any) -> Callable[[Callable[[bool], tuple]], Any]:
    """Add the net that the function makes; it returns (run, parts, steps)."""

    def add(function: Callable[[bool], tuple]) -> Callable[[bool], tuple]:
        def make(bias: bool) -> Net:
            run, parts, _ = function(bias)
            return Net(run, **parts)

        TOYS.append(Toy(name, make, function(True)[2], shape, **facts))
        return function

    return add


def conv(a: int, b: int, size: int = 3, bias: bool = True, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(a, b, size, bias=bias, **{"padding": size // 2, **more})


def flatten(d: Dense, x: Value) -> Value:
    return d.select(lambda v: v.flatten(1), x)


def head(d: Dense, n: Net, x: Value) -> Value:
    return d.linear(n.out, flatten(d, x))


def simple(name: str, first: Callable[[bool], nn.Module], shape: tuple[int, ...], features: int, **facts: Any) -> None:
    """First layer, ReLU, second dense layer: for all the kinds of linear map."""

    def make(bias: bool) -> tuple:
        def run(n: Net, x: Tensor) -> Tensor:
            return n.out(n.a(x).relu().flatten(1))

        def steps(d: Dense, n: Net, x: Value) -> Value:
            return head(d, n, d.relu(d.linear(n.a, x)))

        return run, {"a": first(bias), "out": nn.Linear(features, 3, bias=bias)}, steps

    toy(name, shape, **facts)(make)


def deep(name: str, second: Callable[[bool], nn.Module], features: int) -> None:
    """The map as a second layer behind a convolution with ReLU."""

    def make(bias: bool) -> tuple:
        def run(n: Net, x: Tensor) -> Tensor:
            return n.out(n.b(n.a(x).relu()).relu().flatten(1))

        def steps(d: Dense, n: Net, x: Value) -> Value:
            return head(d, n, d.relu(d.linear(n.b, d.relu(d.linear(n.a, x)))))

        parts = {"a": conv(2, 4, bias=bias), "b": second(bias), "out": nn.Linear(features, 3, bias=bias)}
        return run, parts, steps

    toy(f"{name} second")(make)


simple("dense", lambda bias: nn.Linear(6, 8, bias=bias), (6,), 8)
simple("dense on a sequence", lambda bias: nn.Linear(4, 5, bias=bias), (3, 4), 15)
simple("conv1d", lambda bias: nn.Conv1d(2, 3, 3, padding=1, bias=bias), (2, 6), 18)
simple("conv3d", lambda bias: nn.Conv3d(2, 2, 2, bias=bias), (2, 3, 3, 3), 16)
MAPS: dict[str, tuple[Callable[[int, int, bool], nn.Module], int]] = {
    "conv": (lambda i, o, bias: conv(i, o, bias=bias), 16),
    "valid conv": (lambda i, o, bias: conv(i, o, bias=bias, padding=0), 4),
    "strided conv": (lambda i, o, bias: conv(i, o, bias=bias, stride=2), 4),
    "wide padding": (lambda i, o, bias: conv(i, o, bias=bias, padding=3), 64),
    "dilated conv": (lambda i, o, bias: conv(i, o, bias=bias, dilation=2, padding=2), 16),
    "grouped conv": (lambda i, o, bias: conv(i, o, bias=bias, groups=2), 16),
    "depth-wise conv": (lambda i, o, bias: conv(i, o, bias=bias, groups=i), 16),
    "point-wise conv": (lambda i, o, bias: conv(i, o, 1, bias=bias), 16),
    "transposed conv": (lambda i, o, bias: nn.ConvTranspose2d(i, o, 3, stride=2, padding=1, bias=bias), 49),
    "grouped transposed conv": (
        lambda i, o, bias: nn.ConvTranspose2d(i, o, 2, stride=2, output_padding=1, groups=2, bias=bias),
        81,
    ),
}
for _name, (_map, _area) in MAPS.items():
    simple(_name, partial(lambda bias, made: made(2, 4, bias), made=_map), (2, 4, 4), 4 * _area)
for _name in ("depth-wise conv", "dilated conv", "strided conv", "transposed conv", "grouped transposed conv"):
    _map, _area = MAPS[_name]
    deep(_name, partial(lambda bias, made: made(4, 4, bias), made=_map), 4 * _area)


@toy("deep")
def deep_net(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        h = F.max_pool2d(n.b(n.a(x).relu()).relu(), 2)
        return n.out(n.mid(h.flatten(1)).relu())

    def steps(d: Dense, n: Net, x: Value) -> Value:
        h = d.winners(2, d.relu(d.linear(n.b, d.relu(d.linear(n.a, x)))))
        return d.linear(n.out, d.relu(d.linear(n.mid, flatten(d, h))))

    parts = {"a": conv(2, 3, bias=bias), "b": conv(3, 3, bias=bias)}
    return run, {**parts, "mid": nn.Linear(12, 5, bias=bias), "out": nn.Linear(5, 3, bias=bias)}, steps


def between(
    name: str, run_f: Callable[..., Tensor], steps_f: Callable[..., Value], features: int, **facts: Any
) -> None:
    """Convolution, ReLU, then something with parts b and c at hand, then a dense layer."""

    def make(bias: bool) -> tuple:
        def run(n: Net, x: Tensor) -> Tensor:
            return n.out(run_f(n, n.a(x).relu()).flatten(1))

        def steps(d: Dense, n: Net, x: Value) -> Value:
            return head(d, n, steps_f(d, n, d.relu(d.linear(n.a, x))))

        parts = {name: conv(3, 3, bias=bias) for name in "bc"}
        return run, {"a": conv(2, 3, bias=bias), **parts, "out": nn.Linear(features, 3, bias=bias)}, steps

    toy(name, **facts)(make)


def bilinear(v: Tensor) -> Tensor:
    return F.interpolate(v, scale_factor=2, mode="bilinear", align_corners=False)


between("residual sum", lambda n, h: h + n.b(h).relu(), lambda d, n, h: d.sum(h, d.relu(d.linear(n.b, h))), 48)
between("residual sum of signed", lambda n, h: h + n.b(h), lambda d, n, h: d.sum(h, d.linear(n.b, h)), 48)
between(
    "difference",
    lambda n, h: n.c(h) - n.b(h),
    lambda d, n, h: d.sum(d.linear(n.c, h), d.linear(n.b, h), signs=(1, -1)),
    48,
)
between("in-place add", lambda n, h: h.clone().add_(n.b(h)), lambda d, n, h: d.sum(h, d.linear(n.b, h)), 48)
between("in-place sum", lambda n, h: n.b(h).__iadd__(h), lambda d, n, h: d.sum(d.linear(n.b, h), h), 48)
between(
    "add with alpha",
    lambda n, h: torch.add(h, n.b(h), alpha=2.0),
    lambda d, n, h: d.sum(h, d.linear(n.b, h), signs=(1, 2)),
    48,
)
between(
    "broadcast sum",
    lambda n, h: n.b(h) + h.mean((2, 3), keepdim=True),
    lambda d, n, h: d.sum(d.linear(n.b, h), d.average(lambda v: v.mean((2, 3), keepdim=True), h)),
    48,
)
between(
    "cat of a shared tensor",
    lambda n, h: torch.cat([h, n.b(h).relu(), h], 1),
    lambda d, n, h: d.select(lambda a, b, c: torch.cat([a, b, c], 1), h, d.relu(d.linear(n.b, h)), h),
    144,
)
between(
    "dense block",
    lambda n, h: torch.cat([h, n.b(h).relu(), n.c(h + n.b(h))], 1),
    lambda d, n, h: d.select(
        lambda *v: torch.cat(v, 1), h, d.relu(d.linear(n.b, h)), d.linear(n.c, d.sum(h, d.linear(n.b, h)))
    ),
    144,
)
between(
    "convolution twice", lambda n, h: n.b(n.b(h).relu()), lambda d, n, h: d.linear(n.b, d.relu(d.linear(n.b, h))), 48
)
between(
    "functional convolution",
    lambda n, h: F.conv2d(h, n.b.weight, n.b.bias, padding=1).relu() / 3,
    lambda d, n, h: d.average(lambda v: v / 3, d.relu(d.linear(n.b, h))),
    48,
)
between(
    "times a constant", lambda n, h: -2.5 * n.b(h), lambda d, n, h: d.average(lambda v: -2.5 * v, d.linear(n.b, h)), 48
)
between(
    "plus a constant",
    lambda n, h: n.b(h) + 0.5,
    lambda d, n, h: d.shifted(d.linear(n.b, h), 0.5),
    48,
    conserves=False,
)
between(
    "mean", lambda n, h: n.b(h).mean((2, 3)), lambda d, n, h: d.average(lambda v: v.mean((2, 3)), d.linear(n.b, h)), 3
)
between("sum over space", lambda n, h: h.sum((2, 3)), lambda d, n, h: d.average(lambda v: v.sum((2, 3)), h), 3)
between(
    "average pooling",
    lambda n, h: F.avg_pool2d(n.b(h), 2),
    lambda d, n, h: d.average(lambda v: F.avg_pool2d(v, 2), d.linear(n.b, h)),
    12,
)
between(
    "padded average pooling",
    lambda n, h: F.avg_pool2d(h, 3, 2, 1),
    lambda d, n, h: d.average(lambda v: F.avg_pool2d(v, 3, 2, 1), h),
    12,
)
between(
    "adaptive pooling",
    lambda n, h: F.adaptive_avg_pool2d(h, 3),
    lambda d, n, h: d.average(lambda v: F.adaptive_avg_pool2d(v, 3), h),
    27,
)
between(
    "max pooling",
    lambda n, h: n.c(F.max_pool2d(n.b(h), 2)),
    lambda d, n, h: d.linear(n.c, d.winners(2, d.linear(n.b, h))),
    12,
)
between(
    "nearest upsampling",
    lambda n, h: F.interpolate(h, scale_factor=2),
    lambda d, n, h: d.average(lambda v: F.interpolate(v, scale_factor=2), h),
    192,
)
between(
    "bilinear upsampling", lambda n, h: bilinear(n.b(h)), lambda d, n, h: d.average(bilinear, d.linear(n.b, h)), 192
)
between(
    "padding",
    lambda n, h: n.b(F.pad(h, (1, 2, 0, 1))),
    lambda d, n, h: d.linear(n.b, d.select(lambda v: F.pad(v, (1, 2, 0, 1)), h)),
    105,
)
between(
    "slicing",
    lambda n, h: n.b(h)[:, 1:, ::2, 1:3],
    lambda d, n, h: d.select(lambda v: v[:, 1:, ::2, 1:3], d.linear(n.b, h)),
    8,
)
between(
    "unet",
    lambda n, h: torch.cat([h, F.interpolate(n.b(F.max_pool2d(h, 2)).relu(), scale_factor=2)], 1),
    lambda d, n, h: d.select(
        lambda a, b: torch.cat([a, b], 1),
        h,
        d.average(lambda v: F.interpolate(v, scale_factor=2), d.relu(d.linear(n.b, d.winners(2, h)))),
    ),
    96,
)
between(
    "gelu", lambda n, h: F.gelu(n.b(h)), lambda d, n, h: d.activation(F.gelu, d.linear(n.b, h)), 48, piecewise=False
)
between(
    "silu", lambda n, h: F.silu(n.b(h)), lambda d, n, h: d.activation(F.silu, d.linear(n.b, h)), 48, piecewise=False
)
between(
    "tanh",
    lambda n, h: torch.tanh(n.b(h)),
    lambda d, n, h: d.activation(torch.tanh, d.linear(n.b, h)),
    48,
    piecewise=False,
)
between(
    "leaky relu",
    lambda n, h: F.leaky_relu(n.b(h), 0.1),
    lambda d, n, h: d.activation(partial(F.leaky_relu, negative_slope=0.1), d.linear(n.b, h)),
    48,
)
between(
    "gate",
    lambda n, h: n.c(h) * torch.sigmoid(n.b(h)),
    lambda d, n, h: d.gate(d.activation(torch.sigmoid, d.linear(n.b, h)), d.linear(n.c, h)),
    48,
    piecewise=False,
)
between(
    "squeeze and excitation",
    lambda n, h: h * torch.sigmoid(n.b(h).mean((2, 3), keepdim=True)),
    lambda d, n, h: d.gate(
        d.activation(torch.sigmoid, d.average(lambda v: v.mean((2, 3), keepdim=True), d.linear(n.b, h))), h
    ),
    48,
    piecewise=False,
)
between(
    "product",
    lambda n, h: n.b(h) * n.c(h),
    lambda d, n, h: d.product(d.linear(n.b, h), d.linear(n.c, h)),
    48,
    piecewise=False,
)
between(
    "in-place product",
    lambda n, h: n.b(h).mul_(n.c(h)),
    lambda d, n, h: d.product(d.linear(n.b, h), d.linear(n.c, h)),
    48,
    piecewise=False,
)


@toy("linear twice", (6,))
def linear_twice(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.out(n.a(n.a(x).relu()).relu())

    def steps(d: Dense, n: Net, x: Value) -> Value:
        return d.linear(n.out, d.relu(d.linear(n.a, d.relu(d.linear(n.a, x)))))

    return run, {"a": nn.Linear(6, 6, bias=bias), "out": nn.Linear(6, 3, bias=bias)}, steps


@toy("matmul", (6,))
def matmul(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return torch.relu(x @ n.a.weight.T) @ n.out.weight.t()

    def steps(d: Dense, n: Net, x: Value) -> Value:
        return d.matrix(n.out.weight.detach().T, d.relu(d.matrix(n.a.weight.detach().T, x)))

    return run, {"a": nn.Linear(6, 6, bias=False), "out": nn.Linear(6, 3, bias=False)}, steps


@toy("in-place relu and identity")
def inplace(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.body(x)

    def steps(d: Dense, n: Net, x: Value) -> Value:
        h = d.relu(d.linear(n.body[0], x))
        return d.linear(n.body[6], flatten(d, d.relu(d.linear(n.body[3], h))))

    body = nn.Sequential(
        conv(2, 3, bias=bias),
        nn.ReLU(inplace=True),
        nn.Identity(),
        conv(3, 3, bias=bias),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(48, 3, bias=bias),
    )
    return run, {"body": body}, steps


@toy("siamese halves", (4, 4, 4))
def siamese_halves(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        left, right = n.a(x[:, :2]).relu(), n.a(x[:, 2:]).relu()
        return n.out((left - right).flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        left = d.relu(d.linear(n.a, d.select(lambda v: v[:, :2], x)))
        right = d.relu(d.linear(n.a, d.select(lambda v: v[:, 2:], x)))
        return head(d, n, d.sum(left, right, signs=(1, -1)))

    return run, {"a": conv(2, 3, bias=bias), "out": nn.Linear(48, 3, bias=bias)}, steps


@toy("siamese", inputs=2)
def siamese(bias: bool) -> tuple:
    def run(n: Net, x: Tensor, y: Tensor) -> Tensor:
        return n.out((n.a(x).relu() - n.a(y).relu()).flatten(1))

    def steps(d: Dense, n: Net, x: Value, y: Value) -> Value:
        left, right = d.relu(d.linear(n.a, x)), d.relu(d.linear(n.a, y))
        return head(d, n, d.sum(left, right, signs=(1, -1)))

    return run, {"a": conv(2, 3, bias=bias), "out": nn.Linear(48, 3, bias=bias)}, steps


@toy("two first layers")
def two_first(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.out(torch.cat([n.a(x).relu(), n.b(F.pad(x, (1, 0, 1, 0))).relu()[:, :, 1:, 1:], x], 1).flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        padded = d.select(lambda v: F.pad(v, (1, 0, 1, 0)), x)
        right = d.select(lambda v: v[:, :, 1:, 1:], d.relu(d.linear(n.b, padded)))
        return head(d, n, d.select(lambda *v: torch.cat(v, 1), d.relu(d.linear(n.a, x)), right, x))

    parts = {"a": conv(2, 3, bias=bias), "b": conv(2, 2, 1, bias=bias)}
    return run, {**parts, "out": nn.Linear(112, 3, bias=bias)}, steps


class Rescale(nn.Module):
    """x·k + b with a factor and a shift for each channel, one factor negative."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.shift = (nn.Buffer(torch.zeros(1, 2, 1, 1)) for _ in range(2))


@toy("rescaled input", conserves=False)
def rescaled(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.out(n.a(x * n.r.factor + n.r.shift).relu().flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        y = d.scale(x, n.r.factor, n.r.shift, charged=False)
        return head(d, n, d.relu(d.linear(n.a, y)))

    return run, {"r": Rescale(), "a": conv(2, 3, bias=bias), "out": nn.Linear(48, 3, bias=bias)}, steps


@toy("normalised input", conserves=False)
def normalised(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        x -= n.r.shift
        x /= -3.0
        return n.out(n.a(torch.reshape(x, (-1, 2, 2, 8))).relu().flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        y = d.scale(x, torch.ones(()).double(), -n.r.shift, charged=False)
        y = d.scale(y, torch.tensor(-1 / 3, dtype=torch.float64), torch.zeros(()).double(), charged=False)
        return head(d, n, d.relu(d.linear(n.a, d.select(lambda v: v.reshape(1, 2, 2, 8), y))))

    return run, {"r": Rescale(), "a": conv(2, 3, bias=bias), "out": nn.Linear(48, 3, bias=bias)}, steps


@toy("channels rescaled one by one", conserves=False)
def transform_input(bias: bool) -> tuple:
    """As Inception's and GoogLeNet's `transform_input`."""

    def run(n: Net, x: Tensor) -> Tensor:
        first = torch.unsqueeze(x[:, 0], 1) * 0.5 + 0.25
        second = torch.unsqueeze(x[:, 1], 1) * -2.0 - 1.0
        return n.out(n.a(torch.cat((first, second), 1)).relu().flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        def channel(index: int, factor: float, shift: float) -> Value:
            y = d.select(lambda v: v[:, index : index + 1], x)
            k, b = (torch.tensor(v, dtype=torch.float64) for v in (factor, shift))
            return d.scale(d.scale(y, k, 0 * b, charged=False), torch.ones_like(k), b, charged=False)

        both = d.select(lambda *v: torch.cat(v, 1), channel(0, 0.5, 0.25), channel(1, -2.0, -1.0))
        return head(d, n, d.relu(d.linear(n.a, both)))

    return run, {"a": conv(2, 3, bias=bias), "out": nn.Linear(48, 3, bias=bias)}, steps


@toy("activation on the input", piecewise=False)
def early_activation(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.out(n.a(torch.tanh(x)).relu().flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        return head(d, n, d.relu(d.linear(n.a, d.activation(torch.tanh, x))))

    return run, {"a": conv(2, 3, bias=bias), "out": nn.Linear(48, 3, bias=bias)}, steps


def normed(
    name: str, first: Callable[[bool], nn.Module], area: int, shape: tuple[int, ...] = (2, 4, 4), **bn: Any
) -> None:
    """A batch norm directly after a linear map, declared before it where `early`."""
    early = bn.pop("early", False)

    def make(bias: bool) -> tuple:
        layer = first(bias)
        features = area
        channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[layer.weight.ndim](channels, **bn)
        parts = {"n": norm, "a": layer} if early else {"a": layer, "n": norm}

        def run(n: Net, x: Tensor) -> Tensor:
            return n.out(n.n(n.a(x)).relu().flatten(1))

        def steps(d: Dense, n: Net, x: Value) -> Value:
            return head(d, n, d.relu(d.linear(n.a, x, n.n)))

        return run, {**parts, "out": nn.Linear(features, 3, bias=bias)}, steps

    # without biases the running mean is left, so that the norm still shifts: see Toy.net
    toy(name, shape)(make)


normed("batch norm after conv", lambda bias: conv(2, 3, bias=bias), 48)
normed("batch norm declared before", lambda bias: conv(2, 3, bias=bias), 48, early=True)
normed("batch norm without weights", lambda bias: conv(2, 3, bias=bias), 48, affine=False)
normed("batch norm after grouped conv", lambda bias: conv(2, 4, groups=2, bias=bias), 64)
normed("batch norm after linear", lambda bias: nn.Linear(6, 5, bias=bias), 5, (6,))
normed("batch norm after conv1d", lambda bias: nn.Conv1d(2, 3, 3, bias=bias), 12, (2, 6))
normed("batch norm after transposed conv", lambda bias: nn.ConvTranspose2d(2, 3, 2, 2, bias=bias), 192)
normed(
    "batch norm after grouped transposed conv",
    lambda bias: nn.ConvTranspose2d(2, 4, 2, 2, groups=2, bias=bias),
    256,
)


@toy("batch norm alone", conserves=False)
def norm_alone(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        h = n.a(x).relu()
        return n.out(n.b(n.n(h).relu()).flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        h = d.relu(d.linear(n.a, x))
        return head(d, n, d.linear(n.b, d.relu(d.batch_norm(n.n, h))))

    parts = {"a": conv(2, 3, bias=bias), "n": nn.BatchNorm2d(3), "b": conv(3, 3, bias=bias)}
    return run, {**parts, "out": nn.Linear(48, 3, bias=bias)}, steps


@toy("batch norm on the input", conserves=False)
def norm_first(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.out(n.a(n.n(x)).relu().flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        return head(d, n, d.relu(d.linear(n.a, d.batch_norm(n.n, x))))

    parts = {"n": nn.BatchNorm2d(2), "a": conv(2, 3, bias=bias)}
    return run, {**parts, "out": nn.Linear(48, 3, bias=bias)}, steps


@toy("layer norm", (3, 4), piecewise=False, conserves=False)
def layer_norm(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.out(n.b(n.n(n.a(x))).relu().flatten(1))

    def steps(d: Dense, n: Net, x: Value) -> Value:
        return head(d, n, d.relu(d.linear(n.b, d.layer_norm(n.n, d.linear(n.a, x)))))

    parts = {"a": nn.Linear(4, 5, bias=bias), "n": nn.LayerNorm(5, bias=bias), "b": nn.Linear(5, 4, bias=bias)}
    return run, {**parts, "out": nn.Linear(12, 3, bias=bias)}, steps


@toy("softmax at the end", (6,), conserves=False)
def softmax(bias: bool) -> tuple:
    def run(n: Net, x: Tensor) -> Tensor:
        return torch.softmax(n.out(n.a(x).relu()), -1)

    def steps(d: Dense, n: Net, x: Value) -> Value:
        return d.softmax(d.linear(n.out, d.relu(d.linear(n.a, x))))

    return run, {"a": nn.Linear(6, 6, bias=bias), "out": nn.Linear(6, 3, bias=bias)}, steps


LENGTH, WIDTH = 3, 4
CAUSAL = torch.full((LENGTH, LENGTH), -torch.inf, dtype=torch.float64).triu(1)
BIAS = CAUSAL + torch.tensor([[0.5, 0, 0], [-0.25, 1.0, 0], [0.75, -0.5, 0.25]], dtype=torch.float64)


def attention(d: Dense, q: Value, k: Value, v: Value, mask: Tensor | None = None) -> Value:
    """One head of attention, operation by operation."""
    scores = d.matmul(q, d.select(lambda x: x.mT, k))
    scores = d.average(lambda x: x * q.data.shape[-1] ** -0.5, scores)
    return d.matmul(d.softmax(scores if mask is None else d.masked(mask, scores)), v)


def attentive(name: str, run_f: Callable[..., Tensor], steps_f: Callable[..., Value], **parts: Any) -> None:
    """A layer on each of three tokens, ReLU, then something with parts q, k, v at hand, then a dense layer."""

    def make(bias: bool) -> tuple:
        def run(n: Net, x: Tensor) -> Tensor:
            return n.out(run_f(n, n.a(x).relu()).flatten(1))

        def steps(d: Dense, n: Net, x: Value) -> Value:
            return head(d, n, steps_f(d, n, d.relu(d.linear(n.a, x))))

        layers = {name: nn.Linear(WIDTH, WIDTH, bias=bias) for name in "aqkv"}
        more = {name: part(bias) for name, part in parts.items()}
        return run, {**layers, **more, "out": nn.Linear(LENGTH * WIDTH, 3, bias=bias)}, steps

    toy(name, (LENGTH, WIDTH), piecewise=False, conserves=False)(make)


def qkv(n: Net, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return n.q(h), n.k(h), n.v(h)


def reference_qkv(d: Dense, n: Net, h: Value) -> tuple[Value, Value, Value]:
    return d.linear(n.q, h), d.linear(n.k, h), d.linear(n.v, h)


def by_hand(n: Net, h: Tensor) -> Tensor:
    q, k, v = qkv(n, h)
    scores = q @ k.transpose(-2, -1) / WIDTH**0.5
    scores = scores.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), float("-inf"))
    return F.dropout(scores.softmax(-1), 0.1, n.training) @ v


attentive(
    "attention",
    lambda n, h: F.scaled_dot_product_attention(*qkv(n, h)),
    lambda d, n, h: attention(d, *reference_qkv(d, n, h)),
)
attentive(
    "causal attention",
    lambda n, h: F.scaled_dot_product_attention(*qkv(n, h), is_causal=True),
    lambda d, n, h: attention(d, *reference_qkv(d, n, h), CAUSAL),
)
attentive(
    "attention with a bias",
    lambda n, h: F.scaled_dot_product_attention(*qkv(n, h), BIAS.to(h.dtype)),
    lambda d, n, h: attention(d, *reference_qkv(d, n, h), BIAS),
)
attentive("attention by hand", by_hand, lambda d, n, h: attention(d, *reference_qkv(d, n, h), CAUSAL))


def constant_queries(d: Dense, n: Net, h: Value) -> Value:
    """Queries that are weights: their product with the keys is a dense layer."""
    scores = d.matrix(n.k.weight.detach().T, d.linear(n.q, h))
    scores = d.average(lambda x: x * WIDTH**-0.5, d.select(lambda x: x.mT, scores))
    return d.select(lambda x: x[:, :LENGTH], d.matmul(d.softmax(scores), d.linear(n.v, h)))


attentive(
    "attention of constant queries",
    lambda n, h: F.scaled_dot_product_attention(n.k.weight.expand(len(h), -1, -1), n.q(h), n.v(h))[:, :LENGTH],
    constant_queries,
)


def constant_memory(d: Dense, n: Net, h: Value) -> Value:
    """Keys and values that are weights: two dense layers with softmax between them."""
    scores = d.average(lambda x: x * WIDTH**-0.5, d.matrix(n.k.weight.detach().T, d.linear(n.q, h)))
    return d.matrix(n.v.weight.detach(), d.softmax(scores))


attentive(
    "attention to a constant memory",
    lambda n, h: F.scaled_dot_product_attention(n.q(h), *(m.weight.expand(len(h), -1, -1) for m in (n.k, n.v))),
    constant_memory,
)


def heads(d: Dense, n: Net, h: Value) -> Value:
    """Two heads, whose projections are parts of one weight."""
    parts = []
    for i in range(3):
        layer = nn.Linear(WIDTH, WIDTH, bias=n.m.in_proj_bias is not None, dtype=torch.float64)
        layer.weight.data = n.m.in_proj_weight.detach().chunk(3)[i]
        if n.m.in_proj_bias is not None:
            layer.bias.data = n.m.in_proj_bias.detach().chunk(3)[i]
        parts.append(d.linear(layer, h))
    halves = [[d.select(lambda x, i=i: x.chunk(2, -1)[i], part) for part in parts] for i in range(2)]
    mixed = d.select(lambda *x: torch.cat(x, -1), *(attention(d, *half) for half in halves))
    return d.linear(n.m.out_proj, mixed)


for _weights in (False, True):
    attentive(
        f"multi-head attention {'with' if _weights else 'without'} weights",
        lambda n, h, given=_weights: n.m(h, h, h, need_weights=given)[0],
        heads,
        m=lambda bias: nn.MultiheadAttention(WIDTH, 2, bias=bias, batch_first=True),
    )


def gelu_by_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3.0))))


def gelu_by_erf(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / 2**0.5))


for _gelu in (gelu_by_tanh, gelu_by_erf):
    attentive(
        _gelu.__name__.replace("_", " "),
        lambda n, h, gelu=_gelu: gelu(n.q(h)),
        lambda d, n, h, gelu=_gelu: d.activation(gelu, d.linear(n.q, h)),
    )
attentive(
    "gated layer",
    lambda n, h: n.v(F.silu(n.q(h)) * n.k(h)),
    lambda d, n, h: d.linear(n.v, d.product(d.activation(F.silu, d.linear(n.q, h)), d.linear(n.k, h))),
)
attentive(
    "root mean square norm by hand",
    lambda n, h: n.v(h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)),
    lambda d, n, h: d.linear(n.v, d.root_mean_square(1e-6, h)),
)
attentive(
    "layer norm by hand",
    lambda n, h: n.v((h - h.mean(-1, keepdim=True)) / torch.sqrt(h.var(-1, keepdim=True, unbiased=False) + 1e-5)),
    lambda d, n, h: d.linear(n.v, d.layer_norm(nn.LayerNorm(WIDTH, dtype=torch.float64), h)),
)


def rotated(x: Tensor) -> Tensor:
    """Rotary embedding: each position turns pairs of channels by an angle of its own."""
    angles = torch.arange(LENGTH, dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1], dtype=x.dtype)
    first, second = x[..., : WIDTH // 2], x[..., WIDTH // 2 :]
    return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()


attentive(
    "rotary attention",
    lambda n, h: F.scaled_dot_product_attention(rotated(n.q(h)), rotated(n.k(h)), n.v(h), is_causal=True),
    lambda d, n, h: attention(
        d, d.average(rotated, d.linear(n.q, h)), d.average(rotated, d.linear(n.k, h)), d.linear(n.v, h), CAUSAL
    ),
)
