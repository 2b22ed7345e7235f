"""Mosaics of colours, for which the right answer is known."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from planted import SIZE, Known, colours
from torch import Tensor, nn

import whybox
from whybox import (
    LRP,
    CentreBlob,
    ExpectedGradients,
    GradCAM,
    InputXGradient,
    Method,
    Model,
    Mosaic,
    RandomMap,
    Taxonomy,
    models,
)
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.core.task import Task
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case

PICTURE = 10
RESNET = Path(__file__).parents[1] / "models/resnet20_cifar10.py"


def sees_colours() -> nn.Sequential:
    """A small convolutional net, for pictures of any size, that counts the places of each of five colours."""
    net = nn.Sequential(
        nn.Conv2d(5, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5)
    )
    with torch.no_grad():
        net[0].weight.copy_((torch.eye(5) - 0.25).view(5, 5, 1, 1).expand(5, 5, 3, 3) / 9)
        net[0].bias.zero_()
        net[4].weight.copy_(20 * torch.eye(5))
        net[4].bias.zero_()
    return net.double()


def pictures(n: int = 12, kinds: int = 5) -> tuple[Tensor, Tensor]:
    """Pictures of one colour each, in some places."""
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(n) % kinds
    x = torch.zeros(n, 5, PICTURE, PICTURE, dtype=torch.float64)
    where = torch.rand(n, PICTURE, PICTURE, generator=generator, dtype=torch.float64) < 0.7
    x[torch.arange(n), target] = where.double()
    return x, target


@dataclass(frozen=True)
class OfAnother(Method):
    """The right map for a wrong class."""

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Tensor:
        wrong = dataclasses.replace(task.target, index=(task.target.index + 1) % 5)
        return InputXGradient().attribute(dataclasses.replace(task, target=wrong))


def scored(method, net=None, metric=None, n=12, **options):
    x, target = pictures(n)
    metric = metric or Mosaic(mosaics=4)
    return metric.run(net or sees_colours(), x, target, torch.rand(n, 1, PICTURE, PICTURE), method=method, **options)


def test_local_methods_find_the_tile_and_maps_of_chance_do_not():
    for method in (InputXGradient(), LRP(), GradCAM(layer="1")):
        found = scored(method)
        assert (found.values > 0.9).all(), type(method).__name__
    assert (scored(OfAnother()).values < 0.1).all()
    random = torch.cat([scored(RandomMap(), seed=seed).details["share"].flatten() for seed in range(10)])
    assert abs(random.mean() - 0.25) < 4 * random.std() / len(random) ** 0.5
    assert torch.allclose(scored(CentreBlob()).values, torch.tensor(0.25, dtype=torch.float64))


def test_chance_is_a_quarter_or_less_at_odd_sizes():
    x, target = pictures()
    for net, size, expected in ((sees_colours(), 10, 0.25), (colours(8).model, SIZE, 0.25), (_fixed(9), 9, 16 / 81)):
        case = colours(8) if size == SIZE else None
        inputs, classes = (case.inputs, case.target) if case else (x[:, :, :size, :size], target)
        with started(net, inputs, classes) as task:
            given = as_case(Samples(task), torch.zeros_like(inputs), RandomMap())
            chance, measured = Mosaic(mosaics=8).chance(given), Mosaic(mosaics=8).score(given).details["share"]
        assert torch.allclose(chance, torch.full((len(inputs),), expected, dtype=torch.float64))
        assert abs(measured.mean() - expected) < 5 * measured.std() / measured.numel() ** 0.5


def _fixed(size: int) -> nn.Module:
    """A net that counts colours in pictures of one size."""
    linear = nn.Linear(5 * size * size, 5, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_((torch.eye(5).view(5, 5, 1).expand(5, 5, size * size) / 10).flatten(1))
    return nn.Sequential(nn.Flatten(), linear)


def test_against_loops():
    """Every mosaic made again from what the details say of it, explained by itself, summed place by place."""
    x, target = pictures()
    net = sees_colours()
    found = scored(InputXGradient())
    for i in range(len(x)):
        shares = []
        for four, place in zip(found.details["pictures"][i].tolist(), found.details["place"][i].tolist(), strict=True):
            assert four[place] == i
            assert len({int(target[j]) for j in four}) == 4
            mosaic = torch.zeros(1, 5, 2 * PICTURE, 2 * PICTURE, dtype=torch.float64)
            for k, j in enumerate(four):
                down, right = (k // 2) * PICTURE, (k % 2) * PICTURE
                mosaic[0, :, down : down + PICTURE, right : right + PICTURE] = x[j]
            relevance = InputXGradient()(net, mosaic, int(target[i]))[0].sum(0)
            within = total = 0.0
            for row in range(2 * PICTURE):
                for column in range(2 * PICTURE):
                    value = max(float(relevance[row, column]), 0)
                    total += value
                    within += value * (2 * (row // PICTURE) + column // PICTURE == place)
            shares.append(within / total)
        assert found.details["share"][i].tolist() == pytest.approx(shares)
        assert float(found.values[i]) == pytest.approx(sum(shares) / 4)


def test_four_mosaics_have_the_sample_at_all_places_beside_changing_pictures():
    found = scored(RandomMap(), n=40)
    assert (found.details["place"].sort(1).values == torch.arange(4)).all()
    chosen = found.details["pictures"].flatten().bincount(minlength=40)
    assert (chosen > 4).sum() > 30  # most stand beside others too
    first = scored(RandomMap(), n=40, seed=1).details["pictures"]
    assert not torch.equal(first, found.details["pictures"])


def test_models_of_one_size_are_shown_pictures_scaled_down():
    given = colours(8)
    sizes = []

    @dataclass(frozen=True)
    class Watching(Method):
        taxonomy = Known.taxonomy

        def attribute(self, task: Task) -> Tensor:
            sizes.append(tuple(task.inputs.shape))
            return Known().attribute(task)

    found = Mosaic().run(given.model, given.inputs, given.target, given.perfect, method=Watching())
    assert sizes == [(8, 4, SIZE, SIZE)]
    assert (found.values > 0.95).all()


def test_fault_what_cannot_be_used_is_counted():
    """Wrong and unsure predictions, and classes that the model does not see in a mosaic, are said, not dropped."""
    x, target = pictures()
    target[0] = (target[0] + 1) % 5
    x[1] *= 0.01
    found = Mosaic(confidence=0.9).run(sees_colours(), x, target, x, method=InputXGradient())
    unsure = found.skipped["not classified as the target with the confidence asked for"]
    assert unsure.nonzero().flatten().tolist() == [0, 1]
    assert found.values.isnan().tolist() == unsure.tolist()
    assert not torch.isin(found.details["pictures"][2:], torch.tensor([0, 1])).any()
    assert (found.details["pictures"][:2] == -1).all()


def test_fewer_than_four_classes_make_no_mosaic():
    x, target = pictures(9, kinds=3)
    found = Mosaic().run(sees_colours(), x, target, x, method=InputXGradient())
    assert found.values.isnan().all()
    assert found.skipped["fewer than four classes in the batch to make mosaics of"].all()
    assert (found.forwards, found.backwards) == (9, 0)


def test_a_class_that_the_model_does_not_see_in_the_mosaic_is_not_explained():
    """A model that looks at one corner sees but one picture; it gives the other classes less than a fifth one."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x[:, :, :2, :2].mean((2, 3))
            return torch.where(seen == seen.amax(1, keepdim=True), 9.0, -torch.arange(5.0) * 0.1)

    x, target = pictures(10)
    x[torch.arange(10), target, :2, :2] = 1.0
    found = Mosaic(mosaics=4).run(Corner(), x, target, x, method=RandomMap())
    hidden = target == 4  # the lowest of all, unless it stands in the corner
    shares = found.details["share"].isnan()
    assert torch.equal(~shares[hidden], found.details["place"][hidden] == 0)
    assert not shares[target == 0].any()
    once = Mosaic().run(Corner(), x, target, x, method=RandomMap())
    reason = "its class is not among the four that the model sees in any of its mosaics"
    assert torch.equal(once.skipped[reason], once.details["share"].isnan().all(1))
    assert once.skipped[reason].any()


def test_maps_without_positive_relevance_have_no_score():
    @dataclass(frozen=True)
    class Negative(Method):
        taxonomy = Known.taxonomy

        def attribute(self, task: Task) -> Tensor:
            return -task.inputs.abs()

    found = scored(Negative())
    assert found.values.isnan().all()
    assert found.skipped["no finite relevance above zero in any of its mosaics"].all()


def test_mosaics_are_made_and_shown_once_for_all_methods():
    """The second method costs what it costs itself, and no more; the samples themselves are asked once."""
    x, target = pictures()
    with started(sees_colours(), x, target) as task:
        samples = Samples(task)
        costs = [
            Mosaic(mosaics=2).score(as_case(samples, x, method)).forwards for method in (RandomMap(), InputXGradient())
        ]
    assert costs == [12 + 1 + 2 * 12, 2 * 12]  # the samples, one for the size, the mosaics; then the method


def test_methods_that_replace_by_other_samples_work_on_mosaics():
    """Whatever is drawn from the batch is drawn from the mosaics, which may be larger than the samples."""
    found = scored(ExpectedGradients(samples=4), metric=Mosaic())
    assert (found.values > 0.5).all()


@pytest.mark.parametrize("chunk", [1, 5])
def test_the_chunk_size_plays_no_part(chunk):
    whole = scored(LRP(), Model(sees_colours(), chunk=64))
    parts = scored(LRP(), Model(sees_colours(), chunk=chunk))
    assert torch.allclose(whole.values, parts.values, atol=1e-12)
    assert torch.equal(whole.details["pictures"], parts.details["pictures"])


def test_the_expected_order_on_real_weights(data_dir, cifar10):
    """On a ResNet: local methods that tell classes apart, then gradients, then what does not look at the model."""
    weights = data_dir / "models/resnet20_cifar10.safetensors"
    if not weights.is_file():
        pytest.skip(f"real data: {weights} is absent")
    model = models.load(f"{RESNET}:resnet20", weights=weights)
    paths = sorted((cifar10 / "cifar10/test").glob("*/*"))[::100]
    x = torch.stack([model.preprocess(Image.open(path).convert("RGB")) for path in paths])
    blank = torch.zeros(len(x), 1, 32, 32)
    with started(model, x, None) as task:
        samples = Samples(task)
        found = {
            method: Mosaic().score(as_case(samples, blank, whybox.method(method))).values.nanmean()
            for method in ("lrp", "grad_cam", "gradient", "random_map", "centre_blob", "edge_detector")
        }
    assert min(found["lrp"], found["grad_cam"]) > 1.5 * found["gradient"]
    assert found["gradient"] > found["random_map"]
    for control in ("random_map", "centre_blob", "edge_detector"):
        assert abs(found[control] - 0.25) < 0.05


def test_what_is_no_picture_is_refused():
    table = torch.rand(4, 6)
    with pytest.raises(InputError, match="pictures"):
        Mosaic()(nn.Linear(6, 4), table, None, table, method=RandomMap())
    with pytest.raises(InputError, match="at least one mosaic"):
        Mosaic(mosaics=0)
    with pytest.raises(InputError, match="confidence"):
        Mosaic(confidence=math.inf)


def test_models_that_take_the_mosaic_for_four_pictures():
    """`view(-1, …)` makes four rows of a picture four times as large: that is no answer to it."""

    class Rows(nn.Module):
        def forward(self, x):
            return x.reshape(-1, 4 * 36).view(-1, 4, 36).mean(2) * 9

    inputs = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 6, 6).clone()
    found = Mosaic().run(Rows(), inputs, torch.arange(4), inputs, method="input_x_gradient")
    assert found.values.tolist() == [1.0] * 4


def test_a_target_that_is_no_class_is_refused():
    inputs = torch.rand(4, 1, 4, 4)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with pytest.raises(InputError, match="the target must be one for each sample"):
        Mosaic()(module, inputs, lambda output: output[:, 0], inputs, method="gradient")
