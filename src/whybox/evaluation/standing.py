"""Standing: how the methods of a comparison stand against the controls, against each other, and under other infills."""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy
import torch

from whybox.evaluation.comparison import Comparison
from whybox.evaluation.similarity import rank_correlation

# Families of metrics that nothing wins without looking at the model. A map that is always the same is perfectly robust,
# a single point is perfectly sparse, and a random map does not resemble that of other weights.
JUDGED = ("faithfulness", "localisation")

Light = Literal["pass", "fail", "open"]


@dataclass(frozen=True)
class Standing:
    """How one method stands.

    Attributes:
        row: its place in the comparison.
        beats: the judged criteria on which it beats every control.
        of: how many judged criteria there are.
        behind: the judged criteria on which it is worse than a control.
        beyond: the criteria whose limit it is beyond.
        rank: its mean rank among the methods over the judged criteria, 1 the best.
        light: "fail" where it is beyond a limit or beats the controls on nothing, "pass" where it beats them on more
            than half of the criteria, else "open".
    """

    row: int
    beats: tuple[int, ...]
    of: int
    behind: tuple[int, ...]
    beyond: tuple[int, ...]
    rank: float
    light: Light


@dataclass(frozen=True)
class Disagreement:
    """What two infills of one metric make of the same methods.

    Attributes:
        first, second: the criteria.
        correlation: rank correlation of all mean scores, 1 the same order.
        reversed: pairs of methods of which one is better by the first criterion, the other by the second, each by an
            interval that excludes 0; pairs without controls come first, and pairs of controls are left out.
    """

    first: int
    second: int
    correlation: float
    reversed: tuple[tuple[int, int], ...]


def judged(comparison: Comparison) -> list[int]:
    """The criteria by which methods are judged against the controls."""
    return [
        j
        for j, one in enumerate(comparison.criteria)
        if one.family in JUDGED and any(c == j for _, c in comparison.cells)
    ]


def against_controls(comparison: Comparison, row: int, column: int) -> str | None:
    """ "beats" every control, "behind" one of them, or "open"; None for controls, and where nothing is judged."""
    if comparison.explained[row].control or comparison.criteria[column].family not in JUDGED:
        return None
    found = [control for control in comparison.controls if (control, column) in comparison.cells]
    if not found or (row, column) not in comparison.cells:
        return None
    signs = [comparison.difference(row, control, column).sign for control in found]
    return "beats" if min(signs) > 0 else "behind" if min(signs) < 0 else "open"


def ahead_of(comparison: Comparison, row: int, column: int) -> list[int]:
    """The controls that are better than a method."""
    return [control for control in comparison.controls if comparison.difference(row, control, column).sign < 0]


def beyond_limit(comparison: Comparison, row: int, column: int) -> bool:
    """Whether the whole interval of a method lies beyond the criterion's limit."""
    criterion, found = comparison.criteria[column], comparison.interval(row, column)
    if criterion.limit is None:
        return False
    return found.high < criterion.limit if criterion.higher_is_better else found.low > criterion.limit


def standings(comparison: Comparison) -> list[Standing]:
    """All methods, the best first: by light, then by criteria won less those behind a control, then by mean rank."""
    columns = judged(comparison)
    ranks = _mean_ranks(comparison, columns)
    found = []
    for row in comparison.methods:
        outcomes = {column: against_controls(comparison, row, column) for column in columns}
        beats = tuple(column for column, outcome in outcomes.items() if outcome == "beats")
        behind = tuple(column for column, outcome in outcomes.items() if outcome == "behind")
        beyond = tuple(j for j in range(len(comparison.criteria)) if beyond_limit(comparison, row, j))
        known = any(outcome is not None for outcome in outcomes.values())
        light: Light = (
            "fail" if beyond or (known and not beats) else "pass" if 2 * len(beats) > len(columns) else "open"
        )
        found.append(
            Standing(row, beats, len(columns), behind, beyond, ranks[row], light if known or beyond else "open")
        )
    lights = ("pass", "open", "fail")
    return sorted(found, key=lambda one: (lights.index(one.light), len(one.behind) - len(one.beats), one.rank))


def _mean_ranks(comparison: Comparison, columns: list[int]) -> dict[int, float]:
    """The mean over the criteria of each method's rank by mean score; last where it has none."""
    total = dict.fromkeys(comparison.methods, 0.0)
    for column in columns:
        sign = -1 if comparison.criteria[column].higher_is_better else 1
        means = numpy.array([sign * comparison.interval(row, column).mean for row in total])
        means[numpy.isnan(means)] = numpy.inf
        for place, row in enumerate(total):
            total[row] += 1 + float((means < means[place]).sum()) + float((means == means[place]).sum() - 1) / 2
    return {row: rank / max(len(columns), 1) for row, rank in total.items()}


def disagreements(comparison: Comparison) -> list[Disagreement]:
    """For every metric that was run with several infills, what each two of them make of the same methods."""
    found = []
    for first, second in combinations(range(len(comparison.criteria)), 2):
        if comparison.metrics[first] != comparison.metrics[second]:
            continue
        rows = [i for i in range(len(comparison.explained)) if {(i, first), (i, second)} <= set(comparison.cells)]
        means = [[comparison.interval(row, column).mean for row in rows] for column in (first, second)]
        defined = len(rows) > 1 and bool(numpy.isfinite(means).all())
        correlation = float(rank_correlation(*torch.tensor(means)[:, None])) if defined else float("nan")
        reversed_pairs = []
        for a, b in combinations(rows, 2):
            if comparison.explained[a].control and comparison.explained[b].control:
                continue
            signs = [comparison.difference(a, b, column).sign for column in (first, second)]
            if signs[0] * signs[1] < 0:
                reversed_pairs.append((a, b) if signs[0] > 0 else (b, a))
        reversed_pairs.sort(key=lambda pair: sum(comparison.explained[row].control for row in pair))
        found.append(Disagreement(first, second, correlation, tuple(reversed_pairs)))
    return found
