"""Recurrent nets: maps against surrogates, the formulas written as loops, and the same nets spelled out in torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_runs import Net, input_times_gradient, under_engine
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from unrolled import Unrolled, arras

import whybox
from whybox import LRP, Model
from whybox.attribution.backprop import rules
from whybox.attribution.backprop.composites import Composite, Match
from whybox.core.errors import InputError, ModelError

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
EPSILON = 0.01
NETS: dict[str, Callable[..., nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn tanh": nn.RNN,
    "rnn relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers both ways": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}
MORE: dict[str, dict[str, Any]] = {
    "gru": {"bias": False, "batch_first": True},
    "lstm": {"proj_size": 2, "num_layers": 2, "bidirectional": True, "bias": False},
}
CASES = [(kind, name, options) for kind in NETS for name, options in OPTIONS.items()]
CASES += [(kind, ", ".join(options), options) for kind, options in MORE.items()]
every_net = pytest.mark.parametrize(
    ("kind", "options"), [(kind, options) for kind, _, options in CASES], ids=[f"{k} {n}" for k, n, _ in CASES]
)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module: nn.Module) -> Any:
    for number, value in enumerate(module.parameters()):
        value.data = draw(*value.shape, seed=number) * 0.6
    return module.eval()


def recurrent(kind: str, **options: Any) -> Any:
    return filled(NETS[kind](3, 4, dtype=torch.float64, **options))


def weighted(output: Tensor) -> Tensor:
    """A score of which every output has a part of its own."""
    return (output * draw(*output.shape, seed=5)).sum()


def outputs(part: nn.Module, *inputs: Any) -> Tensor:
    """All that the net gives out, with the last states."""
    output, *ends = part(*inputs)
    ends = ends[0] if isinstance(ends[0], tuple) else ends
    return torch.cat([output.flatten(), *(end.flatten() for end in ends)])


def starting(net: nn.RNNBase, x: Tensor) -> Any:
    """Initial states (layers · ways, 5, size) that depend on the input (…, 5, …)."""
    rows = net.num_layers * (1 + net.bidirectional)
    mean = x.movedim(0 if net.batch_first else 1, 0).mean((1, 2))[None, :, None]
    h, c = (mean * draw(rows, 1, size, seed=size) + 0.1 for size in (net.proj_size or 4, 4))
    return (h, c) if net.mode == "LSTM" else h


@every_net
def test_equals_input_times_gradient_of_the_surrogate(kind: str, options: dict[str, Any]) -> None:
    net, x = recurrent(kind, **options), draw(5, 5, 3)
    value, relevance, engine = under_engine(Net(lambda n, x: outputs(n.a, x), a=net), x, target=weighted)
    leaf = x.clone().requires_grad_()
    surrogate = outputs(Unrolled(net, detach=True), leaf)
    (gradient,) = torch.autograd.grad(weighted(surrogate), leaf)
    torch.testing.assert_close(value, surrogate.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(relevance, leaf.detach() * gradient, rtol=1e-9, atol=1e-11)
    assert {operation.module for operation in engine.operations} == {"a"}
    (plain,) = torch.autograd.grad(weighted(outputs(net, leaf)), leaf)
    if kind != "rnn relu":
        assert not torch.allclose(gradient, plain, rtol=0.1)


@every_net
@pytest.mark.parametrize(
    "composite",
    [
        Composite(((Match(kind="dense"), rules.z_plus()),)),
        Composite(((Match(first=True), rules.flat()), (Match(kind="dense"), rules.gamma(0.5)))),
    ],
    ids=["z+", "flat and gamma"],
)
def test_any_rule_as_in_the_net_spelled_out(kind: str, options: dict[str, Any], composite: Composite) -> None:
    net, x = recurrent(kind, **options), draw(1, 5, 5, 3)

    def of(part: nn.Module) -> nn.Module:
        return Net(lambda n, x: weighted(outputs(n.part, x[0], starting(net, x[0]))).view(1, 1), part=part)

    found, wanted = (LRP(composite)(of(part), x, 0) for part in (net, Unrolled(net, detach=False)))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("epsilon", [0.0, EPSILON])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, OPTIONS["two layers both ways"]])
def test_lstm_as_in_arras_et_al(options: dict[str, Any], epsilon: float) -> None:
    net, x, out = recurrent("lstm", **{**options, "batch_first": True}), draw(1, 5, 3), nn.Linear(4, 2).double()
    out = filled(nn.Linear(4 * (1 + net.bidirectional), 2, dtype=torch.float64))
    relevance = LRP("epsilon", epsilon)(Net(lambda n, x: n.out(n.a(x)[0][:, 2]), a=net, out=out), x, 1)
    with torch.no_grad():
        hidden = net(x)[0][0]
        score = out(hidden[2])[1]
        above = torch.zeros_like(hidden)
        above[2] = hidden[2] * out.weight[1] / (score + epsilon * score.sign()) * score
        torch.testing.assert_close(relevance[0], arras(net, x[0], above, epsilon), rtol=1e-9, atol=1e-12)
    assert bool((relevance[0, 3:] != 0).any()) == net.bidirectional


@every_net
def test_float32_keeps_the_values_and_the_map(kind: str, options: dict[str, Any]) -> None:
    net, x = Net(lambda n, x: outputs(n.a, x), a=recurrent(kind, **options)), draw(5, 5, 3)
    _, wanted, _ = under_engine(net, x, target=weighted)
    value, relevance, _ = under_engine(net.float(), x.float(), target=lambda y: weighted(y.double()).float())
    with torch.no_grad():
        assert torch.equal(value, net(x.float()))
    torch.testing.assert_close(relevance.double(), wanted, rtol=1e-4, atol=1e-5)


@every_net
@pytest.mark.parametrize("both", [True, False], ids=["beside it", "alone"])
def test_states_that_depend_on_the_input(kind: str, options: dict[str, Any], both: bool) -> None:
    net, x, other = recurrent(kind, **options), draw(5, 5, 3), draw(5, 5, 3, seed=3)

    def run(part: nn.Module, x: Tensor) -> Tensor:
        return outputs(part, x if both else other, starting(net, x))

    _, relevance, _ = under_engine(Net(lambda n, x: run(n.a, x), a=net), x, target=weighted)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(weighted(run(Unrolled(net, detach=True), leaf)), leaf)
    torch.testing.assert_close(relevance, leaf.detach() * gradient, rtol=1e-9, atol=1e-11)


@every_net
@pytest.mark.parametrize("composite", ["epsilon", "excitation"])
def test_the_score_is_the_relevance_and_all_that_was_absorbed(
    kind: str, options: dict[str, Any], composite: str
) -> None:
    net, x = recurrent(kind, **options), draw(1, 5, 5, 3)
    h, c = (draw(net.num_layers * (1 + net.bidirectional), 5, size, seed=8) for size in (net.proj_size or 4, 4))
    states = (h, c) if kind == "lstm" else h
    lrp = LRP(composite, EPSILON)

    def traced(run: Callable[[Any, Tensor], Tensor]) -> Any:
        model = Net(lambda n, x: weighted(run(n.a, x[0])).view(1, 1), a=net)
        trace = lrp.trace(model, x, 0)
        assert float(trace.gap.max()) < 1e-9
        assert float(trace.total_gap.max()) < 1e-9
        torch.testing.assert_close(trace.relevance[0], lrp(model, x, 0).sum())
        return next(i for i, step in enumerate(trace.steps) if step.kind == "recurrent_net"), trace

    place, trace = traced(lambda a, x: outputs(a, x, states))
    took = {cause: float(amount[0, place]) for cause, amount in trace.absorbed.items()}
    assert took["constant"] != 0
    assert took["epsilon"] != 0
    assert (took["bias"] != 0) == net.bias
    traced(lambda a, x: outputs(a, draw(5, 5, 3), starting(a, x)))
    traced(lambda a, x: outputs(a, x))


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("epsilon", [0.0, EPSILON])
def test_a_cell_is_a_net_of_one_step(kind: str, epsilon: float) -> None:
    net, x = recurrent(kind), draw(4, 5, 3)
    given = {"nonlinearity": net.mode[4:].lower()} if kind.startswith("rnn") else {}
    cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}.get(kind, nn.RNNCell)(3, 4, dtype=torch.float64, **given)
    for name, value in cell.named_parameters():
        value.data = getattr(net, f"{name}_l0").data

    def steps(n: Any, x: Tensor) -> Tensor:
        state, shown = None, []
        for row in x:
            state = n.a(row, state)
            shown.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(shown)

    value, found, _ = under_engine(Net(steps, a=cell), x, epsilon=epsilon, target=weighted)
    plain, wanted, _ = under_engine(Net(lambda n, x: n.a(x)[0], a=net), x, epsilon=epsilon, target=weighted)
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


LENGTHS = [3, 6, 1, 4]


@every_net
def test_packed_sequences_are_the_sequences_one_by_one(kind: str, options: dict[str, Any]) -> None:
    net, out, x = recurrent(kind, **{**options, "batch_first": True}), nn.LazyLinear(2).double(), draw(4, 6, 3)
    out(net(x)[0])
    lengths = torch.tensor(LENGTHS)

    def packed(n: Any, x: Tensor) -> Tensor:
        output, _ = n.a(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        output, sizes = pad_packed_sequence(output, batch_first=True)
        return n.out(output.sum(1) + output[torch.arange(4), sizes - 1])

    def alone(n: Any, x: Tensor) -> Tensor:
        output = n.a(x)[0]
        return n.out(output.sum(1) + output[:, -1])

    def from_pack(n: Any, x: Tensor) -> Tensor:
        rows = [row[:length] for row, length in zip(x, LENGTHS, strict=True)]
        given = pack_sequence(sorted(rows, key=len, reverse=True))
        output = torch.nn.utils.rnn.unpack_sequence(n.a(given)[0])
        order = torch.tensor(LENGTHS).argsort(descending=True).argsort().tolist()
        return torch.stack([n.out(output[i].sum(0) + output[i][-1]) for i in order])

    composite = Composite(((Match(kind="dense"), rules.z_plus()),))
    for lrp in (LRP("epsilon", EPSILON), LRP(composite)):
        found, other = (lrp(Model(Net(run, a=net, out=out), chunk=4), x, 1) for run in (packed, from_pack))
        torch.testing.assert_close(other, found, rtol=1e-9, atol=1e-12)
        for row, length in enumerate(LENGTHS):
            wanted = lrp(Net(alone, a=net, out=out), x[row : row + 1, :length], 1)
            torch.testing.assert_close(found[row, :length], wanted[0], rtol=1e-9, atol=1e-12)
            assert not found[row, length:].any()


def test_a_packed_input_states_and_last_states() -> None:
    net, x = recurrent("lstm", num_layers=2, bidirectional=True), draw(6, 4, 3)

    def run(n: Any, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
        assert isinstance(packed, PackedSequence)
        mean = x.mean((0, 2))[None, :, None]
        return n.a(packed, (mean * draw(4, 1, 4), mean * draw(4, 1, 4, seed=2)))[1]

    def scored(n: Any, x: Tensor) -> Tensor:
        return sum(weighted(end) for end in run(n, x))  # type: ignore[return-value]

    _, found, _ = under_engine(Net(scored, a=net), x)
    leaf = x.clone().requires_grad_()
    surrogate, mean = Unrolled(net, detach=True), leaf.mean((0, 2))[None, :, None]
    states = mean * draw(4, 1, 4), mean * draw(4, 1, 4, seed=2)
    ends = []
    for row, length in enumerate(LENGTHS):
        start = tuple(part[:, row : row + 1] for part in states)
        ends.append(surrogate(leaf[:length, row : row + 1], start)[1:])
    total = sum(weighted(torch.cat(parts, 1)) for parts in zip(*ends, strict=True))
    (gradient,) = torch.autograd.grad(total, leaf)  # type: ignore[arg-type]
    torch.testing.assert_close(found, leaf.detach() * gradient, rtol=1e-9, atol=1e-11)


@every_net
def test_one_alone_is_as_in_a_batch(kind: str, options: dict[str, Any]) -> None:
    net, x = recurrent(kind, **{**options, "batch_first": True}).float(), draw(4, 6, 3).float()
    model = Net(lambda n, x: n.a(x)[0][:, -1], a=net)
    whole = LRP("epsilon")(model, x, 0)
    alone = torch.cat([LRP("epsilon")(model, x[i : i + 1], 0) for i in range(4)])
    torch.testing.assert_close(whole, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(LRP("epsilon")(Model(model, chunk=3), x, 0), whole, rtol=1e-5, atol=1e-6)


class Reader(nn.Module):
    """Words as numbers, an embedding, a net that reads both ways, and the mean of what it gives out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 3)
        self.reader = nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.reader(self.embedding(words))[0].mean(1))


def test_words_get_the_relevance_of_their_embedding() -> None:
    model = filled(Reader().double())
    words = torch.tensor([[1, 4, 2, 2, 8], [0, 3, 5, 7, 1]])
    explanation = whybox.explain(model, words, LRP("epsilon"), 1, at="embedding")
    below = Net(lambda n, x: n.out(n.reader(x)[0].mean(1)), reader=model.reader, out=model.out)
    wanted = LRP("epsilon")(below, model.embedding(words).detach(), 1)
    torch.testing.assert_close(explanation.by_position(), wanted.sum(2))
    absorbed = sum(explanation.details["absorbed"].values())
    torch.testing.assert_close(wanted.sum((1, 2)) + absorbed, explanation.scores.double())
    assert all(bool(check.passed.all()) for check in explanation.checks if check.name == "conservation gap")


def test_explained_inside_and_from_inside() -> None:
    model, words = filled(Reader().double()), torch.tensor([[1, 4, 2, 2, 8]])
    at = LRP("epsilon", 0.0)(model, words, 1, at="reader")
    assert at.shape == (1, 5, 8)
    neuron = LRP("epsilon", 0.0)(model, words, whybox.Neuron("reader", (2, 5)), at="embedding")
    assert bool((neuron != 0).all())


def test_what_has_no_rule_is_named() -> None:
    net = nn.LSTM(3, 4, 2, dropout=0.5).double()
    with pytest.raises(ModelError, match=r"dropout between recurrent layers in module 'a'.*eval"):
        under_engine(Net(lambda n, x: n.a(x)[0], a=net.train()), draw(5, 5, 3))

    single, x = recurrent("lstm"), draw(5, 5, 3)
    single.dropout = 0.5  # torch drops out between layers, of which there is one
    wanted, found = (under_engine(Net(lambda n, x: n.a(x)[0], a=single.train(train)), x)[1] for train in (False, True))
    assert torch.equal(wanted, found)

    composite = Composite(((Match(first=False), rules.flat()),))
    with pytest.raises(InputError, match="only the explained input itself can take"):
        LRP(composite)(Net(lambda n, x: n.a(x)[0][:, -1], a=recurrent("gru", batch_first=True)), draw(2, 5, 3), 0)


def test_a_net_without_curves_keeps_its_gradient() -> None:
    net, x = recurrent("rnn relu", num_layers=2, bidirectional=True), draw(5, 5, 3)
    model = Net(lambda n, x: n.a(x)[0], a=net)
    torch.testing.assert_close(under_engine(model, x)[1], input_times_gradient(model, x)[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_what_it_gives_out_may_be_written_into(kind: str, batch_first: bool) -> None:
    net, x = recurrent(kind, num_layers=2, batch_first=batch_first), draw(5, 5, 3)

    def run(part: nn.Module, x: Tensor) -> Tensor:
        output, *ends = part(x)
        last = ends[0][0] if isinstance(ends[0], tuple) else ends[0]  # torch gives (h, c) for an LSTM
        output.mul_(2.0)
        output[:, 1] = 0
        output[0] += last[0] * 1.5
        last.add_(output[0])
        output.transpose(0, 1)[2].relu_()
        return torch.cat([output.flatten(), last.flatten()])

    _, relevance, _ = under_engine(Net(lambda n, x: run(n.a, x), a=net), x, target=weighted)
    leaf = x.clone().requires_grad_()
    surrogate = Unrolled(net, detach=True)
    (gradient,) = torch.autograd.grad(weighted(run(surrogate, leaf)), leaf)
    torch.testing.assert_close(relevance, leaf.detach() * gradient, rtol=1e-9, atol=1e-12)
