"""Bootstrap: how far a mean over samples could have come out otherwise, had other samples been drawn."""

import math
from dataclasses import dataclass

import numpy
from jaxtyping import Float

LEVEL = 0.95
DRAWS = 2000

# With n samples all differences have the same sign by chance alone with probability 2·½ⁿ, and then every resample has
# it too. Below six samples that is more than 1 in 20, so there is no interval of 95 % to be had.
FEWEST = 6


@dataclass(frozen=True)
class Interval:
    """A mean over n samples with its confidence interval, which is NaN where n is less than six."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def sign(self) -> int:
        """1 or −1 where the interval lies wholly above or below zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def intervals(values: Float[numpy.ndarray, "rows n"], seed: int = 0) -> list[Interval]:
    """The mean of each row and its 95 % percentile bootstrap interval; NaN is left out.

    Rows with values for the same samples share their resamples, so a row of differences is resampled as their pairs.
    Cost: 2,000 resamples, without any evaluation of the model.
    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    found = [Interval(math.nan, math.nan, math.nan, 0)] * len(values)
    present = ~numpy.isnan(values)
    patterns, pattern_of = numpy.unique(present, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        n = int(pattern.sum())
        rows = numpy.flatnonzero(pattern_of.reshape(-1) == number)
        if n:
            part = values[numpy.ix_(rows, pattern)]
            means = part.mean(1)
            low, high = _bounds(part, seed) if n >= FEWEST else numpy.full((2, len(rows)), math.nan)
            for place, row in enumerate(rows):
                found[row] = Interval(float(means[place]), float(low[place]), float(high[place]), n)
    return found


def _bounds(values: numpy.ndarray, seed: int) -> numpy.ndarray:
    """The interval's ends (2, rows), from values without gaps (rows, n)."""
    n = values.shape[1]
    counts = numpy.random.default_rng(seed).multinomial(n, numpy.full(n, 1 / n), size=DRAWS)
    # Around the mean: rows that are constant keep their exact value.
    means = values.mean(1, keepdims=True)
    resampled = counts @ (values - means).T / n
    ends: numpy.ndarray = means.T + numpy.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return ends
