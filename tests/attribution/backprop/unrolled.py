"""Recurrent nets in plain torch, step by step, and the relevance of an LSTM by the formulas of Arras et al. 2017."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Weights(NamedTuple):
    """One layer in one direction."""

    w: Tensor
    u: Tensor
    b: Tensor
    c: Tensor
    p: Tensor | None

    @staticmethod
    def of(net: nn.RNNBase, layer: int, backwards: bool) -> "Weights":
        def get(name: str) -> Tensor | None:
            return getattr(net, f"{name}_l{layer}{'_reverse' * backwards}", None)

        w, u, b, c, p = map(get, ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"))
        assert w is not None
        assert u is not None
        none = w.new_zeros(len(w))
        return Weights(w, u, none if b is None else b, none if c is None else c, p)


def kept(x: Tensor) -> Tensor:
    return x


def constant(x: Tensor) -> Tensor:
    return x.detach()


def secant(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    a = x.detach()
    return x * (function(a) / a)


class Unrolled(nn.Module):
    """nn.LSTM, nn.GRU and nn.RNN as plain loops over layers, directions and time steps.

    With `detach` it is the surrogate whose gradient times input is LRP-0: gates and the slopes of tanh are constants.
    """

    def __init__(self, net: nn.RNNBase, detach: bool) -> None:
        super().__init__()
        self.net, self.detach = net, detach

    def forward(self, x: Tensor, hx: tuple[Tensor, ...] | Tensor | None = None) -> tuple[Tensor, ...]:
        net, ways = self.net, 1 + self.net.bidirectional
        x = x.transpose(0, 1) if net.batch_first else x
        size = net.hidden_size
        if hx is None:
            zeros = x.new_zeros(net.num_layers * ways, x.shape[1], size)
            hx = (x.new_zeros(*zeros.shape[:2], net.proj_size or size), zeros) if net.mode == "LSTM" else zeros
        states = hx if isinstance(hx, tuple) else (hx, hx)
        lasts = []
        for layer in range(net.num_layers):
            both = []
            for way in range(ways):
                state = tuple(part[layer * ways + way] for part in states)
                times = range(len(x))[::-1] if way else range(len(x))
                shown = {}
                for t in times:
                    state = self.step(Weights.of(net, layer, bool(way)), x[t], *state)
                    shown[t] = state[0]
                both.append(torch.stack([shown[t] for t in range(len(x))]))
                lasts.append(state)
            x = torch.cat(both, -1)
        ends = tuple(torch.stack(part) for part in zip(*lasts, strict=True))
        return (x.transpose(0, 1) if net.batch_first else x, *(ends if net.mode == "LSTM" else ends[:1]))

    def step(self, k: Weights, x: Tensor, h: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        gate, mode = constant if self.detach else kept, self.net.mode
        tanh = (lambda a: secant(torch.tanh, a)) if self.detach else torch.tanh
        if mode == "GRU":
            a, b = F.linear(x, k.w, k.b).chunk(3, 1), F.linear(h, k.u, k.c).chunk(3, 1)
            r, z = gate((a[0] + b[0]).sigmoid()), gate((a[1] + b[1]).sigmoid())
            h = (1 - z) * tanh(a[2] + r * b[2]) + z * h
            return h, h
        a = F.linear(x, k.w, k.b + k.c) + F.linear(h, k.u)
        if mode != "LSTM":
            h = tanh(a) if mode == "RNN_TANH" else a.relu()
            return h, h
        i, f, g, o = a.chunk(4, 1)
        i, f, o = (gate(part.sigmoid()) for part in (i, f, o))
        s = f * s + i * tanh(g)
        h = o * tanh(s)
        return h if k.p is None else F.linear(h, k.p), s


def arras(net: nn.LSTM, x: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """R at the input x (t, d) of an LSTM from R at its output (t, h), one sample, literally as in Arras et al. 2017.

    Every layer's forward pass is stored step by step; then R goes back step by step, neuron by neuron.
    """
    ways, inputs, stored = 1 + net.bidirectional, [x], []
    for layer in range(net.num_layers):
        runs = [list(_forward(Weights.of(net, layer, bool(way)), inputs[-1], bool(way))) for way in range(ways)]
        stored.append(runs)
        ordered = [sorted(run, key=lambda step: step["t"]) for run in runs]
        inputs.append(torch.cat([torch.stack([step["h"] for step in run]) for run in ordered], 1))
    for layer in reversed(range(net.num_layers)):
        parts, below = relevance.chunk(ways, 1), torch.zeros_like(inputs[layer])
        for way in range(ways):
            below += _backward(
                Weights.of(net, layer, bool(way)), inputs[layer], stored[layer][way], parts[way], epsilon
            )
        relevance = below
    return relevance


def _forward(k: Weights, x: Tensor, backwards: bool) -> Iterator[dict]:
    size = k.u.shape[1]
    h, c = x.new_zeros(size), x.new_zeros(size)
    for t in range(len(x))[::-1] if backwards else range(len(x)):
        before = k.w @ x[t] + k.u @ h + k.b + k.c
        i, f, o = (before[n * size : (n + 1) * size].sigmoid() for n in (0, 1, 3))
        z = before[2 * size : 3 * size]
        g = z.tanh()
        step = {"t": t, "i": i, "f": f, "g": g, "z": z, "h before": h, "c before": c}
        c = f * c + i * g
        h = o * c.tanh()
        yield {**step, "c": c, "h": h}


def _backward(k: Weights, x: Tensor, steps: list[dict], relevance: Tensor, epsilon: float) -> Tensor:
    size = k.u.shape[1]
    w, u = k.w[2 * size : 3 * size], k.u[2 * size : 3 * size]
    at_x, at_h, at_c = torch.zeros_like(x), x.new_zeros(size), x.new_zeros(size)
    for step in reversed(steps):
        t = step["t"]
        at_h = at_h + relevance[t]
        at_c = at_c + at_h  # o gets nothing
        at_g = step["i"] * step["g"] / step["c"] * at_c  # i gets nothing
        at_c = step["f"] * step["c before"] / step["c"] * at_c  # f gets nothing
        at_h = x.new_zeros(size)
        for j in range(size):
            z = float(step["z"][j])
            share = at_g[j] / (z + epsilon * (1 if z >= 0 else -1))
            for i in range(x.shape[1]):
                at_x[t, i] += x[t, i] * w[j, i] * share
            for i in range(size):
                at_h[i] += step["h before"][i] * u[j, i] * share
    return at_x
