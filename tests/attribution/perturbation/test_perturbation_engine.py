"""The perturbation engine: every variant is what its definition says, whatever chunk it runs in."""

import itertools
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from whybox import (
    LIME,
    RISE,
    Along,
    Attribution,
    Blur,
    Constant,
    GaussianNoise,
    Imputed,
    KernelSHAP,
    Logit,
    Mean,
    Method,
    Model,
    Occlusion,
    Patches,
    Pixels,
    Sample,
    Shuffled,
    SmoothGrad,
    Superpixels,
    Taxonomy,
    UniformNoise,
    Zero,
)
from whybox.attribution.perturbation import partition
from whybox.attribution.perturbation.engine import Engine, ask
from whybox.attribution.perturbation.least_squares import Moments
from whybox.attribution.perturbation.partition import Partition, position_axes, usual
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.errors import InputError
from whybox.core.reference import Black, Infill
from whybox.core.regions import Regions
from whybox.core.task import Task, noise_keys
from whybox.core.tree import as_tuple, each

sys.path.append(str(Path(__file__).parents[2] / "core"))
from memory import Peak

INFILLS = [Zero(), Constant(0.5), Black(), Mean(), Blur(1.0), UniformNoise(), GaussianNoise(), Shuffled(), Sample(),
           Imputed(noise=0.1)]  # fmt: skip


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Watched(nn.Module):
    """Keeps what it is given, and returns two scores."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, *inputs):
        self.seen.append([x.clone() for x in inputs])
        flat = torch.cat([x.double().flatten(1) for x in inputs], 1)
        weights = torch.linspace(-1, 1, flat.shape[1], dtype=torch.float64)
        return torch.stack([flat @ weights, (flat @ weights).tanh()], 1)

    def variants(self):
        return [torch.cat(parts) for parts in zip(*self.seen, strict=True)]


def task_of(inputs, module=None, chunk=None, seed=0):
    rows = len(as_tuple(inputs)[0])
    target = Logit(0).pin(rows, None)
    return Task(Model(module or Watched(), chunk=chunk), inputs, target, noise_keys(seed, rows))


@dataclass(frozen=True)
class Hide(Method):
    """A method as others write it: random coalitions; what it was told is in the details."""

    samples: int = 20
    infill: Infill = field(default_factory=Zero)
    regions: Regions | None = None

    taxonomy = Taxonomy(shows="regions", needs="outputs", relation="dependence")

    def attribute(self, task):
        partition = Partition.of(task, self.regions)
        engine = Engine(task, self.infill, partition)
        sums = torch.zeros(task.size, partition.size, dtype=torch.float64)
        for chunk in engine.scores(self.samples, lambda s, v: engine.uniform(s, v, partition.size) < 0.5):
            sums.index_add_(0, chunk.sample, chunk.kept * chunk.score[:, None])
        return Attribution(partition.spread(sums * partition.present), details={"regions": partition.counts})


# --- Random numbers


def test_uniform_is_splitmix64():
    """Against the generator in plain integers, one state after the other."""
    mask = 2**64 - 1

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    gamma = 0x9E3779B97F4A7C15
    for key, number, salt in itertools.product((0, 5, 2**63 - 1), (0, 1, 10**6), (0, 3)):
        state = mix(mix(key + salt * gamma & mask) + number * gamma & mask)
        expected = [(mix(state + column * gamma & mask) >> 11) / 2**53 for column in range(1, 6)]
        found = uniform(torch.tensor([key]), torch.tensor([number]), 5, salt)
        assert found[0].tolist() == expected


def test_uniform_is_uniform_and_independent():
    u = uniform(torch.tensor([3, 4]).repeat_interleave(20_000), torch.arange(20_000).repeat(2), 8)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert len(u.flatten().unique()) == u.numel()
    columns = torch.cat([u[:20_000], u[20_000:], u[:20_000].roll(1, 0)], 1) - 0.5
    n = len(columns)
    assert float(columns.mean(0).abs().max()) < 5 / math.sqrt(12 * n)
    correlation = 12 * columns.T @ columns / n
    assert float((correlation - torch.eye(24)).abs().max()) < 5 * math.sqrt(2 / n)
    histogram = torch.histc(u, 64, 0, 1)
    expected = u.numel() / 64
    assert float(((histogram - expected) ** 2 / expected).sum()) < 63 + 5 * math.sqrt(2 * 63)


# --- Variants


def test_variants_against_a_loop():
    """Two inputs, regions of different number in each sample, hidden one at a time: each variant literally."""
    x, y = normal(3, 2, 4, 4), normal(3, 5, seed=1)
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]]).expand(3, 1, 4, 4).clone()
    labels[1] = labels[1].clamp_max(1)
    labels[2] = torch.arange(16).view(1, 4, 4)

    @dataclass(frozen=True)
    class Given(Regions):
        def labels(self, x):
            return labels if x.ndim == 4 else torch.arange(5)[None]

    watched = Watched()
    task = task_of((x, y), watched, chunk=4)
    partition = Partition.of(task, Given())
    assert partition.counts.tolist() == [8, 7, 21]
    assert partition.present.sum(1).tolist() == [8, 7, 21]
    engine = Engine(task, Constant(9.0), partition)
    chunks = list(engine.scores(partition.counts, lambda s, v: torch.arange(partition.size) != v[:, None]))
    variants, scores = watched.variants(), torch.cat([chunk.score for chunk in chunks])
    row = 0
    for sample, count in enumerate([8, 7, 21]):
        for region in range(count):
            picture, table = x[sample].clone(), y[sample].clone()
            inside = count - 5
            if region < inside:
                picture[:, labels[sample, 0] == region] = 9.0
            else:
                table[region - inside] = 9.0
            assert torch.equal(variants[0][row], picture)
            assert torch.equal(variants[1][row], table)
            torch.testing.assert_close(scores[row], Watched()(picture[None], table[None])[0, 0])
            row += 1
    assert row == len(scores) == len(variants[0])
    assert max(len(chunk.score) for chunk in chunks) == 4  # several samples in one chunk


def test_masks_may_be_shares():
    x = normal(2, 3, 4)
    watched = Watched()
    engine = Engine(task_of(x, watched), Constant(2.0))
    share = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    list(engine.scores(4, lambda s, v: share[v].view(-1, 1, 1)))
    expected = torch.cat([share.view(4, 1, 1) * one + (1 - share.view(4, 1, 1)) * 2.0 for one in x])
    torch.testing.assert_close(watched.variants()[0], expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(watched.variants()[0][3], x[0])


@pytest.mark.parametrize("infill", INFILLS, ids=repr)
def test_infills(infill):
    """Kept values are the originals; hidden ones are the infill's, a new draw for each variant where it is random."""
    x = normal(2, 3, 6, 6)
    watched = Watched()
    task = task_of(x, watched)
    mask = (torch.arange(36) % 3 == 0).view(1, 1, 6, 6)
    engine = Engine(task, infill)
    list(engine.scores(2, lambda s, v: mask.expand(len(s), -1, -1, -1)))
    variants = watched.variants()[0].view(2, 2, 3, 6, 6)
    kept = mask[0].expand(3, -1, -1)
    assert torch.equal(variants[:, :, kept], x[:, None].expand(-1, 2, -1, -1, -1)[:, :, kept])
    assert not torch.equal(variants[:, 0], x)
    random = isinstance(infill, (UniformNoise, GaussianNoise, Shuffled, Imputed))
    assert torch.equal(variants[:, 0], variants[:, 1]) != random
    assert infill.fixed == (not random and not isinstance(infill, Sample))
    watched.seen.clear()
    list(
        engine.scores(2, lambda s, v: mask.expand(len(s), -1, -1, -1), draw=lambda _, number: torch.zeros_like(number))
    )
    shared = watched.variants()[0].view(2, 2, 3, 6, 6)
    assert torch.equal(shared[:, 0], shared[:, 1])
    assert torch.equal(shared[:, 0], variants[:, 0])


@pytest.mark.parametrize("infill", [Zero(), GaussianNoise(), Sample(), Imputed(0.1)], ids=repr)
@pytest.mark.parametrize("regions", [Superpixels(6), Patches(4), Along(1)], ids=repr)
def test_the_chunk_size_does_not_matter(regions, infill):
    if regions == Along(1) and isinstance(infill, Imputed):
        infill = Shuffled()  # one channel alone cannot be imputed
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 2)).double()
    x, method = normal(4, 3, 8, 8), Hide(13, infill, regions)
    answers = [method(Model(module, chunk=chunk), x, 1, seed=4) for chunk in (1, 2, 3, 7, 64, None)]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-6, atol=1e-9)
    assert torch.equal(method(Model(module, chunk=3), x, 1, seed=4), answers[2])
    assert not torch.allclose(method(Model(module, chunk=3), x, 1, seed=5), answers[2])


def test_a_sample_does_not_depend_on_the_others():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 2)).double()
    x, method = normal(5, 3, 8, 8), Hide(13, GaussianNoise(), Superpixels(6))
    together = method(Model(module, chunk=3), x, 1)
    torch.testing.assert_close(method(Model(module, chunk=3), x[:2], 1), together[:2])
    others = x.flip(0).clone()
    others[1] = x[1]
    torch.testing.assert_close(method(Model(module, chunk=3), others, 1)[1], together[1])


def test_inside_of_another_method():
    """Noisy copies of a sample are samples of their own, with the infill and coalitions of their own."""
    module, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double(), normal(2, 3, 4)
    smooth = SmoothGrad(of=Hide(5, Sample(), Along(1)), samples=6)
    answers = [smooth(Model(module, chunk=chunk), x, 1) for chunk in (1, 4, 64)]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])


def test_layers_and_keywords():
    """Behind a layer the variants are those of its output; keyword rows follow their samples."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6)

        def forward(self, x, factor):
            return self.first(x).relu() * factor

    net, x = Net().double(), normal(3, 4)
    factor = normal(3, 1, seed=2)
    relevance = Hide(8, Zero(), Along(1))(
        Model(net, chunk=5), x, 2, at="first", forward_kwargs={"factor": factor}, seed=3
    )
    hidden = net.first(x).detach()
    engine = Engine(task_of(hidden, seed=3), Zero())
    for sample in range(3):
        kept = engine.uniform(torch.full((8,), sample), torch.arange(8), 6) < 0.5
        score = (hidden[sample, 2] * kept[:, 2]).relu() * factor[sample]
        torch.testing.assert_close(relevance[sample], (kept * score[:, None]).sum(0))


def test_only_the_forwards_are_asked_for():
    watched, x = Watched(), normal(3, 4)
    answer = Hide(11).run(Model(watched, chunk=4), x, 1)
    assert answer.forwards == sum(len(parts[0]) for parts in watched.seen) == 33
    assert answer.backwards == 0


def test_memory_does_not_grow():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
    x = torch.randn(2, 3, 32, 32)
    peaks = []
    for samples in (32, 256):
        with Peak() as peak:
            Hide(samples, GaussianNoise(), Patches(4))(Model(net, chunk=4), x, 1)
        peaks.append(peak.peak)
    assert peaks[1] <= 1.01 * peaks[0]


# --- Text, tables, series, pictures, videos


@pytest.mark.parametrize("infill", [Constant(7.0), Zero(), Shuffled(), Sample(), Black()], ids=repr)
def test_tokens(infill):
    tokens = torch.tensor([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2]])
    watched = Watched()
    relevance = Hide(9, infill)(Model(watched, chunk=4), tokens, 0)
    assert relevance.shape == (2, 5)
    assert relevance.is_floating_point()
    variants = watched.variants()[0].view(2, 9, 5)
    assert variants.dtype == torch.int64
    if isinstance(infill, Constant):
        assert bool(((variants == tokens[:, None]) | (variants == 7)).all())
        assert bool((variants == 7).any())


@pytest.mark.parametrize("infill", [Constant(0.5), Mean(), Blur(), GaussianNoise(), UniformNoise()], ids=repr)
def test_what_cannot_replace_tokens(infill):
    with pytest.raises(InputError, match=r"cannot replace torch.int64; hide tokens by Constant\(the number"):
        Hide(9, infill)(Watched(), torch.tensor([[1, 2, 3]]), 0)


def test_tokens_cannot_be_faded():
    engine = Engine(task_of(torch.tensor([[1, 2, 3]])), Zero())
    with pytest.raises(InputError, match="can be hidden, but not faded"):
        list(engine.scores(1, lambda s, v: torch.full((1, 3), 0.5)))


@pytest.mark.parametrize(
    ("shape", "axes", "regions"),
    [
        ((2, 9), (1,), Along(1)),
        ((2, 3, 20), (2,), Patches(1)),
        ((2, 3, 100), (2,), Patches(4)),
        ((2, 3, 16, 16), (2, 3), Superpixels()),
        ((2, 3, 5, 16, 16), (2, 3, 4), Along(2)),
    ],
)
def test_what_is_usual(shape, axes, regions):
    x = normal(*shape)
    task = task_of(x)
    assert position_axes(task) == (axes,)
    assert usual(x, axes) == regions
    partition = Partition.of(task, None)
    assert torch.equal(partition.labels[0], regions.labels(x))
    relevance = Hide(4)(Watched(), x, 0)
    assert relevance.ndim == x.ndim


@pytest.mark.parametrize(
    ("original", "axes"),
    [
        (torch.ones(2, 7, dtype=torch.long), (1,)),
        (torch.ones(2, 3, 8, 8), (1,)),
        (torch.ones(2, 3, 20), (2,)),
    ],
)
def test_rows_of_tokens_inside_a_model(original, axes):
    task = task_of(normal(2, 4, 6))
    inside = Task(task.model, task.inputs, task.target, task.keys, at=("layer", original))
    assert position_axes(inside) == (axes,)


@pytest.mark.parametrize("method", [Occlusion((2, 30), (1, 20)), RISE(60), LIME(60, Patches(20))], ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(method, dtype):
    """A picture wider than half precision can count."""
    x = normal(1, 1, 2, 300).to(dtype)

    class Halves(nn.Module):
        def forward(self, x):
            return torch.stack([x[..., :150], x[..., 150:]], 1).float().abs().flatten(2).mean(2)

    answer, exact = method(Halves(), x, 1), method(Halves(), x.double(), 1)
    assert answer.dtype == dtype
    assert float((answer - exact).abs().max()) < 0.05 * float(exact.abs().max())


# --- Refusals


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(4, 4, dtype=torch.long),
        torch.zeros(2, 1, 4, 5, dtype=torch.long),
        torch.zeros(3, 1, 4, 4, dtype=torch.long),
        torch.zeros(1, 1, 4, 4),
        torch.full((1, 1, 4, 4), -1),
    ],
    ids=["rank", "size", "samples", "fractions", "negative"],
)
def test_regions_of_the_wrong_shape(labels):
    @dataclass(frozen=True)
    class Given(Regions):
        def labels(self, x):
            return labels

    watched = Watched()
    with pytest.raises(InputError, match="labels are integers from 0 with the input's axes, each of its size or 1"):
        Hide(4, Zero(), Given())(watched, normal(2, 3, 4, 4), 0)
    assert not watched.seen


def test_the_budget():
    partition = Partition.of(task_of(normal(2, 3, 8, 8)), Pixels())
    with pytest.raises(InputError, match="64 regions need at least 65 samples, not 40: give samples=65 or more"):
        partition.check_budget(40, 65)
    partition.check_budget(65, 65)


@pytest.mark.parametrize("method", [LIME(302), KernelSHAP(samples=602)], ids=repr)
def test_more_regions_than_memory_can_hold(method, monkeypatch):
    """Tables over all pairs of regions are refused before any of them is made, or the model asked."""
    monkeypatch.setattr(partition, "free_memory", lambda: 2**22)
    watched, x = Watched(), normal(1, 300)
    with pytest.raises(InputError, match=r"300 regions in 1 sample\(s\) need some .* GiB of memory, but"):
        method(watched, x, 0)
    assert not watched.seen
    monkeypatch.setattr(partition, "free_memory", lambda: 2**23)
    method(watched, x, 0)
    assert watched.seen


def test_an_interrupt_says_how_far_it_got():
    """Wherever it comes: in the model, or in what the method does with the chunk."""

    class Interrupted(Watched):
        def forward(self, x):
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().forward(x)

    net = Interrupted().train()
    with pytest.raises(KeyboardInterrupt) as caught:
        Hide(1000)(Model(net, chunk=4), normal(2, 3), 0)
    assert caught.value.__notes__ == ["Hide stopped after 16 of 2,000 model evaluations"]
    assert net.training

    class Later(Hide):
        def attribute(self, task):
            for chunk in ask(task, 500, lambda s, v: (each(lambda x: x[s], task.inputs), None)):
                if 250 in chunk.number:
                    raise KeyboardInterrupt

    net = Watched().train()
    with pytest.raises(KeyboardInterrupt) as caught:
        Later()(Model(net, chunk=10), normal(2, 3))
    assert caught.value.__notes__ == ["Later stopped after 262 of 1,002 model evaluations"]
    assert net.training


@pytest.mark.parametrize("infill", [i for i in INFILLS if not isinstance(i, (Blur, Imputed))], ids=repr)
def test_samples_of_a_single_value(infill):
    """(n,): every sample is a row of its own, so its mean and its shuffled values are itself."""
    numbers, x = normal(4, 3), normal(4)

    class Both(nn.Module):
        def forward(self, table, number):
            return (table.sum(1) + number)[:, None]

    both = Occlusion(infill=infill)(Model(Both(), chunk=2), (numbers, x), 0)[1]
    assert both.shape == (4,)
    if isinstance(infill, (Mean, GaussianNoise, Shuffled)):
        torch.testing.assert_close(both, torch.zeros_like(x), rtol=0, atol=1e-12)
    else:
        assert bool((both != 0).any())


# --- Least squares


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_ridge_against_one_sample_at_a_time(penalty):
    """Samples with different numbers of columns, added in pieces; the textbook's solution for each."""
    n, k, m = 3, 40, 6
    z = (normal(n, k, m) > 0).double()
    y, w = normal(n, k, seed=1), normal(n, k, seed=2).exp()
    counts = [6, 4, 5]
    moments = Moments(n, m)
    sample = torch.arange(n).repeat_interleave(k)
    for rows in torch.arange(n * k).split(27):
        moments.add(sample[rows], z.view(-1, m)[rows], w.view(-1)[rows], y.view(-1)[rows])
    beta, intercept, r2 = moments.ridge(penalty, torch.arange(m) < torch.tensor(counts)[:, None])
    for i, count in enumerate(counts):
        design = torch.cat([torch.ones(k, 1), z[i, :, :count]], 1)
        shrink = penalty * torch.eye(count + 1)
        shrink[0, 0] = 0
        solution = torch.linalg.solve(design.T @ (w[i, :, None] * design) + shrink, design.T @ (w[i] * y[i]))
        torch.testing.assert_close(beta[i, :count], solution[1:], rtol=1e-9, atol=1e-9)
        assert not beta[i, count:].any()
        torch.testing.assert_close(intercept[i], solution[0], rtol=1e-9, atol=1e-9)
        residual, mean = y[i] - design @ solution, (w[i] * y[i]).sum() / w[i].sum()
        expected = 1 - (w[i] * residual**2).sum() / (w[i] * (y[i] - mean) ** 2).sum()
        torch.testing.assert_close(r2[i], expected, rtol=1e-9, atol=1e-9)


def test_ridge_of_nothing():
    moments = Moments(2, 3)
    z = (normal(20, 3) > 0).double()
    moments.add(torch.arange(2).repeat_interleave(10), z, torch.ones(20), torch.cat([torch.zeros(10), z[10:, 0] / 0]))
    beta, intercept, r2 = moments.ridge(0.0, torch.ones(2, 3, dtype=torch.bool))
    assert not beta[0].any()
    assert intercept[0] == 0
    assert r2[0] == 1
    assert beta[1].isnan().all()
