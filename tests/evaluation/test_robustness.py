"""Metrics of robustness against literal loops over the very neighbours that were explained; what they share."""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from planted import Known, planted
from torch import Tensor, nn

import whybox
from whybox import (
    AverageSensitivity,
    Constant,
    Continuity,
    Contrast,
    Domain,
    Gradient,
    Imputed,
    InputXGradient,
    LocalLipschitz,
    MaxSensitivity,
    Method,
    Model,
    Neuron,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
    SmoothGrad,
    Taxonomy,
)
from whybox.attribution.last_layer import last_layer
from whybox.core.errors import InputError, ModelError, UnknownNameError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case

DRAWS, RADIUS = 6, 0.3
SIX = (
    MaxSensitivity,
    AverageSensitivity,
    LocalLipschitz,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
RELATIVE = SIX[3:]
NORMS = {
    "l1": lambda values: sum(abs(v) for v in values),
    "l2": lambda values: math.sqrt(sum(v * v for v in values)),
    "max": lambda values: max(abs(v) for v in values),
}


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()


def pictures(n: int = 4) -> Tensor:
    return torch.rand(n, 2, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def model(chunk: int | None = None) -> Model:
    """With a domain of its own for each channel, so that the noise differs between them."""
    return Model(net(), domain=Domain((0.0, -1.0), (1.0, 3.0)), chunk=chunk)


@dataclass(frozen=True)
class Recording(Method):
    """Another method, of which everything that it is asked to explain is kept, with its answer."""

    of: Method = field(default_factory=InputXGradient)
    kept: list = field(default_factory=list, compare=False)

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task):
        relevance = self.of.attribute(task)
        self.kept.extend(zip(task.inputs.clone(), relevance.clone(), strict=True))
        return relevance


def values(tensor: Tensor) -> list[float]:
    return tensor.flatten().tolist()


def share(change: list[float], of: list[float]) -> list[float]:
    return [c / (v if v != 0 else 1e-6) for c, v in zip(change, of, strict=True)]


def minus(a: Tensor, b: Tensor) -> list[float]:
    return [u - v for u, v in zip(values(a), values(b), strict=True)]


def by_hand(metric, f, x, relevance, near):
    """One sample: the score from the pairs of neighbours and their maps, one at a time."""
    norm, found, inside = NORMS[metric.norm], [], nn.Sequential(*list(f)[:-1])
    with torch.no_grad():
        for moved, again in near:
            change, way = minus(again, relevance), minus(moved, x)
            if isinstance(metric, (MaxSensitivity, AverageSensitivity)):
                found.append(norm(change) / norm(values(relevance)))
                continue
            if isinstance(metric, LocalLipschitz):
                found.append(norm(change) / norm(way))
                continue
            if f(moved[None]).argmax() != f(x[None]).argmax():
                continue
            per = {
                RelativeInputStability: lambda moved=moved, way=way: share(way, values(x)),
                RelativeOutputStability: lambda moved=moved: minus(f(moved[None]), f(x[None])),
                RelativeRepresentationStability: lambda moved=moved: share(
                    minus(inside(moved[None]), inside(x[None])), values(inside(x[None]))
                ),
            }[type(metric)]()
            found.append(norm(share(change, values(relevance))) / max(norm(per), 1e-6))
    if not found:
        return math.nan
    return sum(found) / len(found) if isinstance(metric, AverageSensitivity) else max(found)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("metric", SIX, ids=lambda cls: cls.__name__)
def test_against_loops(metric, norm):
    f, x, target = model(), pictures(), torch.tensor([0, 2, 1, 0])
    relevance, method = InputXGradient()(f, x, target), Recording()
    metric = metric(draws=DRAWS, radius=RADIUS, norm=norm)
    found = metric.run(f, x, target, relevance, method=method)
    assert len(method.kept) == 4 * DRAWS
    for i in range(4):
        near = method.kept[i * DRAWS : (i + 1) * DRAWS]
        assert float(found.values[i]) == pytest.approx(by_hand(metric, f.module, x[i], relevance[i], near), rel=1e-9)


def test_without_the_maps_own_norm():
    f, x = model(), pictures()
    relevance = Gradient()(f, x, 1)
    for metric in (MaxSensitivity(DRAWS, RADIUS), AverageSensitivity(DRAWS, RADIUS)):
        whole = replace(metric, relative=False)(f, x, 1, relevance, method=Gradient())
        size = relevance.flatten(1).norm(dim=1)
        assert torch.allclose(whole / size, metric(f, x, 1, relevance, method=Gradient()))


def test_neighbours_are_uniform_in_a_cube_around_the_sample():
    """Quantus' relative stabilities move every value upwards, by 0.02 to 0.2: a shift more than a neighbourhood."""
    f, x, method = model(), pictures(), Recording(Gradient())
    MaxSensitivity(draws=100, radius=0.1)(f, x, 0, Gradient()(f, x, 0), method=method)
    width = torch.tensor([1.0, 4.0], dtype=torch.float64).view(2, 1, 1)
    moves = torch.stack([near for near, _ in method.kept]).view(4, 100, 2, 5, 5) - x[:, None]
    scaled = moves / (0.1 * width)
    assert scaled.abs().max() <= 1
    count = scaled.numel()
    assert abs(float(scaled.mean())) < 5 * (1 / 3 / count) ** 0.5
    assert float(scaled.square().mean()) == pytest.approx(1 / 3, abs=5 * (4 / 45 / count) ** 0.5)
    assert len({tuple(move.flatten().tolist()) for move in scaled.flatten(0, 1)}) == 400


@pytest.mark.parametrize("metric", [*SIX[:5], Continuity], ids=lambda cls: cls.__name__)
def test_the_map_of_a_linear_model_does_not_move(metric):
    """Its gradient is the same everywhere."""
    torch.manual_seed(0)
    f = Model(nn.Sequential(nn.Flatten(), nn.Linear(50, 2)).double())
    found = metric().run(f, pictures(), 1, Gradient()(f, pictures(), 1), method=Gradient())
    assert (found.values == 0).all()


def test_the_lipschitz_constant_of_a_linear_map():
    """For R = w ⊙ x along a single value, the ratio is w itself, whatever the neighbour."""
    f = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        f.weight.fill_(-3.0)
    x = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    given = (Model(f, domain=Domain((0.0,), (1.0,))), x, 0, InputXGradient()(f, x, 0))
    assert torch.allclose(LocalLipschitz()(*given, method=InputXGradient()), torch.tensor(3.0, dtype=torch.float64))
    # |Δ(wx)/(wx)| / |Δx/x| = 1, and per output |Δ(wx)/(wx)| / |Δ(wx)| = 1 / |wx|
    ones = RelativeInputStability()(*given, method=InputXGradient())
    assert torch.allclose(ones, torch.ones(2, dtype=torch.float64))
    per_output = RelativeOutputStability()(*given, method=InputXGradient())
    assert torch.allclose(per_output, 1 / (3 * x[:, 0]))


def test_neighbours_of_another_class_are_dropped_and_counted():
    """Quantus gives the whole sample NaN where one neighbour changes the class."""
    f = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        f.weight.copy_(torch.eye(2))
    # The first is far from the border between the classes, the second close to it.
    x = torch.tensor([[5.0, 1.0], [1.05, 1.0]], dtype=torch.float64)
    target, box = torch.zeros(2, dtype=torch.long), Domain((0.0,), (1.0,))
    relevance = InputXGradient()(f, x, target)
    for metric in RELATIVE[:2]:
        method = Recording()
        found = metric(draws=30, radius=0.2).run(Model(f, domain=box), x, target, relevance, method=method)
        stays = [bool(near[0] > near[1]) for near, _ in method.kept]
        assert found.details["kept"].flatten().tolist() == stays
        assert found.details["kept"][0].all()
        assert 0 < found.details["kept"][1].sum() < 30
        assert torch.isfinite(found.values).all()
        kept = found.details["ratios"][1][found.details["kept"][1]]
        assert float(found.values[1]) == float(kept.max())
        assert not found.skipped["no neighbour keeps the predicted class"].any()


def test_a_sample_whose_neighbours_are_all_of_another_class_has_no_score():
    class Needle(nn.Module):
        """Class 1 exactly at the sample, and class 0 around it."""

        def forward(self, x: Tensor) -> Tensor:
            at = (x == 0.5).all(1).double() * 10
            return torch.stack((x.sum(1), at), 1)

    x = torch.tensor([[0.5, 0.5], [0.1, 0.2]], dtype=torch.float64)
    for metric in RELATIVE[:2]:
        found = metric().run(Needle(), x, 0, torch.ones_like(x), method=Gradient())
        assert found.skipped["no neighbour keeps the predicted class"].tolist() == [True, False]
        assert torch.isnan(found.values).tolist() == [True, False]
    assert torch.isfinite(MaxSensitivity()(Needle(), x, 0, torch.ones_like(x), method=Gradient())).all()


def test_six_metrics_cost_what_the_dearest_does():
    """Together they explain every neighbour once and ask the model for its answer once."""
    f, x = model(7), pictures()
    relevance = InputXGradient()(f, x, 0)
    alone = [metric(DRAWS, RADIUS).run(f, x, 0, relevance, method=InputXGradient()) for metric in SIX]
    with started(f, x, 0) as task:
        shared = as_case(Samples(task), relevance, InputXGradient())
        together = [metric(DRAWS, RADIUS, norm="l2").score(shared) for metric in SIX]
        other_norms = [metric(DRAWS, RADIUS, norm="max").score(shared) for metric in SIX]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.values, other.values)
    assert [(s.forwards, s.backwards) for s in together[1:3]] == [(0, 0), (0, 0)]
    assert sum(s.forwards + s.backwards for s in other_norms) == 0
    assert sum(s.forwards for s in together) == max(s.forwards for s in alone)
    assert sum(s.backwards for s in together) == max(s.backwards for s in alone)
    assert alone[0].forwards == alone[0].backwards == 4 * DRAWS
    # Those that look at the answers: one forward per neighbour and sample more, and two to find the layer.
    assert max(s.forwards for s in alone) == 4 * DRAWS + 4 * (DRAWS + 1) + 2


def test_another_explanation_of_the_batch_asks_for_no_answers():
    f, x = model(), pictures()
    with started(f, x, 0) as task:
        samples = Samples(task)
        for method in (InputXGradient(), Gradient()):
            last = as_case(samples, method(f, x, 0), method)
            found = [metric(DRAWS, RADIUS).score(last) for metric in SIX]
    assert sum(s.forwards for s in found) == 4 * DRAWS


@pytest.mark.parametrize("metric", [*SIX, Continuity], ids=lambda cls: cls.__name__)
def test_a_sample_is_scored_as_it_is_alone(metric):
    """Neither the chunk nor the other samples of the batch play a part."""
    x = pictures()
    relevance = SmoothGrad(samples=3)(model(), x, 1)
    whole = metric()(model(5), x, 1, relevance, method=SmoothGrad(samples=3))
    alone = metric()(model(1), x[:1], 1, relevance[:1], method=SmoothGrad(samples=3))
    assert torch.allclose(whole[:1], alone, rtol=1e-9)


@pytest.mark.parametrize("metric", [*SIX, Continuity], ids=lambda cls: cls.__name__)
def test_a_neighbour_without_relevance_is_no_silent_hole(metric):
    @dataclass(frozen=True)
    class Broken(Method):
        taxonomy = Taxonomy(shows="features", needs="outputs", relation="proxy")

        def attribute(self, task):
            where = task.root is not None and (task.origin == 1).view(-1, 1, 1, 1)
            return torch.where(torch.as_tensor(where), torch.nan, task.inputs)

    found = metric().run(model(), pictures(), 0, pictures(), method=Broken())
    reason = next(key for key in found.skipped if "relevance is not finite" in key)
    assert found.skipped[reason].tolist() == [False, True, False, False]
    assert torch.isnan(found.values).tolist() == [False, True, False, False]


def test_an_empty_map_has_no_relative_change():
    x = pictures()
    relevance = Gradient()(model(), x, 0)
    relevance[2] = 0
    found = MaxSensitivity().run(model(), x, 0, relevance, method=Gradient())
    assert found.skipped["no relevance anywhere"].tolist() == [False, False, True, False]
    assert torch.isnan(found.values).tolist() == [False, False, True, False]


def test_a_batch_without_width_has_no_neighbours():
    """The domain of a constant batch, where none is given, has no width: a perfect score would be a lie."""
    x = torch.full((2, 2, 5, 5), 0.5, dtype=torch.float64)
    found = MaxSensitivity().run(net(), x, 0, Gradient()(net(), x, 0), method=Gradient())
    assert found.skipped["no neighbour differs from the sample"].all()
    assert torch.isnan(found.values).all()


def test_several_inputs_move_together():
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.stack(((a.sum(1) * b.sum((1, 2))), a.sum(1)), 1)

    g = torch.Generator().manual_seed(0)
    x = (torch.rand(3, 4, generator=g, dtype=torch.float64), torch.rand(3, 2, 5, generator=g, dtype=torch.float64))
    relevance = Gradient()(Two(), x, 0)
    found = LocalLipschitz(draws=40).run(Two(), x, 0, relevance, method=Gradient())
    # R_a = Σ b in each of 4 places, R_b = Σ a in each of 10: the ratio is at most that of moving all entries alike.
    assert (found.values <= math.sqrt(40)).all()
    assert (found.values > 0).all()


# Continuity


def test_continuity_against_loops():
    f, x, method = model(), pictures(), Recording()
    metric = Continuity(translations=(-2, 1, 3, 7), infill=Constant(0.25))
    relevance = InputXGradient()(f, x, 1)
    found = metric.run(f, x, 1, relevance, method=method)
    for i in range(4):
        ratios = []
        for by, (moved, again) in zip(metric.translations, method.kept[i * 4 : i * 4 + 4], strict=True):
            for c in range(2):
                for row in range(5):
                    for column in range(5):
                        from_where = column - by
                        expected = float(x[i, c, row, from_where]) if 0 <= from_where < 5 else 0.25
                        assert float(moved[c, row, column]) == expected
            ratios.append(NORMS["l1"](minus(again, relevance[i])) / NORMS["l2"](minus(moved, x[i])))
        assert found.details["ratios"][i].tolist() == pytest.approx(ratios, rel=1e-9)
        assert float(found.values[i]) == pytest.approx(max(ratios), rel=1e-9)
    assert found.forwards == 16


def test_a_constant_picture_cannot_be_moved():
    x = pictures()
    x[1] = 0.25
    found = Continuity(infill=Constant(0.25)).run(model(), x, 1, Gradient()(model(), x, 1), method=Gradient())
    assert found.skipped["no translation changes the input"].tolist() == [False, True, False, False]
    assert torch.isnan(found.values).tolist() == [False, True, False, False]


def test_what_continuity_cannot_move():
    given = planted()
    with pytest.raises(InputError, match="Imputed"):
        Continuity(infill=Imputed())(given.model, given.inputs, 1, given.perfect, method=Known())
    x = torch.rand(2, 4)
    with pytest.raises(InputError, match="positions"):
        Continuity()(nn.Linear(4, 2), x, 1, x, method=Gradient())
    with pytest.raises(InputError, match="none of them 0"):
        Continuity(translations=(-1, 0, 1))


# Settings and layers


def test_settings_that_make_no_sense():
    for fields in ({"draws": 0}, {"radius": 0.0}, {"radius": -1.0}, {"radius": math.inf}):
        with pytest.raises(InputError, match="at least one draw"):
            MaxSensitivity(**fields)
    tokens = torch.tensor([[1, 2], [3, 0]])
    embedding = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(InputError, match="has no neighbours"):
        MaxSensitivity()(embedding, tokens, 0, torch.rand(2, 2), method=Known())


def test_the_layer_may_be_named():
    f, x = model(), pictures()
    given = (f, x, 0, Gradient()(f, x, 0))
    default = RelativeRepresentationStability().run(*given, method=Gradient())
    assert default.details["layer"] == "4"
    named = RelativeRepresentationStability(layer="4").run(*given, method=Gradient())
    other = RelativeRepresentationStability(layer="1").run(*given, method=Gradient())
    assert torch.allclose(default.values, named.values)
    assert not torch.allclose(default.values, other.values)
    with pytest.raises(UnknownNameError, match="nothing"):
        RelativeRepresentationStability(layer="nothing")(*given, method=Gradient())


def test_the_last_layer_before_the_output():
    class Residual(nn.Module):
        """The branch runs last before the head, but a second path passes it by."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.branch(x))

    x = torch.rand(2, 4)
    for f, layer in (
        (Residual(), "stem"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(3, 2))), "1"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Identity()), "1"),
        (nn.Linear(4, 2), None),
    ):
        with started(f, x, 0) as task:
            assert last_layer(task) == layer
    found = RelativeOutputStability()(nn.Linear(4, 2), x, 0, x, method=InputXGradient())
    assert torch.isfinite(found).all()
    with pytest.raises(ModelError, match="name one with layer="):
        RelativeRepresentationStability()(nn.Linear(4, 2), x, 0, x, method=InputXGradient())


@pytest.mark.parametrize("target", [Contrast(0, 1), Neuron("1", 2), torch.tensor([0, 1, 2, 0])], ids=repr)
def test_any_target_will_do(target):
    f, x = model(), pictures()
    for metric in SIX:
        found = metric(DRAWS, RADIUS)(f, x, target, Gradient()(f, x, target), method=Gradient())
        assert torch.isfinite(found).all()


def test_a_neighbour_that_rounding_makes_equal_does_not_count():
    """In half precision, next to values in [−3, 100], some neighbours of 50 are 50."""
    x = torch.tensor([1.0, -3.0, 50.0, 100.0]).view(4, 1).bfloat16()
    module = nn.Linear(1, 3).bfloat16()
    metric = whybox.LocalLipschitz(draws=12, radius=0.002)
    found = metric.run(module, x, 1, whybox.RandomMap()(module, x, 1), method=whybox.RandomMap())
    equal = found.details["ratios"].isnan()
    assert equal[2].any()
    assert not equal[2].all()
    assert torch.isfinite(found.values[:3]).all()
    assert float(found.values[2]) == pytest.approx(float(found.details["ratios"][2].nan_to_num(-1).max()))


@pytest.mark.parametrize(
    "name", ["max_sensitivity", "completeness", "input_invariance", "sparseness", "relevance_mass"]
)
def test_samples_of_a_single_value(name):
    class Single(nn.Module):
        def forward(self, x):
            return torch.stack((x, -(x**2)), 1)

    x = torch.tensor([0.5, 1.0, 2.0])
    one, more = (
        whybox.metric(name).run(module, y, 1, 2 * y, method="gradient", truth=torch.ones_like(y, dtype=torch.bool))
        for module, y in ((Single(), x), (nn.Sequential(nn.Flatten(0), Single()), x[:, None]))
    )
    assert torch.isfinite(one.values).all()
    assert torch.allclose(one.values, more.values)
