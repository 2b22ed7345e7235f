"""L2X: the columns that tell something are found and told from a control; what cannot be learned from is refused."""

import math
import re

import pytest
import torch
from chosen import COLUMNS, Oracle, draw, median_ranks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import whybox
from whybox import L2X, Fitted, Model, Patches
from whybox.attribution.learned.nets import Approximator, Layout, Selector
from whybox.attribution.learned.training import minibatches, read
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.block import noise_keys
from whybox.core.errors import InputError, ModelError
from whybox.core.regions import Regions

QUICK = {"steps": 3, "batch": 8}


class Linear(nn.Module):
    """Two classes by the sum of what is at the first places; also of tokens."""

    def __init__(self, tokens=0):
        super().__init__()
        self.embedding = nn.Embedding(tokens, 2) if tokens else None
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.embedding(x).sum(2) if self.embedding is not None else x
        odds = self.scale * x.flatten(1)[:, :3].sum(1)
        return torch.stack((odds, -odds), 1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state(net):
    """What a run might change: flags, hooks, weights, gradients, the random generator."""
    weights = [(p.tolist(), p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()]
    return net.training, len(net._forward_hooks), weights, torch.get_rng_state().tolist()


@pytest.fixture(scope="module")
def xor():
    return L2X(k=2, steps=1000).fit(Oracle("xor"), draw("xor", 5000, 0)[0])


def test_xor_is_found_and_the_answer_says_so(xor):
    x, true = draw("xor", 200, 1)
    answer = xor.run(Oracle("xor"), x)
    assert float(median_ranks(answer.relevance, true).median()) == 1.5
    assert float((median_ranks(answer.relevance, true) == 1.5).double().mean()) >= 0.98
    torch.testing.assert_close(answer.relevance.sum(1), torch.ones(200))
    assert bool((answer.details["selected"] == true).all(1).double().mean() >= 0.98)
    # With both factors the odds are exact, so that the model keeps its class and its probability.
    exact = Oracle("xor")(x).softmax(1).amax(1)
    chosen = (answer.details["selected"] == true).all(1)
    torch.testing.assert_close(answer.details["kept_probability"][chosen].float(), exact[chosen])
    found = answer.details["validation"]
    assert found["accuracy"] >= 0.98
    assert found["random_accuracy"] < 0.7
    assert found["information_kept"] > 0.8
    assert all(bool(check.passed.double().mean() >= 0.98) for check in answer.checks)
    assert answer.forwards == 3 * 200 + 3  # the prediction for the target, both answers, and the witnesses


def test_switch_selects_by_input():
    fitted = L2X(k=5, steps=1000).fit(Oracle("gentle switch"), draw("switch", 8000, 0)[0])
    x, true = draw("switch", 400, 1)
    ranks = median_ranks(fitted(Oracle("gentle switch"), x), true)
    for half in (x[:, 9] > 0, x[:, 9] <= 0):
        assert float(ranks[half].median()) == 3.0


def test_what_there_is_nothing_to_learn_from_is_at_chance_and_says_so():
    """A model whose answers are noise to the columns that are read: a hash of the input's last digits."""

    class Hash(nn.Module):
        def forward(self, x):
            odds = 3.0 * ((1e4 * x).round() % 2 * 2 - 1).prod(1)
            return torch.stack((odds, -odds), 1)

    fitted = L2X(k=2, steps=150).fit(Hash(), draw("xor", 3000, 0)[0])
    x, true = draw("xor", 400, 1)
    answer = fitted.run(Hash(), x)
    ranks = median_ranks(answer.relevance, true)
    assert 4 < float(ranks.mean()) < 7.5  # at chance 5.5
    lost, better = answer.checks[1], answer.checks[2]
    assert lost.name == "information lost by the selection"
    assert not bool(lost.passed.any())
    assert float(lost.values[0]) > 0.9
    assert better.name == "no better than regions at random"
    assert not bool(better.passed.any())


class Constantly(nn.Module):
    """Always the same answer."""

    def forward(self, x):
        return torch.tensor([0.3, 1.2, 0.0]).expand(len(x), 3)


class OfOneClass(nn.Module):
    """More or less sure of one class."""

    def forward(self, x):
        return torch.stack((4 + x[:, 0].tanh(), -x[:, 0].tanh()), 1)


def test_one_answer_and_one_class():
    x = draw("xor", 100, 0)[0]
    with pytest.raises(
        ModelError, match=r"answers alike for all 100 training inputs: class 1, with a probability from"
    ):
        L2X(k=2, **QUICK).fit(Constantly(), x)
    check = L2X(k=2, **QUICK).fit(OfOneClass(), x).run(OfOneClass(), x[:3]).checks[4]
    assert check.name == "one class in all that was learned from"
    assert not bool(check.passed.any())


@pytest.mark.parametrize(
    ("shape", "tokens", "regions", "k", "relevant"),
    [
        ((12,), 0, None, 4, (1, 12)),
        ((9,), 7, None, 4, (1, 9)),
        ((2, 40), 0, None, 4, (1, 1, 40)),
        ((3, 8, 10), 0, None, 4, (1, 1, 8, 10)),
        ((1, 9, 9), 0, Patches(4), 2, (1, 1, 9, 9)),
        ((2, 5, 4, 4), 0, None, 2, (1, 1, 5, 1, 1)),
    ],
    ids=["table", "tokens", "series", "picture", "patches", "video"],
)
def test_all_kinds_of_input(shape, tokens, regions, k, relevant):
    x = torch.randint(tokens, (40, *shape)) if tokens else normal(40, *shape)
    model = Linear(tokens)
    method = L2X(k=k, regions=regions, **QUICK)
    fitted = method.fit(model, x)
    answers = [fitted.run(Model(model, chunk=chunk), x[:5]) for chunk in (1, 3, None)]
    assert answers[0].relevance.shape == (5, *relevant[1:])
    selected = answers[0].details["selected"]
    labels = (regions or method._regions(_task(model, x))).labels(x[:1]).expand(selected[:1].shape)
    assert all(len(labels[0][row].unique()) == k for row in selected)
    for answer in answers[1:]:
        torch.testing.assert_close(answer.relevance, answers[0].relevance, rtol=0, atol=1e-6)
    torch.testing.assert_close(fitted(model, x[2:3]), answers[0].relevance[2:3], rtol=0, atol=1e-6)
    assert fitted == method.fit(model, x) != method.fit(model, x, seed=1)


def _task(model, x):
    return whybox.Task(Model(model), x, whybox.Logit(0), tuple(range(len(x))))


class OfTheLargest(nn.Module):
    """The sign of what is largest."""

    def forward(self, x):
        odds = 3 * x.flatten(1).pow(3).mean(1) * x[0].numel() / 9
        return torch.stack((odds, -odds), 1)


def planted(edge):
    """One patch, another one in each input, is lighter or darker than the rest: the model tells which of the two."""
    generator = torch.Generator().manual_seed(0)
    labels = Patches(3).labels(torch.zeros(1, 1, *edge))
    place = torch.randint(int(labels.max()) + 1, (1200,), generator=generator)
    sign = torch.randint(2, (1200,), generator=generator) * 2.0 - 1
    column = (-1, 1, *(1,) * len(edge))
    true = labels == place.view(column)
    return 0.2 * normal(1200, 1, *edge) + sign.view(column) * true, true


def test_a_planted_stretch_is_selected():
    x, true = planted((24,))
    fitted = L2X(k=1, regions=Patches(3), steps=300, batch=64, rate=5e-3).fit(OfTheLargest(), x[:1000])
    answer = fitted.run(OfTheLargest(), x[1000:])
    hit = (answer.details["selected"] == true[1000:]).flatten(1).all(1)
    assert float(hit.double().mean()) > 0.95
    assert answer.details["validation"]["accuracy"] > 0.95
    assert answer.details["validation"]["random_accuracy"] < 0.8
    assert all(bool(check.passed.double().mean() > 0.95) for check in answer.checks)


def test_a_selection_that_is_a_secret_code_is_recognised():
    """The selector tells q the class by which patch it selects; the model itself cannot see it there."""
    x, true = planted((9, 9))
    fitted = L2X(k=1, regions=Patches(3), steps=200, batch=64, rate=5e-3).fit(OfTheLargest(), x[:1000])
    answer = fitted.run(OfTheLargest(), x[1000:])
    hit = (answer.details["selected"] == true[1000:]).flatten(1).all(1)
    assert float(hit.double().mean()) < 0.7
    assert answer.details["validation"]["read_accuracy"] > 0.95
    check = answer.checks[3]
    assert check.name == "read by the second net alone"
    assert not bool(check.passed.any())


def test_draws_are_the_maximum_of_concrete_ones():
    scores, noise = normal(3, 5), torch.rand(3, 10, dtype=torch.float64)
    found = L2X(k=2)._relaxed(scores, noise, 0.4)
    for row in range(3):
        draws = [
            ((scores[row].double() - (-noise[row, 5 * j : 5 * j + 5].log()).log()) / 0.4).softmax(0) for j in (0, 1)
        ]
        torch.testing.assert_close(found[row].double(), torch.maximum(*draws), rtol=1e-4, atol=1e-6)


def test_the_training_is_that_of_a_loop():
    """Soft answers, draws by sample and step, the falling temperature; and what is said of the samples held out."""
    x, seed = normal(60, 6), 5
    model = Oracle("xor")
    fitted = L2X(k=2, steps=8, batch=10, rate=0.02, temperature=0.3).fit(model, x, seed=seed)
    answers = model(x).softmax(1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    held, own = order[:10], order[10:]
    layout = Layout(torch.arange(6), 0, 0)
    torch.manual_seed(seed)
    selector, reader = Selector(layout, x[own]), Approximator(layout, x[own], 2)
    mean, spread = x[own].mean(0), x[own].std(0, correction=0)
    keys = torch.tensor(noise_keys(seed, 60))

    def loss(rows, kept):
        log_q = reader.body((x[rows] * kept - mean) / spread).log_softmax(1)
        return -(answers[rows] * log_q).sum(1).mean()

    def hardest(rows):
        best = selector.body((x[rows] - mean) / spread).argsort(1, descending=True)[:, :2]
        return torch.stack([torch.isin(torch.arange(6), row) for row in best])

    adam = torch.optim.Adam([*selector.parameters(), *reader.parameters()], 0.02)
    temperatures = (1, 0.3**0.25, 0.3**0.5, 0.3**0.75, 0.3, 0.3, 0.3, 0.3)
    for step, places in minibatches(50, batch=10, steps=8, seed=seed, progress=False):
        rows = own[places]
        scores = selector.body((x[rows] - mean) / spread)
        gumbel = -(-uniform(keys[rows], torch.full((10,), step), 12).log()).log()
        draws = [((scores + g) / temperatures[step]).softmax(1) for g in gumbel.float().split(6, 1)]
        adam.zero_grad()
        loss(rows, torch.maximum(*draws)).backward()
        adam.step()
    adam = torch.optim.Adam(reader.parameters(), 0.02)
    for _, places in minibatches(50, batch=10, steps=2, seed=seed, progress=False):
        adam.zero_grad()
        loss(own[places], hardest(own[places]).float()).backward()
        adam.step()
    for name, value in selector.state_dict().items():
        torch.testing.assert_close(fitted.state[f"selector.{name}"], value, rtol=1e-3, atol=1e-5, msg=name)
    with torch.no_grad():
        kept = hardest(held)
        p, average = answers[held].double(), answers[held].double().mean(0)
        whole, left = -(average * average.log()).sum(), -(p * p.log()).sum(1).mean()
        information = (whole - loss(held, kept.float())) / (whole - left)
        same = model(x[held] * kept).argmax(1) == p.argmax(1)
        read = reader.body((x[held] * kept - mean) / spread).argmax(1) == p.argmax(1)
    assert float(fitted.state["information_kept"]) == pytest.approx(float(information), abs=1e-4)
    assert float(fitted.state["accuracy"]) == pytest.approx(float(same.double().mean()))
    assert float(fitted.state["read_accuracy"]) == pytest.approx(float(read.double().mean()))


def test_a_pooled_place_is_judged_where_it_is():
    """Thirty places in sevenths: fifteen, then eight pooled ones, of which the last covers two."""
    labels = torch.arange(30) * 7 // 30
    layout = Layout(labels, 1, 0)
    assert layout.pools == (True, True)
    x = torch.randn(4, 1, 30, generator=torch.Generator().manual_seed(0))
    selector = Selector(layout, x)
    selector.body = nn.Sequential(nn.MaxPool1d(2, ceil_mode=True), nn.MaxPool1d(2, ceil_mode=True))
    selector.read, selector.head = nn.Identity(), nn.Conv1d(2, 1, 1, bias=False)
    selector.head.weight.data = torch.tensor([[[1.0], [0.0]]])  # without what is strongest
    for row, scores in zip(x[:, 0], selector(x), strict=True):
        judged = torch.stack([row[i // 4 * 4 : i // 4 * 4 + 4].max() for i in range(30)])
        expected = torch.stack([judged[labels == region].mean() for region in range(7)])
        torch.testing.assert_close(scores, expected)


def test_saved_and_equal(xor, tmp_path):
    path = tmp_path / "xor.safetensors"
    xor.save(path)
    again = Fitted.load(path)
    x = draw("xor", 5, 2)[0]
    assert again == xor
    assert hash(again) == hash(xor)
    assert torch.equal(again(Oracle("xor"), x), xor(Oracle("xor"), x))


@pytest.mark.parametrize("kind", ["pairs", "alone", "dicts", "pair", "list"])
def test_loaders(kind, xor):
    x, y = normal(50, COLUMNS), torch.arange(50) % 2
    given = {
        "pairs": DataLoader(TensorDataset(x, y), batch_size=16),
        "alone": DataLoader(x, batch_size=16),
        "dicts": DataLoader([{"x": a, "label": int(b)} for a, b in zip(x, y, strict=True)], batch_size=16),
        "pair": (x, y),
        "list": list(x.split(16)),
    }[kind]
    found, labels = read(given)
    assert torch.equal(found, x)
    assert labels is None if kind in ("alone", "list") else torch.equal(labels, y)
    assert L2X(k=2, **QUICK).fit(Oracle("xor"), given) == L2X(k=2, **QUICK).fit(Oracle("xor"), x)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "the loader is empty"),
        (torch.zeros(0, 10), "the loader is empty"),
        ([torch.zeros(3, 10), torch.zeros(3, 9)], "several shapes"),
        ([torch.zeros(10)], "batch first"),
        ({"x": torch.zeros(3, 10)}, "not a dict"),
        ([{"pixels": torch.zeros(3, 10)}], "name the inputs 'inputs'"),
        ([(torch.zeros(3, 10), torch.zeros(2))], "3 inputs with 2 classes"),
        (7, "not a int"),
        (TensorDataset(torch.zeros(3, 10)), "DataLoader"),
        ((torch.zeros(3, 10), torch.zeros(2)), "3 inputs with 2 classes"),
        (torch.full((30, 10), torch.nan), "NaN or infinity"),
        (torch.full((30, 10), -1), "tokens are numbers from 0, not -1"),
        (torch.zeros(5, 10), "at least 20 inputs"),
        (torch.zeros(30, 2), "k = 2 selects all of the 2 regions"),
        (torch.zeros(30, 1, 2, 2, 2, 2, 2), "series, pictures and videos"),
    ],
)
def test_bad_data(given, says):
    with pytest.raises(InputError, match=re.escape(says)):
        L2X(k=2, regions=whybox.Along(1), **QUICK).fit(Oracle("xor"), given)


class OfEach(Regions):
    """Regions that lie otherwise in every input."""

    def labels(self, x):
        return (x[:, :1] > 0).long()


def test_bad_use(xor):
    x = draw("xor", 3, 0)[0]
    with pytest.raises(InputError, match=r"fitted = L2X\(…\)\.fit"):
        L2X()(Oracle("xor"), x)
    with pytest.raises(ModelError, match="answers otherwise"):
        xor(Oracle("orange"), x)
    with pytest.raises(InputError, match="asked to explain"):
        xor(Oracle("xor"), x[:, :9])
    with pytest.raises(InputError, match="lie alike"):
        L2X(k=2, regions=OfEach(), **QUICK).fit(Linear(), normal(30, 3, 8, 8))
    with pytest.raises(ModelError, match="one answer for each input"):
        L2X(k=2, **QUICK).fit(nn.Conv2d(1, 2, 1), normal(30, 1, 8, 8))
    for fields in ({"k": 0}, {"temperature": 0.0}, {"steps": 0}, {"rate": -1.0}, {"rate": math.inf}):
        with pytest.raises(InputError, match="L2X needs"):
            L2X(**fields)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("at", [1, 2, None], ids=["first query", "later", "never"])
def test_the_model_is_as_it_was(mode, at):
    """Also after an interrupt: while the model is asked, or in the training itself."""

    class Stops(Linear):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if type(self).calls == at:
                raise KeyboardInterrupt
            return super().forward(x)

    net = Stops().train()
    net.scale.grad = torch.ones(())
    with mode():
        x = normal(40, 6)
        before = state(net)
        try:
            L2X(k=2, **QUICK).fit(Model(net, chunk=7), x)
        except KeyboardInterrupt:
            assert at is not None
        assert state(net) == before


def test_an_interrupt_in_training(monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    net = Linear().train()
    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        L2X(k=2, **QUICK).fit(net, normal(40, 6))
    assert state(net) == before


def test_minibatches_take_every_row_in_turn():
    taken = [rows for _, rows in minibatches(10, batch=4, steps=5, seed=0, progress=False)]
    assert sorted(torch.cat(taken).tolist()) == sorted([*range(10), *range(10)])
    assert not torch.equal(torch.cat(taken)[:10], torch.cat(taken)[10:])
    again = [rows for _, rows in minibatches(10, batch=4, steps=5, seed=0, progress=False)]
    assert all(torch.equal(a, b) for a, b in zip(taken, again, strict=True))
