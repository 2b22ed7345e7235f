"""DeepLIFT in literal loops: the net as explicit matrices, every multiplier from its definition in the paper."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from dense_reference import affine, unrolled
from torch import Tensor, nn
from torch.nn import functional as F

Array = np.ndarray
Back = Callable[[Array, Array], "list[tuple[Value, Array, Array]]"]


def nothing(_positive: Array, _negative: Array) -> "list[tuple[Value, Array, Array]]":
    return []


@dataclass
class Value:
    """A tensor of the net for one sample and its baseline, and the multipliers that have arrived.

    Attributes:
        data: the values for the input; `other`: for the baseline.
        back: multipliers of the positive and the negative part here → those of what it came from.
        positive, negative: the parts of the difference, if they are told apart.
    """

    data: Tensor
    other: Tensor
    back: Back = nothing
    positive: Array | None = None
    negative: Array | None = None
    multipliers: tuple[Array, Array] = field(init=False)

    def __post_init__(self) -> None:
        count = self.data.numel()
        self.multipliers = np.zeros(count), np.zeros(count)

    @property
    def a(self) -> Array:
        return self.data.detach().numpy().reshape(-1)

    @property
    def b(self) -> Array:
        return self.other.detach().numpy().reshape(-1)

    @property
    def difference(self) -> Array:
        return self.a - self.b

    def parts(self) -> tuple[Array, Array]:
        if self.positive is not None and self.negative is not None:
            return self.positive, self.negative
        return self.difference.clip(min=0), self.difference.clip(max=0)


class Differences:
    """One forward pass of a net and its baseline; `relevance` walks it backward."""

    def __init__(self, rule: str) -> None:
        self.reveals = rule == "reveal_cancel"
        self.steps: list[Value] = []

    def keep(self, value: Value) -> Value:
        self.steps.append(value)
        return value

    def linear(self, module: nn.Module, x: Value, norm: nn.Module | None = None) -> Value:
        with torch.no_grad():
            flat = unrolled(lambda v: module(v) - module(torch.zeros_like(v)), x.data.shape)
            y, z = module(x.data), module(x.other)
        out = self.weighted(flat, x, y, z)
        return out if norm is None else self.batch_norm(norm, out)

    def matrix(self, weight: Tensor, x: Value) -> Value:
        return self.weighted(unrolled(lambda v: v @ weight, x.data.shape), x, x.data @ weight, x.other @ weight)

    def weighted(self, w: Array, x: Value, y: Tensor, z: Tensor) -> Value:
        """Section 3.5.1: each input counts with the part of the output that its contribution has the sign of."""
        contributions = w * x.difference
        positive, negative = contributions.clip(min=0).sum(1), contributions.clip(max=0).sum(1)

        def back(mp: Array, mn: Array) -> list[tuple[Value, Array, Array]]:
            of_sign = np.where(contributions > 0, mp[:, None], mn[:, None])
            m = (w * np.where(contributions == 0, (mp + mn)[:, None] / 2, of_sign)).sum(0)
            return [(x, m, m)]

        return self.keep(Value(y, z, back, positive, negative))

    def carried(self, ws: list[Array], xs: list[Value], y: Tensor, z: Tensor) -> Value:
        """Both parts go through, and change sides where the weight is negative."""
        positive = sum(w.clip(min=0) @ x.parts()[0] + w.clip(max=0) @ x.parts()[1] for w, x in zip(ws, xs, strict=True))
        negative = sum(w.clip(min=0) @ x.parts()[1] + w.clip(max=0) @ x.parts()[0] for w, x in zip(ws, xs, strict=True))

        def back(mp: Array, mn: Array) -> list[tuple[Value, Array, Array]]:
            return [
                (x, mp @ w.clip(min=0) + mn @ w.clip(max=0), mn @ w.clip(min=0) + mp @ w.clip(max=0))
                for w, x in zip(ws, xs, strict=True)
            ]

        return self.keep(Value(y, z, back, positive, negative))

    def average(self, function: Callable[[Tensor], Tensor], x: Value) -> Value:
        return self.carried([unrolled(function, x.data.shape)], [x], function(x.data), function(x.other))

    def scale(self, x: Value, factor: Tensor, shift: Tensor, charged: bool = True) -> Value:
        y, z = x.data * factor + shift, x.other * factor + shift
        return self.carried([np.diag(factor.expand_as(x.data).reshape(-1).numpy())], [x], y, z)

    def shifted(self, x: Value, shift: float) -> Value:
        return self.carried([np.eye(x.data.numel())], [x], x.data + shift, x.other + shift)

    def batch_norm(self, norm: nn.Module, x: Value) -> Value:
        shape = (1, -1, *(1,) * (x.data.ndim - 2))
        return self.scale(x, *(v.view(shape) for v in affine(norm)))

    def sum(self, *xs: Value, signs: tuple[int, ...] = (1, 1)) -> Value:
        y, z = (
            sum(sign * run for sign, run in zip(signs, runs, strict=True))
            for runs in ([x.data for x in xs], [x.other for x in xs])
        )
        ws = [s * unrolled(lambda v: v + torch.zeros_like(y), x.data.shape) for s, x in zip(signs, xs, strict=True)]
        return self.carried(ws, list(xs), y, z)

    def select(self, function: Callable[..., Tensor], *xs: Value) -> Value:
        y, z = function(*(x.data for x in xs)), function(*(x.other for x in xs))
        ws = []
        for k, x in enumerate(xs):
            columns = []
            for i in range(x.data.numel()):
                units = [torch.zeros_like(v.data) for v in xs]
                units[k].view(-1)[i] = 1
                columns.append(function(*units).reshape(-1).numpy())
            ws.append(np.stack(columns, 1))
        return self.carried(ws, list(xs), y, z)

    def activation(self, function: Callable[[Tensor], Tensor], x: Value, monotone: bool = True) -> Value:
        """Rescale (3.5.2) or RevealCancel (3.5.3), unit by unit."""

        def f(value: float) -> float:
            return function(torch.tensor(value, dtype=torch.float64)).item()

        def slope(rise: float, run: float, at: float) -> float:
            if abs(run) > 1e-12:
                return rise / run
            with torch.enable_grad():
                leaf = torch.tensor(at, dtype=torch.float64, requires_grad=True)
                return torch.autograd.grad(function(leaf), leaf)[0].item()

        up, down, rises, falls = (np.zeros(x.data.numel()) for _ in range(4))
        positive, negative = x.parts()
        for i, (a, b) in enumerate(zip(x.a, x.b, strict=True)):
            p, n = positive[i], negative[i]
            if not self.reveals:
                up[i] = down[i] = slope(f(a) - f(b), a - b, a)
                continue
            rises[i] = 0.5 * (f(b + p) - f(b)) + 0.5 * (f(b + n + p) - f(b + n))
            falls[i] = 0.5 * (f(b + n) - f(b)) + 0.5 * (f(b + p + n) - f(b + p))
            up[i], down[i] = slope(rises[i], p, a), slope(falls[i], n, a)
        parts = (rises, falls) if self.reveals else (None, None)
        return self.keep(Value(function(x.data), function(x.other), lambda mp, mn: [(x, mp * up, mn * down)], *parts))

    def relu(self, x: Value) -> Value:
        return self.activation(torch.relu, x)

    def winners(self, size: int, x: Value) -> Value:
        """The difference of the maxima goes to the winner here if it has gained or won there too, else to the other."""
        (y, here), (z, there) = (F.max_pool2d(run, size, return_indices=True) for run in (x.data, x.other))
        area, step = x.data[0, 0].numel(), x.difference
        chosen = []
        for j, (p, q) in enumerate(zip(here.reshape(-1).tolist(), there.reshape(-1).tolist(), strict=True)):
            offset = j // y[0, 0].numel() * area
            p, q = p + offset, q + offset
            top, other = y.reshape(-1)[j].item(), z.reshape(-1)[j].item()
            i = p if top >= other or abs(x.b[p] - other) < 1e-12 else q
            chosen.append((i, (top - other) / step[i] if abs(step[i]) > 1e-12 else 1.0))

        def back(mp: Array, mn: Array) -> list[tuple[Value, Array, Array]]:
            m = np.zeros(x.data.numel())
            for j, (i, share) in enumerate(chosen):
                m[i] += share * self.total(mp, mn, (y - z).reshape(-1).numpy())[j]
            return [(x, m, m)]

        return self.keep(Value(y, z, back))

    def total(self, mp: Array, mn: Array, step: Array) -> Array:
        """The multiplier of a difference that has but one part."""
        return np.where(step > 0, mp, np.where(step < 0, mn, 0.5 * (mp + mn)))

    def product(self, a: Value, b: Value) -> Value:
        y, z = a.data * b.data, a.other * b.other
        half_a, half_b = ((v.data + v.other) / 2 + torch.zeros_like(y) for v in (a, b))

        def back(mp: Array, mn: Array) -> list[tuple[Value, Array, Array]]:
            m = torch.from_numpy(self.total(mp, mn, (y - z).reshape(-1).numpy())).view(y.shape)
            found = []
            for v, other in ((a, half_b), (b, half_a)):
                share = (m * other).sum_to_size(v.data.shape).reshape(-1).numpy()
                found.append((v, share, share))
            return found

        return self.keep(Value(y, z, back))

    gate = product

    def layer_norm(self, norm: nn.LayerNorm, x: Value) -> Value:
        """With d = x − mean, v = mean d², σ = √(v + ε), q = d / σ: Δq = (Δd − q̄ Δσ) / σ̄, row by row."""
        y, z = norm(x.data).detach(), norm(x.other).detach()
        rows, size = x.data.numel() // x.data.shape[-1], x.data.shape[-1]

        def back(mp: Array, mn: Array) -> list[tuple[Value, Array, Array]]:
            m = self.total(mp, mn, (y - z).reshape(-1).numpy())
            result = np.zeros(x.data.numel())
            for row in range(rows):
                at = slice(row * size, (row + 1) * size)
                a, b = x.a[at] - x.a[at].mean(), x.b[at] - x.b[at].mean()
                s, t = (np.sqrt((d**2).mean() + norm.eps) for d in (a, b))
                for i in range(size):
                    c = m[at][i] * norm.weight[i].item()
                    for k in range(size):
                        of_d = (i == k) - 1 / size
                        of_sigma = sum((a[j] + b[j]) / size * ((j == k) - 1 / size) for j in range(size)) / (s + t)
                        result[at.start + k] += c * (of_d - (a[i] / s + b[i] / t) / 2 * of_sigma) / ((s + t) / 2)
            return [(x, result, result)]

        return self.keep(Value(y, z, back))

    def softmax(self, x: Value) -> Value:
        """Δs_i = m_i (Δx_i − ΔL), ΔL = Σ m Δx / Σ m with m the logarithmic means, row by row."""
        y, z = x.data.softmax(-1), x.other.softmax(-1)
        s, t = y.reshape(-1).numpy(), z.reshape(-1).numpy()
        mean = [p if abs(p - q) < 1e-14 else (p - q) / np.log(p / q) for p, q in zip(s, t, strict=True)]
        size = x.data.shape[-1]

        def back(mp: Array, mn: Array) -> list[tuple[Value, Array, Array]]:
            m = self.total(mp, mn, s - t)
            result = np.zeros(len(s))
            for start in range(0, len(s), size):
                row = range(start, start + size)
                level = sum(m[i] * mean[i] for i in row) / sum(mean[i] for i in row)
                for k in row:
                    result[k] = mean[k] * (m[k] - level)
            return [(x, result, result)]

        return self.keep(Value(y, z, back))

    def masked(self, mask: Tensor, x: Value) -> Value:
        """Scores plus what is −∞ where they do not count; only softmax may follow."""
        return self.keep(Value(x.data + mask, x.other + mask, lambda mp, mn: [(x, mp, mn)]))

    def matmul(self, a: Value, b: Value) -> Value:
        """Each of the products that are summed by Shapley halves."""
        y, z = a.data @ b.data, a.other @ b.other
        half_a, half_b = (a.data + a.other) / 2, (b.data + b.other) / 2

        def back(mp: Array, mn: Array) -> list[tuple[Value, Array, Array]]:
            m = torch.from_numpy(self.total(mp, mn, (y - z).reshape(-1).numpy())).view(y.shape)
            shares = (m @ half_b.mT).reshape(-1).numpy(), (half_a.mT @ m).reshape(-1).numpy()
            return [(v, share, share) for v, share in zip((a, b), shares, strict=True)]

        return self.keep(Value(y, z, back))

    def root_mean_square(self, eps: float, x: Value) -> Value:
        """x · (mean x² + ε)^−½, spelled out."""
        square = self.average(lambda v: v.mean(-1, keepdim=True), self.activation(torch.square, x))
        return self.product(x, self.activation(torch.rsqrt, self.shifted(square, eps)))

    def relevance(self, output: Value, target: int) -> None:
        """Set the target's multipliers to one, and those of everything that it came from."""
        for part in output.multipliers:
            part[target] = 1
        for value in reversed(self.steps):
            for source, mp, mn in value.back(*value.multipliers):
                source.multipliers = source.multipliers[0] + mp, source.multipliers[1] + mn
