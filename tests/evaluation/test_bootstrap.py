"""Intervals against a literal bootstrap, and against the share of cases that they promise to cover."""

import math

import numpy
import pytest

from whybox.evaluation.bootstrap import DRAWS, FEWEST, intervals


def literal(values, seed):
    """Resample by drawing each sample as often as the generator says, one resample at a time."""
    values = [float(v) for v in values if not math.isnan(v)]
    n = len(values)
    means = []
    for counts in numpy.random.default_rng(seed).multinomial(n, [1 / n] * n, size=DRAWS):
        resample = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
        means.append(sum(resample) / n)
    means.sort()

    def quantile(share):
        place = share * (len(means) - 1)
        below = int(place)
        return means[below] + (place - below) * (means[below + 1] - means[below])

    return quantile(0.025), quantile(0.975)


def test_against_a_literal_bootstrap():
    values = numpy.random.default_rng(1).normal(size=(3, 12)) + 2
    values[1, [0, 5, 7]] = math.nan
    for row, found in zip(values, intervals(values, seed=4), strict=True):
        assert found.mean == pytest.approx(numpy.nanmean(row))
        assert (found.low, found.high) == pytest.approx(literal(row, 4), abs=1e-12)
        assert found.n == int((~numpy.isnan(row)).sum())


def test_they_cover_the_true_mean_about_as_often_as_they_say():
    """Of 95 % intervals from 60 samples of a skewed law with mean 1, some 92 to 95 % hold it."""
    values = numpy.random.default_rng(2).exponential(size=(600, 60))
    found = intervals(values, seed=3)
    assert 0.9 <= numpy.mean([one.low <= 1 <= one.high for one in found]) <= 0.97


def test_samples_in_common_do_not_hide_a_small_difference():
    """Paired: two methods that differ by .1 on samples that differ by 10 are told apart, though their means are not."""
    random = numpy.random.default_rng(5)
    sample = 10 * random.normal(size=40)
    a, b = sample + 0.1 + 0.01 * random.normal(size=40), sample
    apart, *alone = intervals(numpy.stack((a - b, a, b)))
    assert apart.sign == 1
    assert alone[0].low < alone[1].high


def test_too_few_samples_have_no_interval():
    """All of five differences are positive by chance in more than one of twenty cases; all of six are not."""
    assert 2 * 0.5 ** (FEWEST - 1) > 0.05 > 2 * 0.5**FEWEST
    few, enough = intervals(numpy.array([[1.0] * (FEWEST - 1) + [math.nan], [1.0] * FEWEST]))
    assert few.sign == 0
    assert math.isnan(few.low)
    assert few.mean == 1
    assert (enough.low, enough.high, enough.sign) == (1, 1, 1)


def test_nothing_at_all():
    [found] = intervals(numpy.full((1, 3), math.nan))
    assert found.n == 0
    assert math.isnan(found.mean)
    assert intervals(numpy.zeros((1, 10)))[0].sign == 0
