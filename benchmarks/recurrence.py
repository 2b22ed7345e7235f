"""LRP on LSTMs of 100 time steps: its time as a ratio to the gradient of the same LSTM in plain torch, step by step."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import ROUNDS, interleaved, one_thread, ratio, save
from benchmarks.peers import TARGET, gradient
from whybox import LRP, Model

STEPS = 100
GOAL = 4.0
# Samples, size of the input, size of the state, layers, whether both ways.
SUBJECTS = {
    "LSTM": (1, 64, 128, 1, False),
    "LSTM, batch": (16, 64, 128, 1, False),
    "LSTM, two layers both ways": (1, 64, 128, 2, True),
    "GRU": (1, 64, 128, 1, False),
}


class Unrolled(nn.Module):
    """An LSTM or GRU as plain loops over layers, directions and time steps."""

    def __init__(self, net: nn.RNNBase) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """As the net's, with the batch first."""
        x = x.transpose(0, 1)
        for layer in range(self.net.num_layers):
            ways = [x, x.flip(0)][: 1 + self.net.bidirectional]
            read = [torch.stack(self.steps(x, layer, "_reverse" * way)) for way, x in enumerate(ways)]
            x = torch.cat([h.flip(0) if way else h for way, h in enumerate(read)], -1)
        return x.transpose(0, 1), None

    def steps(self, x: Tensor, layer: int, suffix: str) -> list[Tensor]:
        """h at every time step of one layer in one direction."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w, u, b, c = (getattr(self.net, f"{name}_l{layer}{suffix}") for name in names)
        h, cell, shown = x.new_zeros(x.shape[1], u.shape[1]), x.new_zeros(x.shape[1], u.shape[1]), []
        for row in x:
            if isinstance(self.net, nn.GRU):
                ours, before = F.linear(row, w, b).chunk(3, 1), F.linear(h, u, c).chunk(3, 1)
                r, z = ((one + other).sigmoid() for one, other in zip(ours[:2], before[:2], strict=True))
                h = (1 - z) * (ours[2] + r * before[2]).tanh() + z * h
            else:
                i, f, g, o = (F.linear(row, w, b) + F.linear(h, u, c)).chunk(4, 1)
                cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                h = o.sigmoid() * cell.tanh()
            shown.append(h)
        return shown


class Classifier(nn.Module):
    """A dense layer behind the last time step."""

    def __init__(self, reader: nn.Module, out: nn.Linear) -> None:
        super().__init__()
        self.reader, self.out = reader, out

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, 1000)."""
        scores: Tensor = self.out(self.reader(x)[0][:, -1])
        return scores


def main() -> None:
    """Measure all nets."""
    one_thread()
    settings = {
        "steps": STEPS, "goal": GOAL, "rounds": ROUNDS, "composite": "epsilon", "weights": "random, seed 0",
        "subjects": {name: dict(zip(("samples", "input", "state", "layers", "both ways"), one, strict=True))
                     for name, one in SUBJECTS.items()},
    }  # fmt: skip
    save("recurrence", settings, {name: measure(name) for name in SUBJECTS})


def measure(name: str) -> dict[str, Any]:
    """Time on one net."""
    samples, given, size, layers, both = SUBJECTS[name]
    torch.manual_seed(0)
    make = nn.GRU if name == "GRU" else nn.LSTM
    net = make(given, size, layers, batch_first=True, bidirectional=both).eval()
    out = nn.Linear(size * (1 + both), 1000)
    fused, unrolled = Classifier(net, out), Classifier(Unrolled(net), out)
    x = torch.randn(samples, STEPS, given)
    torch.testing.assert_close(fused(x), unrolled(x), rtol=1e-4, atol=1e-5)
    timed = interleaved(
        {
            "unrolled": partial(gradient, unrolled, x),
            "fused": partial(gradient, fused, x),
            "epsilon": partial(LRP("epsilon"), Model(fused, chunk=samples), x, TARGET),
        }
    )
    return {"timed": timed, "ratio": {peer: ratio(timed, "epsilon", peer) for peer in ("unrolled", "fused")}}


if __name__ == "__main__":
    main()
