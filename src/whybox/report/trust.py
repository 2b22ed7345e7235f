"""Trust: what was measured of the explanations of one sample, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import torch

from whybox.core.explanation import Explanation
from whybox.core.method import Check
from whybox.core.tree import as_tuple
from whybox.evaluation.similarity import rank_correlation
from whybox.plot import positions
from whybox.report.names import number

# How a median rank correlation between methods is put into words, from the strongest.
_AGREEMENT = (
    (0.6, "agree well", "They point at much the same places, which makes it less likely that one of them misleads."),
    (0.3, "agree in part", "They share some places and differ in others; trust what they have in common."),
    (0.1, "hardly agree", "Each tells a different story of where the evidence lies; do not rely on a single map."),
    (-2.0, "do not agree", "What one marks says nothing about what another marks; do not rely on any map alone."),
)


@dataclass(frozen=True)
class Measured:
    """One method's value in one check.

    Attributes:
        method: the method's title.
        value: the number as text, "—" where there is none.
        verdict: "pass", "fail" or "none".
        share: where the value lies between 0 and twice the limit, from 0 to 1; None where there is no such place.
        note: why there is no value, or "".
    """

    method: str
    value: str
    verdict: str
    share: float | None
    note: str


@dataclass(frozen=True)
class CheckRow:
    """One check with the values of all methods that have it."""

    name: str
    says: str
    limit: str
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Agreement:
    """Rank correlations between the methods' maps; `table[i][j]` is None on the diagonal."""

    methods: tuple[str, ...]
    table: tuple[tuple[float | None, ...], ...]
    median: float
    verdict: str
    means: str


@dataclass(frozen=True)
class Trust:
    """The trust panel of one sample."""

    summary: str
    verdict: str
    checks: tuple[CheckRow, ...]
    agreement: Agreement | None


def trust(explanations: Sequence[Explanation], titles: Sequence[str], sample: int) -> Trust:
    """Gather the checks and the agreement of the explanations of one sample.

    Args:
        explanations: of the same inputs, one per method.
        titles: what to call the methods.
        sample: which sample of the batch.
    """
    rows: dict[str, list[Measured]] = {}
    first: dict[str, Check] = {}
    for explanation, title in zip(explanations, titles, strict=True):
        for check in explanation.checks:
            first.setdefault(check.name, check)
            rows.setdefault(check.name, []).append(_measured(check, explanation, title, sample))
    checks = tuple(
        CheckRow(name, first[name].says, number(first[name].limit), tuple(measured)) for name, measured in rows.items()
    )
    agreement = _agreement(explanations, titles, sample)
    return Trust(*_summary(checks, agreement), checks, agreement)


def _measured(check: Check, explanation: Explanation, title: str, sample: int) -> Measured:
    value = float(check.values[sample])
    if value != value:
        return Measured(title, "—", "none", None, _reason(check, explanation, sample))
    share = min(value / (2 * check.limit), 1.0) if check.limit > 0 else None
    return Measured(title, number(value), "pass" if bool(check.passed[sample]) else "fail", share, "")


def _reason(check: Check, explanation: Explanation, sample: int) -> str:
    """Why there is no value."""
    values = positions(as_tuple(explanation.relevance)[0])[sample]
    if not bool(torch.isfinite(values).all()):
        return "the map holds NaN or infinity"
    if bool((values == values.flatten()[0]).all()):
        return "the map has the same value everywhere, so there is no order to compare"
    if "likeness" in check.name:
        return "what it is compared with has the same value everywhere, so there is no order to compare"
    return "not defined for this input"


def _agreement(explanations: Sequence[Explanation], titles: Sequence[str], sample: int) -> Agreement | None:
    """How alike the maps are, for every pair of methods; None for a single method."""
    maps = [as_tuple(explanation.relevance)[0][sample : sample + 1] for explanation in explanations]
    if len(maps) < 2:
        return None
    table: list[list[float | None]] = [[None] * len(maps) for _ in maps]
    found = []
    for i, j in combinations(range(len(maps)), 2):
        comparable = positions(maps[i]).shape == positions(maps[j]).shape
        value = float(rank_correlation(maps[i], maps[j])) if comparable else float("nan")
        table[i][j] = table[j][i] = value
        found += [value] if value == value else []
    middle = median(found) if found else float("nan")
    verdict, means = next(
        ((words, means) for least, words, means in _AGREEMENT if middle >= least),
        ("cannot be compared", "A map with the same value everywhere has no order to compare."),
    )
    return Agreement(tuple(titles), tuple(map(tuple, table)), middle, verdict, means)


def _summary(checks: Sequence[CheckRow], agreement: Agreement | None) -> tuple[str, str]:
    """The panel in two sentences, and its verdict: "pass", "fail" or "none"."""
    measured = [(check, one) for check in checks for one in check.measured]
    failed = [(check, one) for check, one in measured if one.verdict == "fail"]
    passed = sum(one.verdict == "pass" for _, one in measured)
    if failed:
        worst = "; ".join(f"{one.method} in {check.name} ({one.value}, limit {check.limit})" for check, one in failed[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        told = f"{len(failed)} of {len(measured)} checks {'fails' if len(failed) == 1 else 'fail'}: {worst}{more}."
    elif passed:
        told = f"All {passed} checks pass." if passed > 1 else "The one check passes."
    else:
        told = "Nothing could be checked."
    if agreement is not None:
        told += f" The methods {agreement.verdict}"
        told += f" (median rank correlation {number(agreement.median)})." if agreement.median == agreement.median else "."
    return told, "fail" if failed else "pass" if passed else "none"
