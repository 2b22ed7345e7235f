"""Recurrent nets and cells, step by step in operations that have multipliers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.kinds.recurrence import Order, State, Weights
from whybox.attribution.backprop.lift.pairs import Pairs
from whybox.attribution.backprop.provenance import tensors
from whybox.attribution.backprop.refusal import circumstance

_NAMES = ("hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
_CELL_NAMES = ("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh")


def recurrent_net(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> tuple[Tensor, ...]:
    """All time steps of all layers, both ways if so asked, of batches and of packed sequences."""
    packed = "batch_sizes" in kwargs or (len(args) > 3 and isinstance(args[3], (tuple, list)))
    names = ("data", "batch_sizes", *_NAMES) if packed else ("input", *_NAMES, "batch_first")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given["train"] and given["dropout"] > 0:
        raise circumstance("dropout between recurrent layers", pairs.where, "explain the model in eval mode")
    kind, x, params, biases = function.__name__, given[names[0]], given["params"], given["has_biases"]
    _constant(pairs, params)
    states = given["hx"] if kind == "lstm" else (given["hx"],)
    turned, ways = not packed and given["batch_first"], 2 if given["bidirectional"] else 1
    per, lasts = len(params) // (given["num_layers"] * ways), []
    with pairs:
        x = x.transpose(0, 1) if turned else x
        rows = x if packed else x.flatten(0, 1)
        sizes = given["batch_sizes"].tolist() if packed else [x.shape[1]] * len(x)
        for layer in range(given["num_layers"]):
            found = []
            for way in range(ways):
                place = layer * ways + way
                weights = Weights.of(params[place * per : (place + 1) * per], biases)
                start = (states[0][place], states[-1][place])
                shown, last = _layer(kind, weights, Order(sizes, way == 1), rows, start)
                found.append(shown)
                lasts.append(last)
            rows = torch.cat(found, 1)
        output = rows if packed else rows.view(*x.shape[:2], -1)
        ends = [torch.stack(part) for part in zip(*lasts, strict=True)][: len(states)]
        return output.transpose(0, 1) if turned else output, *ends


def recurrent_cell(pairs: Pairs, function: Any, args: Any, kwargs: Any) -> Any:
    """One time step."""
    given = {**dict(zip(_CELL_NAMES, args, strict=False)), **kwargs}
    params = [part for name in _CELL_NAMES[2:] if (part := given.get(name)) is not None]
    _constant(pairs, params)
    kind, x, hx = function.__name__.removesuffix("_cell"), given["input"], given["hx"]
    start = tuple(hx) if kind == "lstm" else (hx, hx)
    with pairs:
        _, last = _layer(kind, Weights.of(params, len(params) > 2), Order([len(x)]), x, (start[0], start[1]))
    return last if kind == "lstm" else last[0]


def _constant(pairs: Pairs, params: Any) -> None:
    if any(map(pairs.varies, tensors(params))):
        raise circumstance("recurrent weights that depend on the input", pairs.where, "write the net out in steps")


def _layer(kind: str, weights: Weights, order: Order, rows: Tensor, start: State) -> tuple[Tensor, State]:
    """h at all rows, and the last states."""
    given = F.linear(rows, weights.input, weights.input_bias).split(order.sizes)

    def step(t: int, state: State) -> State:
        h, s = state
        before = F.linear(h, weights.recurrent, weights.recurrent_bias)
        if kind == "gru":
            reset, keep, new = given[t].chunk(3, 1)
            reset_before, keep_before, new_before = before.chunk(3, 1)
            keep = (keep + keep_before).sigmoid()
            new = (new + (reset + reset_before).sigmoid() * new_before).tanh()
            h = new + keep * (h - new)
            return h, h
        z = given[t] + before
        if kind != "lstm":
            h = z.relu() if kind == "rnn_relu" else z.tanh()
            return h, h
        i, f, g, o = z.chunk(4, 1)
        s = f.sigmoid() * s + i.sigmoid() * g.tanh()
        h = o.sigmoid() * s.tanh()
        return h if weights.projection is None else F.linear(h, weights.projection), s

    states, last = order.scan(step, start)
    return torch.cat([h for h, _ in states]), last
