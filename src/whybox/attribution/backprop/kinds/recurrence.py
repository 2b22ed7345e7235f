"""Recurrent nets and cells. With its gates and slopes as constants, a cell is a linear recursion, whose gradient is c:

    s_t = keep_t ⊙ s_{t−1} + take_t ⊙ (W x_t + b + reset_t ⊙ U h_{t−1}),    h_t = show_t ⊙ s_t.

The model's own kernel runs, layer by layer, so that its values stay bit for bit; from them follow the constants of all
time steps at once. Then the recursion runs, for the sake of its graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.kinds.activations import slope
from whybox.attribution.backprop.kinds.shapes import rearranged
from whybox.attribution.backprop.nodes import Stabiliser, Through
from whybox.attribution.backprop.provenance import Provenance, provenance, tensors
from whybox.attribution.backprop.refusal import circumstance
from whybox.attribution.backprop.rules import Rule
from whybox.attribution.backprop.sharing import LinearMap
from whybox.attribution.backprop.table import named

Kind = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
State = tuple[Tensor, Tensor]
"""h and s, which are the same but in an LSTM, whose s is the cell."""

_KINDS: dict[Any, Kind] = {}
for _kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    _KINDS.update(dict.fromkeys((*named(_kind), *named(f"{_kind}_cell")), _kind))
_NAMES = ("hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
_CELL_NAMES = ("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh")


class Weights(NamedTuple):
    """One layer in one direction, its gates one below the other; the projection of h, or None."""

    input: Tensor
    recurrent: Tensor
    input_bias: Tensor
    recurrent_bias: Tensor
    projection: Tensor | None

    @staticmethod
    def of(given: Sequence[Tensor], biases: bool) -> "Weights":
        """As torch has them in a row."""
        first, second, *rest = (part.detach() for part in given)
        none = first.new_zeros(len(first))
        return Weights(first, second, *(rest[:2] if biases else (none, none)), rest[-1] if len(rest) % 2 else None)


class Order(NamedTuple):
    """How many sequences, the longest first, have a t-th step. Rows are sorted by t, then by sequence."""

    sizes: list[int]
    backwards: bool = False

    def scan(self, step: Callable[[int, State], State], start: State) -> tuple[list[State], State]:
        """The states that `step(t, state before)` gives, sorted by t, and the last one of each sequence."""
        states, ended, times = [start] * len(self.sizes), [], range(len(self.sizes))
        state = _rows(start, 0, self.sizes[-1 if self.backwards else 0])
        for t in reversed(times) if self.backwards else times:
            running, size = len(state[0]), self.sizes[t]
            if size > running:
                state = _below(state, _rows(start, running, size))
            elif size < running:
                ended.append(_rows(state, size, running))
                state = _rows(state, 0, size)
            states[t] = state = step(t, state)
        return states, _below(state, *reversed(ended)) if ended else state


def _rows(state: State, first: int, end: int) -> State:
    return state if len(state[0]) == end - first else (state[0][first:end], state[1][first:end])


def _below(*states: State) -> State:
    return torch.cat([h for h, _ in states]), torch.cat([s for _, s in states])


class Constants(NamedTuple):
    """Those of the recursion at all rows, and z = W x + b + reset ⊙ U h. None: zeros for `keep`, else ones."""

    z: Tensor
    take: Tensor
    keep: Tensor | None = None
    reset: Tensor | None = None
    show: Tensor | None = None


def _lstm(weights: Weights, x: Tensor, h: Tensor, order: Order, start: State) -> Constants:
    """Arras, Montavon, Müller & Samek 2017: the gates get nothing, c shares between f ⊙ c_{t−1} and i ⊙ g."""
    gates = F.linear(x, weights.input, weights.input_bias) + F.linear(h, weights.recurrent, weights.recurrent_bias)
    i, f, z, o = gates.chunk(4, 1)
    i, f = i.sigmoid(), f.sigmoid()
    new, kept = (i * z.tanh()).split(order.sizes), f.split(order.sizes)

    def step(t: int, state: State) -> State:
        return (cell := torch.addcmul(new[t], kept[t], state[1])), cell

    cells = torch.cat([cell for _, cell in order.scan(step, (start[1], start[1]))[0]])
    return Constants(z, i * slope(torch.tanh, z), f, show=o.sigmoid() * slope(torch.tanh, cells))


def _gru(weights: Weights, x: Tensor, h: Tensor, _order: Order, _start: State) -> Constants:
    """h shares between z ⊙ h_{t−1} and (1 − z) ⊙ n; the gates z and r get nothing."""
    ours = F.linear(x, weights.input, weights.input_bias).chunk(3, 1)
    before = F.linear(h, weights.recurrent, weights.recurrent_bias).chunk(3, 1)
    reset, keep = ((a + b).sigmoid() for a, b in zip(ours[:2], before[:2], strict=True))
    z = torch.addcmul(ours[2], reset, before[2])
    return Constants(z, (1 - keep) * slope(torch.tanh, z), keep, reset)


def _plain(function: Callable[[Tensor], Tensor]) -> Callable[..., Constants]:
    def rnn(weights: Weights, x: Tensor, h: Tensor, _order: Order, _start: State) -> Constants:
        z = F.linear(x, weights.input, weights.input_bias) + F.linear(h, weights.recurrent, weights.recurrent_bias)
        return Constants(z, (z > 0).to(z.dtype) if function is torch.relu else slope(function, z))

    return rnn


_CONSTANTS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _plain(torch.tanh), "rnn_relu": _plain(torch.relu)}
_SIGNAL = {"lstm": (4, 2), "gru": (3, 2), "rnn_tanh": (1, 0), "rnn_relu": (1, 0)}  # how many parts; which is no gate


@handles(*(function for function in _KINDS if not function.__name__.endswith("_cell")))
def recurrent_net(engine: Engine, function: Any, args: Any, kwargs: Any) -> tuple[Tensor, ...]:
    """All time steps of all layers, both ways if so asked, of batches and of packed sequences."""
    packed = "batch_sizes" in kwargs or (len(args) > 3 and isinstance(args[3], (tuple, list)))
    names = ("data", "batch_sizes", *_NAMES) if packed else ("input", *_NAMES, "batch_first")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    kind, hx, params, biases, layers = (_KINDS[function], *(given[name] for name in _NAMES[:4]))
    x, ways = given[names[0]], 2 if given["bidirectional"] else 1
    signal = _signal(engine, (x, hx), params)
    if given["train"] and given["dropout"] > 0:
        raise circumstance("dropout between recurrent layers", engine.where, "explain the model in eval mode")
    turned = not packed and given["batch_first"]
    with engine:  # so that the explained input stays known as what it is
        x = x.transpose(0, 1) if turned else x
        rows = x if packed else x.flatten(0, 1)
    sizes = given["batch_sizes"].tolist() if packed else [x.shape[1]] * len(x)
    states = hx if kind == "lstm" else (hx,)
    weights = [
        params[i : i + len(params) // (layers * ways)] for i in range(0, len(params), len(params) // (layers * ways))
    ]
    lasts, values = [], []
    for layer in range(layers):
        places = range(layer * ways, (layer + 1) * ways)
        with torch.no_grad():
            begin = tuple(part[places.start : places.stop] for part in states)
            shape = (rows, given["batch_sizes"]) if packed else (rows.view(x.shape[:2] + rows.shape[1:]),)
            flat = [part for place in places for part in weights[place]]
            options = (flat, biases, 1, 0.0, False, ways == 2, *(() if packed else (False,)))
            value, *ends = function(*shape, begin if kind == "lstm" else begin[0], *options)
        hidden, found = value.flatten(0, -2).chunk(ways, -1), []
        for way, place in enumerate(places):
            start = [part[place] for part in states]
            own, order = Weights.of(weights[place], biases), Order(sizes, way == 1)
            h, last = _unrolled(engine, kind, own, order, rows, start, hidden[way], signal)
            found.append(h)
            lasts.append(last)
        values.append(ends)
        h = torch.cat(found, 1)
        rows = _valued(engine, kind, h, value.flatten(0, -2))
    h = h.view(value.shape)
    output = (
        _valued(engine, kind, h.transpose(0, 1), value.transpose(0, 1)) if turned else _valued(engine, kind, h, value)
    )
    finals = [
        _valued(engine, kind if i == 0 else "lstm", torch.stack([last[i] for last in lasts]), torch.cat(parts))
        for i, parts in enumerate(zip(*values, strict=True))
    ]
    return (output, *finals)


@handles(*(function for function in _KINDS if function.__name__.endswith("_cell")))
def recurrent_cell(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """One time step."""
    given = {**dict(zip(_CELL_NAMES, args, strict=False)), **kwargs}
    x, hx, *params = (given.get(name) for name in _CELL_NAMES)
    params = [part for part in params if part is not None]
    signal, kind = _signal(engine, (x, hx), params), _KINDS[function]
    with torch.no_grad():
        value = function(x, hx, *params)
    states, values = (hx, value) if kind == "lstm" else ((hx,), (value,))
    order = Order([len(x)])
    _, last = _unrolled(engine, kind, Weights.of(params, len(params) > 2), order, x, states, values[0], signal)
    made = tuple(_valued(engine, kind, *pair) for pair in zip(last, values, strict=False))
    return made if kind == "lstm" else made[0]


def _signal(engine: Engine, inputs: Any, params: Sequence[Tensor]) -> Tensor:
    """One of the inputs that depend on the explained one."""
    if any(provenance(part) is not None for part in params):
        raise circumstance("recurrent weights that depend on the input", engine.where, "no rule is known for that")
    return next(x for x in tensors(inputs) if provenance(x) is not None)


def _unrolled(
    engine: Engine,
    kind: Kind,
    weights: Weights,
    order: Order,
    x: Tensor,
    states: Sequence[Tensor],
    hidden: Tensor,
    signal: Tensor,
) -> tuple[Tensor, State]:
    """One layer in one direction as a recursion: h at all rows, whose values are `hidden`, and the last states."""
    own = tuple(part if part.requires_grad else engine.constant(part, signal) for part in states)
    start = (own[0], own[-1])
    with torch.no_grad():
        constants = _CONSTANTS[kind](weights, x.detach(), _before(order, hidden, start), order, start)
    parts, which = _SIGNAL[kind]
    weight, recurrent, bias, shift = (part.detach().chunk(parts)[which] for part in weights[:4])
    if constants.reset is None:
        bias, shift = bias + shift, None
    record = provenance(x)
    rule = engine.rule("dense", Provenance(None))
    first = rule if record is None else engine.rule("dense", record)
    epsilon, inner = 0.0, rule
    if rule.plain and rule == first:  # one stabiliser for the whole of z
        epsilon, inner = rule.epsilon, replace(rule, epsilon=0.0)
        first = inner
    z, take, keep, reset, show = constants
    linear = LinearMap(F.linear, weight, bias, record is not None and record.nonnegative, "dense")
    if record is None:
        below = engine.constant(F.linear(x, weight, bias), signal)
    else:
        below = engine.linear("dense", linear, x, lambda: F.linear(x, weight, bias), rule=first)

    def charge(c: Tensor) -> dict[str, Tensor]:
        absorbed = {"epsilon": c * epsilon * torch.where(z < 0, -1, 1)}
        return absorbed if shift is None or not _native(inner) else {**absorbed, "bias": c * shift * reset}

    engine._charge(below, charge)
    belows, takes, keeps, resets, shows = (
        None if part is None else part.split(order.sizes) for part in (below, take, keep, reset, show)
    )

    def step(t: int, state: State) -> State:
        before = _mapped(engine, recurrent, shift, inner, state[0])
        z = belows[t] + before if resets is None else torch.addcmul(belows[t], resets[t], before)
        s = takes[t] * (Stabiliser.apply(z, epsilon) if epsilon else z)
        s = s if keeps is None else torch.addcmul(s, keeps[t], state[1])
        h = s if shows is None else shows[t] * s
        return h if weights.projection is None else _mapped(engine, weights.projection, None, rule, h), s

    found, last = order.scan(step, start)
    return torch.cat([h for h, _ in found]), last


def _before(order: Order, hidden: Tensor, start: State) -> Tensor:
    """h_{t−1} at all rows."""
    shown, before = hidden.split(order.sizes), {}

    def step(t: int, state: State) -> State:
        before[t] = state[0]
        return shown[t], shown[t]

    order.scan(step, (start[0], start[0]))
    return torch.cat([before[t] for t in range(len(shown))])


def _native(rule: Rule) -> bool:
    """Whether the gradient is the rule."""
    return rule.plain and not rule.epsilon


def _mapped(engine: Engine, weight: Tensor, bias: Tensor | None, rule: Rule, h: Tensor) -> Tensor:
    """A linear map of h at one time step."""
    if not h.requires_grad or _native(rule):
        return F.linear(h, weight, bias)
    engine.signal(h, Provenance(h.grad_fn))
    return engine.linear(
        "dense", LinearMap(F.linear, weight, bias, layout="dense"), h, lambda: F.linear(h, weight, bias), rule=rule
    )


def _valued(engine: Engine, kind: Kind, unrolled: Tensor, value: Tensor) -> Tensor:
    """The kernel's value in the place of the recursion's, which is the same but for rounding."""
    output = Through.apply(lambda c: c, unrolled, value)  # type: ignore[no-untyped-call]
    return engine.signal(output, Provenance(output.grad_fn, nonnegative=kind == "rnn_relu"))


@handles("_pack_padded_sequence", "_pad_packed_sequence", torch._C._nn.pad_sequence)
def packing(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Sequences below each other without their padding, and back."""
    return rearranged(engine, function, args, kwargs)
