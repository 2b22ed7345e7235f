"""Recurrent nets and cells. With its gates and slopes as constants, a cell is a linear recursion, whose gradient is c:

    s_t = keep_t ⊙ s_{t−1} + take_t ⊙ (W x_t + b + reset_t ⊙ U h_{t−1}),    h_t = show_t ⊙ s_t.

The model's own kernel runs, layer by layer, so that its values stay bit for bit; from them follow the constants of all
time steps at once. Then the recursion runs, for the sake of its graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.backprop.engine import Engine, handles
from whybox.attribution.backprop.kinds.activations import slope
from whybox.attribution.backprop.kinds.shapes import rearranged
from whybox.attribution.backprop.nodes import Stabiliser, Through
from whybox.attribution.backprop.provenance import Provenance, provenance
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
        ours, before = rest[:2] if biases else (first.new_zeros(len(first)),) * 2
        return Weights(first, second, ours, before, rest[-1] if len(rest) % 2 else None)


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
    if given["train"] and given["dropout"] > 0 and given["num_layers"] > 1:
        raise circumstance("dropout between recurrent layers", engine.where, "explain the model in eval mode")
    params, biases, layers = given["params"], given["has_biases"], given["num_layers"]
    run, x, states = _started(engine, function, given[names[0]], given["hx"], params)
    turned, ways = not packed and given["batch_first"], 2 if given["bidirectional"] else 1
    with engine:  # so that the explained input stays known as what it is
        x = x.transpose(0, 1) if turned else x
        rows = x if packed else x.flatten(0, 1)
    sizes = given["batch_sizes"].tolist() if packed else [x.shape[1]] * len(x)
    per, lasts, ends = len(params) // (layers * ways), [], []
    for layer in range(layers):
        places = range(layer * ways, (layer + 1) * ways)
        own = params[per * places.start : per * places.stop]
        with torch.no_grad():
            begin = tuple(part[places.start : places.stop] for part in states)
            shape = (rows, given["batch_sizes"]) if packed else (rows.unflatten(0, x.shape[:2]),)
            options = (own, biases, 1, 0.0, False, ways == 2, *(() if packed else (False,)))
            value, *end = function(*shape, begin if run.kind == "lstm" else begin[0], *options)
        found = []
        for way, hidden in enumerate(value.flatten(0, -2).chunk(ways, 1)):
            weights = Weights.of(own[way * per : (way + 1) * per], biases)
            start = [part[places[way]] for part in states]
            h, last = run.layer(weights, Order(sizes, way == 1), rows, start, hidden)
            found.append(h)
            lasts.append(last)
        ends.append(end)
        unrolled = torch.cat(found, 1)
        rows = run.valued(unrolled, value.flatten(0, -2))
    both = (unrolled.view(value.shape), value)
    output = run.valued(*(part.transpose(0, 1) for part in both) if turned else both)
    found = [torch.stack(parts) for parts in zip(*lasts, strict=True)]
    return output, *map(run.valued, found, map(torch.cat, zip(*ends, strict=True)))


@handles(*(function for function in _KINDS if function.__name__.endswith("_cell")))
def recurrent_cell(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """One time step."""
    given = {**dict(zip(_CELL_NAMES, args, strict=False)), **kwargs}
    params = [part for name in _CELL_NAMES[2:] if (part := given.get(name)) is not None]
    run, x, states = _started(engine, function, given["input"], given["hx"], params)
    with torch.no_grad():
        value = function(x, given["hx"], *params)
    values = value if run.kind == "lstm" else (value,)
    _, last = run.layer(Weights.of(params, len(params) > 2), Order([len(x)]), x, states, values[0])
    made = tuple(map(run.valued, last, values))
    return made if run.kind == "lstm" else made[0]


def _started(
    engine: Engine, function: Any, x: Tensor, hx: Any, params: Sequence[Tensor]
) -> tuple["Unrolling", Tensor, list[Tensor]]:
    """What unrolls it, the input and the initial states, of which those that do not depend on the input are cut off."""
    if any(map(engine.is_signal, params)):
        raise circumstance("recurrent weights that depend on the input", engine.where, "no rule is known for that")
    given = [x, *(hx if _KINDS[function] == "lstm" else (hx,))]
    x, *states = (part if engine.is_signal(part) else part.detach() for part in given)
    signal = next(part for part in (x, *states) if part.requires_grad)
    return Unrolling(engine, _KINDS[function], signal), x, states


@dataclass(frozen=True)
class Unrolling:
    """Runs recursions for the sake of their graph; `signal` is one of the inputs that depend on the explained one."""

    engine: Engine
    kind: Kind
    signal: Tensor

    def layer(
        self, weights: Weights, order: Order, x: Tensor, states: Sequence[Tensor], hidden: Tensor
    ) -> tuple[Tensor, State]:
        """One layer in one direction: h at all rows, of which `hidden` are the values, and the last states."""
        engine, (parts, which) = self.engine, _SIGNAL[self.kind]
        own = [part if part.requires_grad else engine.constant(part, self.signal) for part in states]
        start = (own[0], own[-1])
        with torch.no_grad():
            constants = _CONSTANTS[self.kind](weights, x, _before(order, hidden, start), order, start)
        weight, recurrent, bias, shift = (part.chunk(parts)[which] for part in weights[:4])
        reset = constants.reset
        if reset is None:  # then both biases are one
            bias = bias + shift
        record, rule = provenance(x), engine.rule("dense", Provenance(None))
        first = rule if record is None else engine.rule("dense", record)
        epsilon, inner = 0.0, rule
        if rule.plain and rule == first:  # one stabiliser for the whole of z
            epsilon, inner = rule.epsilon, replace(rule, epsilon=0.0)
            first = inner
        if record is None:
            below = engine.constant(F.linear(x, weight, bias), self.signal)
        else:
            linear = LinearMap(F.linear, weight, bias, record.nonnegative, "dense")
            below = engine.linear("dense", linear, x, lambda: F.linear(x, weight, bias), rule=first)

        def charge(c: Tensor) -> dict[str, Tensor]:
            absorbed = {"epsilon": c * epsilon * torch.where(constants.z < 0, -1, 1)}
            return absorbed if reset is None or not _native(inner) else {**absorbed, "bias": c * shift * reset}

        engine._charge(below, charge)
        belows, takes = below.split(order.sizes), constants.take.split(order.sizes)
        keeps, resets, shows = (
            () if part is None else part.split(order.sizes) for part in (constants.keep, reset, constants.show)
        )

        def step(t: int, state: State) -> State:
            before = self._mapped(recurrent, shift if resets else None, inner, state[0])
            z = torch.addcmul(belows[t], resets[t], before) if resets else belows[t] + before
            s = takes[t] * (Stabiliser.apply(z, epsilon) if epsilon else z)  # type: ignore[no-untyped-call]
            s = torch.addcmul(s, keeps[t], state[1]) if keeps else s
            h = shows[t] * s if shows else s
            return h if weights.projection is None else self._mapped(weights.projection, None, rule, h), s

        found, last = order.scan(step, start)
        return torch.cat([h for h, _ in found]), last

    def valued(self, unrolled: Tensor, value: Tensor) -> Tensor:
        """The kernel's value in the place of the recursion's, which is the same but for rounding."""
        output = Through.apply(lambda c: c, unrolled, value)  # type: ignore[no-untyped-call]
        return self.engine.signal(output, Provenance(output.grad_fn, nonnegative=self.kind == "rnn_relu"))

    def _mapped(self, weight: Tensor, bias: Tensor | None, rule: Rule, h: Tensor) -> Tensor:
        """A linear map of h at one time step."""
        if not h.requires_grad or _native(rule):
            return F.linear(h, weight, bias)
        self.engine.signal(h, Provenance(h.grad_fn))
        linear = LinearMap(F.linear, weight, bias, layout="dense")
        return self.engine.linear("dense", linear, h, lambda: F.linear(h, weight, bias), rule=rule)


def _native(rule: Rule) -> bool:
    """Whether the gradient is the rule."""
    return rule.plain and not rule.epsilon


def _before(order: Order, hidden: Tensor, start: State) -> Tensor:
    """h_{t−1} at all rows."""
    shown, before = hidden.split(order.sizes), {}

    def step(t: int, state: State) -> State:
        before[t] = state[0]
        return shown[t], shown[t]

    order.scan(step, (start[0], start[0]))
    return torch.cat([before[t] for t in range(len(shown))])


@handles("_pack_padded_sequence", "_pad_packed_sequence", torch._C._nn.pad_sequence)
def packing(engine: Engine, function: Any, args: Any, kwargs: Any) -> Any:
    """Sequences below each other without their padding, and back."""
    padding = next((x for x in (*args, *kwargs.values()) if isinstance(x, float)), None)
    return rearranged(engine, function, args, kwargs, filled=padding)
