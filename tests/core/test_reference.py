"""References and regions, each against a literal."""

import math

import numpy
import pytest
import torch
from torch import Generator

from whybox import (
    Along,
    Black,
    Blur,
    Constant,
    Domain,
    Flipped,
    GaussianNoise,
    Grid,
    Imputed,
    Mean,
    Patches,
    Pixels,
    Sample,
    Shuffled,
    Superpixels,
    UniformNoise,
    Zero,
)
from whybox.core.errors import InputError

DOMAIN = Domain((-1.0, 2.0), (1.0, 5.0))
RANDOM = [UniformNoise(), GaussianNoise(), Shuffled(), Sample()]


def generators(n=3, seed=0):
    return [Generator().manual_seed(100 * seed + i) for i in range(n)]


@pytest.fixture
def x():
    return torch.randn(3, 2, 5, 4, generator=Generator().manual_seed(1)) * 2 + 1


def fill(infill, x, seed=0, **options):
    before = x.clone()
    filled = infill.fill(x, DOMAIN, generators(len(x), seed), **options)
    assert torch.equal(x, before)
    assert (filled.shape, filled.dtype) == (x.shape, x.dtype)
    return filled


def test_fixed_values(x):
    assert torch.equal(fill(Zero(), x), torch.zeros(3, 2, 5, 4))
    assert torch.equal(fill(Constant(2.5), x), torch.full((3, 2, 5, 4), 2.5))
    black = fill(Black(), x)
    assert torch.equal(black[:, 0], torch.full((3, 5, 4), -1.0))
    assert torch.equal(black[:, 1], torch.full((3, 5, 4), 2.0))
    black += 1  # not an alias of anything
    assert torch.equal(fill(Black(), x)[:, 0], torch.full((3, 5, 4), -1.0))


def test_flipped_is_mirrored_within_the_domain():
    x = torch.tensor([[0.0, 0.25, 2.0]])
    assert torch.equal(Flipped().fill(x, Domain((0.0,), (2.0,)), []), torch.tensor([[2.0, 1.75, 0.0]]))
    assert torch.equal(Flipped().fill(x, Domain((-1.0,), (1.0,)), []), -x)


def test_mean(x):
    mean = fill(Mean(), x)
    for i in range(3):
        for c in range(2):
            torch.testing.assert_close(mean[i, c], torch.full((5, 4), float(x[i, c].sum() / 20)))
    row = torch.tensor([[1.0, 2, 6], [0, 0, 3]])
    assert torch.equal(fill(Mean(), row), torch.tensor([[3.0] * 3, [1] * 3]))


@pytest.mark.parametrize("shape", [(2, 2, 9), (2, 2, 6, 7), (2, 1, 4, 5, 3)])
def test_blur_against_direct_convolution(shape):
    sigma = 0.8
    x = torch.randn(shape, generator=Generator().manual_seed(1), dtype=torch.float64)
    radius = int(4 * sigma + 0.5)
    kernel = [math.exp(-((k / sigma) ** 2) / 2) for k in range(-radius, radius + 1)]
    kernel = [value / sum(kernel) for value in kernel]
    expected = x
    for axis in range(2, x.ndim):
        size, blurred = x.shape[axis], torch.zeros_like(x)
        for position in range(size):
            for k in range(-radius, radius + 1):
                place = position + k
                while not 0 <= place < size:  # d c b a | a b c d | d c b a
                    place = -place - 1 if place < 0 else 2 * size - place - 1
                blurred.select(axis, position).add_(expected.select(axis, place), alpha=kernel[k + radius])
        expected = blurred
    torch.testing.assert_close(Blur(sigma).fill(x, DOMAIN, []), expected)


def test_blur_keeps_channels_and_samples_apart():
    x = torch.zeros(2, 2, 5, 5)
    x[0, 1, 2, 2] = 1
    blurred = Blur(1.0).fill(x, DOMAIN, [])
    assert float(blurred[0, 1].sum()) == pytest.approx(1)
    assert not blurred[1].any()
    assert not blurred[0, 0].any()
    with pytest.raises(InputError, match="needs positions to blur over"):
        Blur().fill(torch.zeros(2, 3), DOMAIN, [])


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_values_that_are_not_finite(value):
    with pytest.raises(InputError, match="Constant needs a finite value"):
        Constant(value)
    with pytest.raises(InputError, match="Blur needs a positive sigma"):
        Blur(value)


def test_uniform_noise_fills_the_domain():
    noise = fill(UniformNoise(), torch.zeros(3, 2, 40, 40))
    for channel, low, high in ((0, -1, 1), (1, 2, 5)):
        values = noise[:, channel]
        assert low <= float(values.min()) < low + 0.05
        assert high - 0.05 < float(values.max()) <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.1)
        assert float(values.std()) == pytest.approx((high - low) / math.sqrt(12), rel=0.05)


def test_gaussian_noise_has_the_moments_of_each_channel(x):
    x = x.repeat(1, 1, 12, 12)
    noise = fill(GaussianNoise(), x)
    for i in range(3):
        for c in range(2):
            assert float(noise[i, c].mean()) == pytest.approx(float(x[i, c].mean()), abs=0.15)
            assert float(noise[i, c].std()) == pytest.approx(float(x[i, c].std()), rel=0.1)
    constant = torch.full((1, 1, 3, 3), 7.0)
    assert torch.equal(GaussianNoise().fill(constant, DOMAIN, generators(1)), constant)


def test_shuffled_moves_whole_positions(x):
    shuffled = fill(Shuffled(), x)
    for i in range(3):
        pairs = {tuple(pair) for pair in x[i].flatten(1).T.tolist()}
        assert {tuple(pair) for pair in shuffled[i].flatten(1).T.tolist()} == pairs
    assert not torch.equal(shuffled, x)
    table = torch.arange(12.0).view(3, 4)
    assert torch.equal(fill(Shuffled(), table).sort(1).values, table)


def test_sample_is_another_one():
    x = torch.arange(4.0)[:, None].expand(4, 3).contiguous()
    drawn = [Sample().fill(x, DOMAIN, generators(4, seed))[:, 0].tolist() for seed in range(60)]
    assert all(value != i for row in drawn for i, value in enumerate(row))
    assert {(i, value) for row in drawn for i, value in enumerate(row)} == {
        (i, float(j)) for i in range(4) for j in range(4) if i != j
    }
    with pytest.raises(InputError, match="at least two"):
        Sample().fill(x[:1], DOMAIN, generators(1))


@pytest.mark.parametrize("infill", RANDOM, ids=repr)
def test_random_infills_depend_on_their_generators_alone(infill, x):
    assert torch.equal(fill(infill, x, 1), fill(infill, x, 1))
    assert not torch.equal(fill(infill, x, 1), fill(infill, x, 2))
    if not isinstance(infill, Sample):
        alone = infill.fill(x[1:2], DOMAIN, generators(3, 1)[1:2])
        assert torch.equal(alone[0], fill(infill, x, 1)[1])


# Imputed.


def literal_imputation(picture, hidden):
    """The equations of all hidden pixels of one channel written out, solved densely."""
    height, width = hidden.shape
    unknown = [(r, c) for r in range(height) for c in range(width) if hidden[r, c]]
    matrix, right = numpy.zeros((len(unknown), len(unknown))), numpy.zeros(len(unknown))
    for row, (r, c) in enumerate(unknown):
        for dr in (-1, 0, 1):
            for dc in (-1, 0, 1):
                if (dr, dc) == (0, 0) or not (0 <= r + dr < height and 0 <= c + dc < width):
                    continue
                weight = 1 / 6 if 0 in (dr, dc) else 1 / 12
                matrix[row, row] += weight
                if hidden[r + dr, c + dc]:
                    matrix[row, unknown.index((r + dr, c + dc))] -= weight
                else:
                    right[row] += weight * picture[r + dr, c + dc]
    filled = picture.copy()
    for (r, c), value in zip(unknown, numpy.linalg.solve(matrix, right), strict=True):
        filled[r, c] = value
    return filled


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_imputed_against_a_literal_solve(share):
    generator = Generator().manual_seed(2)
    x = torch.randn(3, 2, 7, 6, generator=generator, dtype=torch.float64)
    hidden = torch.rand(3, 1, 7, 6, generator=generator) < share
    hidden[0] = False
    hidden[0, 0, 0, 0] = True  # a single one, at a corner
    filled = fill(Imputed(), x, hidden=hidden)
    for i in range(3):
        for c in range(2):
            expected = literal_imputation(x[i, c].numpy(), hidden[i, 0].numpy())
            numpy.testing.assert_allclose(filled[i, c].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_imputed_restores_a_ramp_exactly():
    down, right = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    ramp = (2 * down - 3 * right + 1).double()[None, None]
    hidden = torch.zeros(1, 1, 8, 9, dtype=torch.bool)
    hidden[..., 2:6, 1:7] = True  # not at the border, whose missing neighbours break the symmetry
    torch.testing.assert_close(fill(Imputed(), ramp, hidden=hidden), ramp)


def test_imputed_at_the_extremes(x):
    none, every = torch.zeros(3, 1, 5, 4, dtype=torch.bool), torch.ones(3, 1, 5, 4, dtype=torch.bool)
    assert torch.equal(fill(Imputed(), x, hidden=none), x)
    torch.testing.assert_close(fill(Imputed(), x, hidden=every), fill(Mean(), x))
    assert torch.equal(fill(Imputed(0.5), x, hidden=none), x)  # noise on what is hidden only
    spread = (fill(Imputed(0.5), x.repeat(1, 1, 20, 20), hidden=every.repeat(1, 1, 20, 20))[0, 0]).std()
    assert float(spread) == pytest.approx(0.5, rel=0.05)
    with pytest.raises(InputError, match="needs to know which are hidden"):
        fill(Imputed(), x)
    with pytest.raises(InputError, match="needs to know which are hidden"):
        fill(Imputed(), x[..., 0], hidden=none[..., 0])
    some = torch.zeros(3, 2, 5, 4, dtype=torch.bool)
    some[:, 1] = True
    with pytest.raises(
        InputError, match=r"hides the channels of a pixel together; give a mask of shape \(n, 1, h, w\)"
    ):
        fill(Imputed(), x, hidden=some)
    assert torch.equal(fill(Imputed(), x, hidden=every.expand(3, 2, 5, 4)), fill(Imputed(), x, hidden=every))


# Regions.


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 7, 5), (2, 1, 4, 7, 5)])
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_patches_against_loops(shape, size):
    x = torch.zeros(shape)
    labels = Patches(size).labels(x)
    assert labels.shape == (1, 1, *shape[2:])
    numbers = {}
    for place in numpy.ndindex(*shape[2:]):
        cell = tuple(p // size for p in place)
        numbers.setdefault(cell, len(numbers))  # in reading order
    cells = sorted(numbers)
    for place in numpy.ndindex(*shape[2:]):
        assert int(labels[(0, 0, *place)]) == cells.index(tuple(p // size for p in place))
    if size == 1:
        assert torch.equal(labels, Pixels().labels(x))
        assert len(labels.unique()) == x[0, 0].numel()


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 13, 5), (2, 1, 4, 7, 9)])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_a_grid_has_so_many_patches_along_every_axis(shape, count):
    labels = Grid(count).labels(torch.zeros(shape))
    assert labels.shape == (1, 1, *shape[2:])
    grid = [min(count, size) for size in shape[2:]]
    assert sorted(labels.unique().tolist()) == list(range(math.prod(grid)))
    for axis, (size, cells) in enumerate(zip(shape[2:], grid, strict=True)):
        place = labels[0, 0].movedim(axis, 0).reshape(size, -1)[:, 0] // math.prod(grid[axis + 1 :])
        widths = torch.bincount(place, minlength=cells)
        assert place.tolist() == sorted(place.tolist())
        assert widths.min() >= 1
        assert widths.max() - widths.min() <= 1


def test_the_pixels_of_a_table_are_its_columns():
    for regions in (Pixels(), Grid(2)):
        assert regions.labels(torch.zeros(2, 3)).tolist() == [[0, 1, 2]]
    with pytest.raises(InputError, match=r"use Along\(1\)"):
        Patches(2).labels(torch.zeros(2, 3))


def test_along():
    x = torch.zeros(2, 3, 4)
    assert Along(1).labels(x).tolist() == [[[0], [1], [2]]]
    assert Along(2).labels(x).tolist() == [[[0, 1, 2, 3]]]
    for axis in (0, 3, -1):
        with pytest.raises(InputError, match=f"axis {axis} is none of a sample's"):
            Along(axis).labels(x)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_superpixels_cover_every_pixel_and_are_numbered_without_gaps(channels):
    x = (
        torch.randn(2, channels, 5, 6, generator=Generator().manual_seed(0))
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
    )
    labels = Superpixels(12).labels(x)
    assert labels.shape == (2, 1, 20, 24)
    for row in labels:
        numbers = row.unique()
        assert numbers.tolist() == list(range(len(numbers)))
        assert 4 <= len(numbers) <= 24
    assert Superpixels().labels(torch.zeros(1, channels, 6, 6)).min() == 0


def test_superpixels_follow_the_colour():
    x = torch.zeros(1, 3, 16, 16)
    x[..., 5:] = 1.0
    labels = Superpixels(4, compactness=0.1).labels(x)[0, 0]
    assert not set(labels[:, :5].flatten().tolist()) & set(labels[:, 5:].flatten().tolist())


@pytest.mark.parametrize("fields", [{"count": 0}, {"count": -3}, {"compactness": 0.0}])
def test_superpixels_that_make_no_sense(fields):
    with pytest.raises(InputError, match="Superpixels needs a count ≥ 1 and a compactness > 0"):
        Superpixels(**fields)
