"""Trust: what was measured of the explanations of one sample, in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import torch

from whybox.core.explanation import Explanation
from whybox.core.method import Check
from whybox.evaluation.similarity import rank_correlation
from whybox.evaluation.trials import Trial
from whybox.plot import is_change, number
from whybox.report.lights import Light, light

# How a median rank correlation between methods is put into words, from the strongest.
_AGREEMENT = (
    (0.6, "agree well", "They point at much the same places, which makes it less likely that one of them misleads."),
    (0.3, "agree in part", "They share some places and differ in others; trust what they have in common."),
    (0.1, "hardly agree", "Each tells a different story of where the evidence lies; do not rely on a single map."),
    (-2.0, "do not agree", "What one marks says nothing about what another marks; do not rely on any map alone."),
)

_DISAGREE = 0.3

# Behind this a check says why it has no value.
_UNMEASURED = " Not measured: "


@dataclass(frozen=True)
class Measured:
    """One method's value in one check.

    Attributes:
        method: the method's title.
        value: the number as text, "—" where there is none.
        verdict: "pass", "fail" or "none"; in a trial also "doubt", and "control" for what knows nothing.
        share: where the value lies between 0 and twice the limit (in a trial: between the largest loss to either side),
            from 0 to 1; None where there is no such place.
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
class TrialRow:
    """One trial with the scores of all methods, and of the controls beside them; a share of ½ is what chance gives."""

    name: str
    measured: tuple[Measured, ...]
    controls: tuple[Measured, ...]


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
    """The trust panel of one sample; `verdict` is that of a light, `lead` and `summary` say it in words."""

    lead: str
    summary: str
    verdict: str
    lights: tuple[Light, ...]
    trials: tuple[TrialRow, ...]
    checks: tuple[CheckRow, ...]
    agreement: Agreement | None


def trust(
    explanations: Sequence[Explanation], titles: Sequence[str], sample: int, trials: Sequence[Trial] = ()
) -> Trust:
    """Gather what was measured of the explanations of one sample.

    Args:
        explanations: of the same inputs, one per method.
        titles: what to call the methods.
        sample: which sample of the batch.
        trials: of the same explanations, in their order.
    """
    rows: dict[str, list[Measured]] = {}
    first: dict[str, Check] = {}
    for explanation, title in zip(explanations, titles, strict=True):
        for check in explanation.checks:
            first.setdefault(check.name, check)
            rows.setdefault(check.name, []).append(_measured(check, explanation, title, sample))
    checks = tuple(
        CheckRow(name, first[name].says.partition(_UNMEASURED)[0], number(first[name].limit), tuple(measured))
        for name, measured in rows.items()
    )
    agreement = _agreement(explanations, titles, sample)
    lights = tuple(
        light(explanation, place, trials, title, sample)
        for place, (explanation, title) in enumerate(zip(explanations, titles, strict=True))
    )
    tried = tuple(_trial(trial, titles, sample) for trial in trials)
    return Trust(*_summary(checks, lights, agreement), lights, tried, checks, agreement)


def _trial(trial: Trial, titles: Sequence[str], sample: int) -> TrialRow:
    scores = [float(values[sample]) for values in trial.scores]
    controls = {name: float(values[sample]) for name, values in trial.controls.items()}
    largest = max((abs(value) for value in (*scores, *controls.values()) if value == value), default=0.0) or 1.0

    def measured(title: str, value: float, verdict: str) -> Measured:
        if value != value:
            return Measured(title, "—", "none", None, "the map, or an answer of the model, holds NaN or infinity")
        if not bool(trial.telling[sample]):
            note = "" if verdict == "control" else "whatever is taken away, the prediction stays nearly as it is"
            return Measured(title, number(value), "control" if verdict == "control" else "none", None, note)
        return Measured(title, f"{value:.3f}".replace("-", "−"), verdict, 0.5 + value / largest / 2, "")

    verdicts = ["fail" if s <= 0 else "doubt" if trial.ahead(i, sample) else "pass" for i, s in enumerate(scores)]
    return TrialRow(
        f"Beside controls: replaced by {trial.infill}",
        tuple(map(measured, titles, scores, verdicts)),
        tuple(measured(name, value, "control") for name, value in controls.items()),
    )


def _measured(check: Check, explanation: Explanation, title: str, sample: int) -> Measured:
    value = float(check.values[sample])
    if value != value:
        return Measured(title, "—", "none", None, _reason(check, explanation, sample))
    share = min(value / (2 * check.limit), 1.0) if check.limit > 0 else None
    return Measured(title, _beside(value, check.limit), "pass" if bool(check.passed[sample]) else "fail", share, "")


def _beside(value: float, limit: float) -> str:
    """The value with the decimals that it takes to compare it with the limit."""
    if not limit > 0 or abs(value) >= 1000 * limit:
        return number(value)
    decimals = max(0, 2 - math.floor(math.log10(limit)))
    return f"{value:.{decimals}f}".replace("-", "−")


def _reason(check: Check, explanation: Explanation, sample: int) -> str:
    """Why there is no value."""
    said = check.says.partition(_UNMEASURED)[2]
    if said:
        return said
    values = explanation.by_position()[sample]
    if not bool(torch.isfinite(values).all()):
        return "the map holds NaN or infinity"
    if bool((values == values.flatten()[0]).all()):
        return "the map has the same value everywhere, so there is no order to compare"
    if "likeness" in check.name:
        return "what it is compared with has the same value everywhere, so there is no order to compare"
    return "not defined for this input"


def _agreement(explanations: Sequence[Explanation], titles: Sequence[str], sample: int) -> Agreement | None:
    """How alike the maps are, for every pair of methods; None for a single method, or for contrasts alone.

    Two signed maps are compared with their signs; where one of the two has none, their strengths are. That contrasts
    agree, which are variants of one search in one latent space, is no reason to believe them.
    """
    whole = [explanation.by_position() for explanation in explanations]
    passages = explanations[0].passages if explanations else None
    if passages is not None:  # padding is alike in all of them
        whole = [values[:, : len(passages[sample])] for values in whole]
    if len(whole) < 2 or all(map(is_change, explanations)):
        return None
    maps = [values[sample : sample + 1] for values in whole]
    signed = [bool((values < 0).any()) for values in whole]
    table: list[list[float | None]] = [[None] * len(maps) for _ in maps]
    found = []
    for i, j in combinations(range(len(maps)), 2):
        value = float("nan")
        if maps[i].shape == maps[j].shape:
            pair = (maps[i], maps[j]) if signed[i] and signed[j] else (maps[i].abs(), maps[j].abs())
            value = float(rank_correlation(*(one.flatten(1) for one in pair)))
        table[i][j] = table[j][i] = value
        found += [value] if value == value else []
    middle = median(found) if found else float("nan")
    verdict, means = next(
        ((words, means) for least, words, means in _AGREEMENT if middle >= least),
        ("cannot be compared", "A map with the same value everywhere has no order to compare."),
    )
    return Agreement(tuple(titles), tuple(map(tuple, table)), middle, verdict, means)


def _summary(checks: Sequence[CheckRow], lights: Sequence[Light], agreement: Agreement | None) -> tuple[str, str, str]:
    """The panel in a few words, in two sentences, and its verdict."""
    everything = [(check, one) for check in checks for one in check.measured]
    measured = [(check, one) for check, one in everything if one.verdict != "none"]
    failed = [(check, one) for check, one in measured if one.verdict == "fail"]
    passed = sum(one.verdict == "pass" for _, one in measured)
    if failed:
        worst = "; ".join(
            f"{one.method} in {check.name} ({one.value}, limit {check.limit})" for check, one in failed[:3]
        )
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        told = f"{len(failed)} of {len(measured)} checks {'fails' if len(failed) == 1 else 'fail'}: {worst}{more}."
    elif passed:
        told = (
            f"All {passed} measured values are within their limits."
            if passed > 1
            else "The one value measured is within its limit."
        )
    else:
        told = "Nothing could be checked."
    if measured and len(measured) < len(everything):
        told += f" {len(everything) - len(measured)} could not be measured."
    if agreement is not None:
        told += f" The methods {agreement.verdict}"
        known = agreement.median == agreement.median
        told += f" (median rank correlation {agreement.median:.2f}).".replace("-", "−") if known else "."
    verdicts = [one.verdict for one in lights]
    if "fail" in verdicts:
        those = [one.method for one in lights if one.verdict == "fail"]
        return f"Do not rely on {those[0] if len(those) == 1 else 'those marked'} here.", told, "fail"
    if "doubt" in verdicts:
        return "Read with care.", told, "doubt"
    if agreement is not None and agreement.median < _DISAGREE:
        return "The methods disagree.", told, "none"
    return ("No objection.", told, "pass") if "pass" in verdicts else ("Unchecked.", told, "none")
