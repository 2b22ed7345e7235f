"""An independent, literal answer for small nets: explicit matrices, every rule as a loop over the outputs, in float64.

It carries R itself backward, sample by sample, over a list of steps that each toy net writes down for itself. Nothing
of the engine is used. Linear maps are unrolled into dense matrices by feeding unit vectors through them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Array = NDArray[np.float64]
Rule = tuple[str, float, float]

EPSILON: Rule = ("epsilon", 0, 0)
PLUS: Rule = ("alpha_beta", 1, 0)
TWO_ONE: Rule = ("alpha_beta", 2, 1)
FLAT: Rule = ("flat", 0, 0)
SQUARED: Rule = ("squared", 0, 0)
BOX: Rule = ("box", 0, 0)
PASS: Rule = ("pass", 0, 0)

# The rule of a first layer (None: as any other), of convolutions, of dense layers, of maps with one input per output.
COMPOSITES: dict[str, tuple[Rule | None, Rule, Rule, Rule]] = {
    "epsilon": (None, EPSILON, EPSILON, EPSILON),
    "epsilon_plus": (None, PLUS, EPSILON, PASS),
    "epsilon_plus_flat": (FLAT, PLUS, EPSILON, PASS),
    "epsilon_alpha2_beta1": (None, TWO_ONE, EPSILON, PASS),
    "epsilon_alpha2_beta1_flat": (FLAT, TWO_ONE, EPSILON, PASS),
    "epsilon_gamma_box": (BOX, ("gamma", 0.25, 0), EPSILON, PASS),
    "deep_taylor": (BOX, PLUS, PLUS, PASS),
    "excitation": (None, PLUS, PLUS, PASS),
    "attn_lrp": (None, EPSILON, EPSILON, EPSILON),  # but the rescaling of the input, which passes
}


def plus(v: Array) -> Array:
    return np.maximum(v, 0)


def minus(v: Array) -> Array:
    return np.minimum(v, 0)


def part(numerators: Array, bias: float, epsilon: float) -> Array:
    """Numerators over their sum with the bias, moved away from zero by epsilon; sign(0) = +1."""
    total = numerators.sum() + bias
    total = total + epsilon if total >= 0 else total - epsilon
    return numerators / total if total != 0 else np.zeros_like(numerators)


def share(
    rule: Rule, a: Array, w: Array, b: Array, touches: Array, r: Array, low: Array, high: Array, epsilon: float
) -> Array:
    """R at the inputs a from R at the outputs of z = w a + b, by one rule; `touches` says which inputs are inside."""
    name, first, second = rule
    result = np.zeros_like(a)
    for j in range(len(b)):
        if r[j] == 0:
            continue
        if name == "pass":  # one input per output
            parts = np.where(touches[j] & (a != 0), 1.0, 0.0)
        elif name == "epsilon":
            parts = part(a * w[j], b[j], epsilon)
        elif name == "gamma":
            more, less = (plus, minus) if (a * w[j]).sum() + b[j] > 0 else (minus, plus)
            numerators = plus(a) * (w[j] + first * more(w[j])) + minus(a) * (w[j] + first * less(w[j]))
            parts = part(numerators, b[j] + first * more(b[j]), epsilon)
        elif name == "alpha_beta":
            positive = plus(a) * plus(w[j]) + minus(a) * minus(w[j])
            negative = plus(a) * minus(w[j]) + minus(a) * plus(w[j])
            parts = first * part(positive, plus(b[j]), epsilon)
            if second:
                parts = parts - second * part(negative, minus(b[j]), epsilon)
        elif name == "flat":
            parts = part(touches[j].astype(float), 0, 0)
        elif name == "squared":
            parts = part(w[j] ** 2, 0, 0)
        else:
            parts = part(a * w[j] - low * plus(w[j]) - high * minus(w[j]), 0, epsilon)
        result += parts * r[j]
    return result


@dataclass
class Value:
    """A tensor of the net for one sample: values, where they come from, and the relevance that has arrived."""

    data: Tensor
    back: "Callable[[Array], list[tuple[Value, Array]]]" = lambda r: []
    at_input: bool = False
    low: Array | None = None
    high: Array | None = None
    relevance: Array = field(init=False)

    def __post_init__(self) -> None:
        self.relevance = np.zeros(self.data.numel())

    @property
    def a(self) -> Array:
        return self.data.numpy().reshape(-1)


def unrolled(function: Callable[[Tensor], Tensor], shape: torch.Size) -> Array:
    """The matrix of a linear map, by a batch of unit vectors."""
    count = shape.numel()
    units = torch.eye(count, dtype=torch.float64).view(count, *shape[1:])
    return function(units).reshape(count, -1).T.numpy()


class Dense:
    """One forward pass of a net over explicit matrices; `relevance` walks it backward."""

    def __init__(self, composite: str, epsilon: float, low: float, high: float) -> None:
        self.first, self.convolution, self.dense, self.one_to_one = COMPOSITES[composite]
        self.rescaling = PASS if composite == "attn_lrp" else self.one_to_one
        self.epsilon, self.low, self.high = epsilon, low, high
        self.steps: list[Value] = []

    def keep(self, value: Value) -> Value:
        self.steps.append(value)
        return value

    def input(self, x: Tensor) -> Value:
        ones = np.ones(x.numel())
        return self.keep(Value(x, at_input=True, low=self.low * ones, high=self.high * ones))

    def linear(self, module: nn.Module, x: Value, norm: nn.Module | None = None) -> Value:
        """A convolution or a dense layer, with the batch norm behind it folded in."""
        weight, bias = module.weight.detach(), module.bias
        if isinstance(module, nn.Linear):
            kind = self.dense

            def run(v: Tensor, w: Tensor) -> Tensor:
                return F.linear(v, w)
        else:
            kind = self.convolution
            transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d)
            names = ["stride", "padding", "dilation", "groups", *(["output_padding"] if transposed else [])]
            given = {name: getattr(module, name) for name in names}
            function = getattr(F, f"conv{'_transpose' if transposed else ''}{weight.ndim - 2}d")

            def run(v: Tensor, w: Tensor) -> Tensor:
                return function(v, w, **given)

        channel = x.data.ndim - 1 if isinstance(module, nn.Linear) else 1
        ones = torch.ones_like(weight)
        return self._map(lambda v: run(v, weight), lambda v: run(v, ones), bias, kind, channel, x, norm)

    def matrix(self, weight: Tensor, x: Value) -> Value:
        """x @ weight."""
        ones = torch.ones_like(weight)
        return self._map(lambda v: v @ weight, lambda v: v @ ones, None, self.dense, 1, x, None)

    def _map(
        self,
        run: Callable[[Tensor], Tensor],
        ones: Callable[[Tensor], Tensor],
        bias: Tensor | None,
        rule: Rule,
        channel: int,
        x: Value,
        norm: nn.Module | None,
    ) -> Value:
        out = run(x.data)
        shape = [-1 if axis == channel else 1 for axis in range(out.ndim)]
        w = unrolled(run, x.data.shape)
        b = torch.zeros(out.shape[channel], dtype=torch.float64) if bias is None else bias.detach()
        b = b.view(shape).expand_as(out).reshape(-1).numpy()
        if norm is not None:
            scale, shift = (v.view(shape).expand_as(out).reshape(-1).numpy() for v in affine(norm))
            w, b = w * scale[:, None], b * scale + shift
        data = torch.from_numpy(w @ x.a + b).view(out.shape)
        spread = self.first == FLAT and rule == self.dense  # evenly over all of the input: not by these composites
        rule = self.first if x.at_input and self.first is not None and not spread else rule
        touches = unrolled(ones, x.data.shape) != 0
        low, high = (x.low, x.high) if x.at_input else (x.a, x.a)

        def back(r: Array) -> list[tuple[Value, Array]]:
            return [(x, share(rule, x.a, w, b, touches, r, low, high, self.epsilon))]

        return self.keep(Value(data, back))

    def scale(self, x: Value, factor: Tensor, shift: Tensor, charged: bool = True) -> Value:
        """One input per output: a batch norm that stands alone, or (not `charged` with ε) the input's rescaling."""
        factor, shift = (v.expand_as(x.data).reshape(-1).numpy() for v in (factor, shift))
        y = x.a * factor + shift
        passes = (self.rescaling if x.at_input else self.one_to_one) == PASS
        epsilon = self.epsilon if charged else 0.0

        def back(r: Array) -> list[tuple[Value, Array]]:
            if passes and x.at_input:
                return [(x, r)]
            if passes:  # an activation of zero inside the model has nothing to carry relevance
                return [(x, np.where(x.a != 0, r, 0))]
            parts = [part(np.array([a * k]), b, epsilon)[0] for a, k, b in zip(x.a, factor, shift, strict=True)]
            return [(x, np.array(parts) * r)]

        ends = (x.low * factor + shift, x.high * factor + shift) if x.at_input else (None, None)
        bounds = (np.minimum(*ends), np.maximum(*ends)) if x.at_input else ends
        return self.keep(Value(torch.from_numpy(y).view(x.data.shape), back, x.at_input, *bounds))

    def batch_norm(self, norm: nn.Module, x: Value) -> Value:
        shape = (1, -1, *(1,) * (x.data.ndim - 2))
        return self.scale(x, *(v.view(shape) for v in affine(norm)))

    def activation(self, function: Callable[[Tensor], Tensor], x: Value, monotone: bool = True) -> Value:
        y = function(x.data)
        low, high = (
            function(torch.from_numpy(v)).numpy() if x.at_input and monotone else None for v in (x.low, x.high)
        )
        return self.keep(Value(y, lambda r: [(x, r)], x.at_input, low, high))

    def relu(self, x: Value) -> Value:
        return self.activation(torch.relu, x)

    def select(self, function: Callable[..., Tensor], *xs: Value) -> Value:
        """Shape and index operations: every output is one of the inputs, or a padded zero."""
        start, numbered = 1, []
        for x in xs:
            numbered.append(torch.arange(start, start + x.data.numel(), dtype=torch.float64).view(x.data.shape))
            start += x.data.numel()
        source = function(*numbered).reshape(-1).long().numpy()

        def back(r: Array) -> list[tuple[Value, Array]]:
            total = np.zeros(start)
            for j, i in enumerate(source):
                total[i] += r[j]
            cuts = np.split(total[1:], np.cumsum([x.data.numel() for x in xs])[:-1])
            return list(zip(xs, cuts, strict=True))

        at_input = all(x.at_input for x in xs)
        low, high = (
            np.concatenate([[0.0], *(getattr(x, end) for x in xs)])[source] if at_input else None
            for end in ("low", "high")
        )
        return self.keep(Value(function(*(x.data for x in xs)), back, at_input, low, high))

    def winners(self, size: int, x: Value) -> Value:
        """Max pooling without padding: the winner takes all."""
        data, index = F.max_pool2d(x.data, size, return_indices=True)
        area = x.data[0, 0].numel()
        offset = torch.arange(x.data.shape[1]).view(1, -1, 1, 1) * area
        source = (index + offset).reshape(-1).numpy()

        def back(r: Array) -> list[tuple[Value, Array]]:
            total = np.zeros_like(x.a)
            np.add.at(total, source, r)
            return [(x, total)]

        return self.keep(Value(data, back))

    def average(self, function: Callable[[Tensor], Tensor], x: Value) -> Value:
        """A linear map without weights of its own: shared in proportion to the contributions, without ε."""
        return self.proportional(unrolled(function, x.data.shape), x, function(x.data))

    def proportional(self, w: Array, x: Value, data: Tensor) -> Value:
        """In proportion to the contributions, over a sum that may have had a constant added to it."""
        z = data.reshape(-1).numpy()

        def back(r: Array) -> list[tuple[Value, Array]]:
            result = np.zeros_like(x.a)
            for j in range(len(z)):
                if z[j] != 0:
                    result += x.a * w[j] / z[j] * r[j]
            return [(x, result)]

        return self.keep(Value(data, back))

    def shifted(self, x: Value, shift: float) -> Value:
        """A constant added inside the model takes its share."""
        data = x.data + shift
        return self.keep(Value(data, lambda r: [(x, x.a / data.reshape(-1).numpy() * r)]))

    def sum(self, *xs: Value, signs: tuple[int, ...] = (1, 1)) -> Value:
        """Branches share in proportion to their parts; broadcast ones gather theirs."""
        parts = torch.broadcast_tensors(*(sign * x.data for x, sign in zip(xs, signs, strict=True)))
        total = parts[0] + parts[1]

        def back(r: Array) -> list[tuple[Value, Array]]:
            given = torch.from_numpy(r).view(total.shape)
            shares = [torch.where(total == 0, 0, p / torch.where(total == 0, 1, total)) * given for p in parts]
            return [(x, s.sum_to_size(x.data.shape).reshape(-1).numpy()) for x, s in zip(xs, shares, strict=True)]

        return self.keep(Value(total, back))

    def gate(self, gate: Value, signal: Value) -> Value:
        """The signal takes all."""
        return self.keep(Value(gate.data * signal.data, lambda r: [(signal, r)]))

    def product(self, a: Value, b: Value) -> Value:
        """Half and half."""
        return self.keep(Value(a.data * b.data, lambda r: [(a, r / 2), (b, r / 2)]))

    def matmul(self, a: Value, b: Value) -> Value:
        """a @ b of matrices (1, l, k) and (1, k, m): each product a_ik b_kj gives half of its part to either factor."""
        left, right = a.data[0].numpy(), b.data[0].numpy()
        z = left @ right

        def back(r: Array) -> list[tuple[Value, Array]]:
            given, of_a, of_b = r.reshape(z.shape), np.zeros_like(left), np.zeros_like(right)
            for i in range(len(z)):
                for j in range(z.shape[1]):
                    for k in range(len(right)):
                        half = left[i, k] * right[k, j] / z[i, j] * given[i, j] / 2 if z[i, j] else 0.0
                        of_a[i, k] += half
                        of_b[k, j] += half
            return [(a, of_a.reshape(-1)), (b, of_b.reshape(-1))]

        return self.keep(Value(torch.from_numpy(z)[None], back))

    def masked(self, mask: Tensor, x: Value) -> Value:
        """A constant, perhaps −∞, added to scores takes its part."""
        y = x.data + mask
        part = torch.where(y.isinf(), 0, x.data / torch.where(y == 0, 1, y)).reshape(-1).numpy()
        return self.keep(Value(y, lambda r: [(x, part * r)]))

    def root_mean_square(self, eps: float, x: Value) -> Value:
        """x over its root mean square, which is a constant."""
        below = (x.data.square().mean(-1, keepdim=True) + eps).sqrt()
        return self.keep(Value(x.data / below, lambda r: [(x, r)]))

    def layer_norm(self, norm: nn.LayerNorm, x: Value) -> Value:
        """(x − mean) γ / σ + β with σ constant."""
        deviation = (x.data.var(-1, keepdim=True, correction=0) + norm.eps).sqrt()
        w = unrolled(lambda v: (v - v.mean(-1, keepdim=True)) / deviation * norm.weight.detach(), x.data.shape)
        return self.proportional(w, x, norm(x.data).detach())

    def softmax(self, x: Value) -> Value:
        """R_i = x_i (R_i′ − s_i Σ_j R_j′), over the last axis; a score of −∞ gets nothing."""
        s = torch.softmax(x.data, -1)
        scores = torch.where(x.data.isinf(), 0, x.data).numpy()

        def back(r: Array) -> list[tuple[Value, Array]]:
            given = r.reshape(s.shape)
            return [(x, (scores * (given - s.numpy() * given.sum(-1, keepdims=True))).reshape(-1))]

        return self.keep(Value(s, back))

    def relevance(self, output: Value, target: int) -> None:
        """Give the target's score back to everything that it came from."""
        output.relevance[target] = output.a[target]
        for value in reversed(self.steps):
            for source, r in value.back(value.relevance):
                source.relevance = source.relevance + r


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as factor and shift."""
    sigma = torch.sqrt(norm.running_var + norm.eps)
    gamma = torch.ones_like(sigma) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(sigma) if norm.bias is None else norm.bias.detach()
    return gamma / sigma, beta - gamma * norm.running_mean / sigma
