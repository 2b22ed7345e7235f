"""Tabulating: a comparison as text that fits the terminal."""

import math
from collections.abc import Sequence

from whybox.core.configs import config_title
from whybox.core.text import columns, width, wrap
from whybox.evaluation.bootstrap import Interval
from whybox.evaluation.comparison import Comparison
from whybox.evaluation.recommending import reason, recommendation
from whybox.evaluation.standing import against_controls, beyond_limit, standings

_LIGHTS = {"pass": "✓", "open": "?", "fail": "✕"}
_MARKS = {"beats": "+", "behind": "−", "open": " ", None: " "}
_WIDEST_NAME = 26
_GAP = "  "


def tabulated(comparison: Comparison) -> str:
    """The scores in as many tables as it takes, how each method stands, what was left out, and the recommendation."""
    parts = [
        wrap(
            f"{comparison.model}, n = {comparison.n}: mean scores, ± half the width of their 95 % bootstrap intervals, "
            "the best methods first, the controls below the line"
        ),
        *_scores(comparison, comparison.order),
        wrap(
            "+ better than every control, − worse than one: the 95 % interval of the paired difference excludes 0."
            if comparison.controls
            else "No controls: whether a score means something is not known."
        ),
        "\n".join(_standings(comparison)),
        *(wrap(line) for line in left_out(comparison)),
        wrap(_cost(comparison)),
        "\n".join(map(wrap, recommendation(comparison).splitlines())),
    ]
    return "\n\n".join(part for part in parts if part)


def left_out(comparison: Comparison) -> list[str]:
    """What was not scored, or means little, in sentences, each with how many samples of how many."""
    lines = [] if comparison.complete else ["Interrupted: only what is shown was measured."]
    n = comparison.n
    if comparison.wrong:
        lines.append(f"For {len(comparison.wrong)} of {n} samples the model predicts another class than is explained.")
    for rows, said, count, where in _skipped(comparison):
        whose = "All" if len(rows) == len(comparison.explained) else ", ".join(comparison.names[row] for row in rows)
        lines.append(f"{whose}: {said} for {count} of {n} samples{where}.")
    for failure in comparison.failures:
        by = "" if failure.metric is None else f" by {config_title(failure.metric)}"
        lines.append(f"{config_title(failure.method)} could not be scored{by}: {failure.message}")
    return lines


def _skipped(comparison: Comparison) -> list[tuple[list[int], str, int, str]]:
    """The methods, the reason, the number of samples and the criteria, of scores that are missing or mean little."""
    reasons: dict[tuple[int, str, tuple[int, ...]], list[int]] = {}
    for (row, column), cell in comparison.cells.items():
        for said, places in cell.skipped.items():
            reasons.setdefault((row, said, places), []).append(column)
    grouped: dict[tuple[str, int, str], list[int]] = {}
    for (row, said, places), found in reasons.items():
        every = len(found) == sum(i == row for i, _ in comparison.cells)
        where = "" if every else f" ({', '.join(map(comparison.criterion_name, found))})"
        grouped.setdefault((said, len(places), where), []).append(row)
    return [(rows, *key) for key, rows in grouped.items()]


def _scores(comparison: Comparison, order: Sequence[int]) -> list[str]:
    """Tables of as many criteria as fit beside the names."""
    shown = [_shortened(comparison.names[row]) for row in order]
    line = sum(not comparison.explained[row].control for row in order)
    names = _framed(["", ""], shown, line)
    tables: list[list[list[str]]] = []
    for column in range(len(comparison.criteria)):
        arrow = "↑" if comparison.criteria[column].higher_is_better else "↓"
        heads = [f"{arrow} {comparison.metrics[column]}", f"  {comparison.criteria[column].infill}"]
        entries = _framed(heads, _entries(comparison, order, column), line)
        taken = sum(len(one[0]) + len(_GAP) for one in tables[-1]) if tables else width()
        if taken + len(entries[0]) > width():
            tables.append([names])
        tables[-1].append(entries)
    return ["\n".join(_GAP.join(parts).rstrip() for parts in zip(*table, strict=True)) for table in tables]


def _framed(heads: list[str], entries: list[str], line: int) -> list[str]:
    """A column of a table, all its lines equally wide, with a line between the methods and the controls."""
    wide = max(map(len, heads + entries))
    lines = [f"{text:<{wide}}" for text in heads + entries]
    return lines if line == len(entries) else [*lines[: line + len(heads)], "─" * wide, *lines[line + len(heads) :]]


def _entries(comparison: Comparison, order: Sequence[int], column: int) -> list[str]:
    """One criterion's scores with their marks, all to the same decimals."""
    found = [comparison.interval(row, column) for row in order]
    places = decimals(found)
    texts = [(_number(one.mean, places), _number((one.high - one.low) / 2, places)) for one in found]
    wide = [max(len(text[part]) for text in texts) for part in (0, 1)]
    marks = [
        "✕" if beyond_limit(comparison, row, column) else _MARKS[against_controls(comparison, row, column)]
        for row in order
    ]
    return [f"{mean:>{wide[0]}} ±{half:>{wide[1]}} {mark}" for (mean, half), mark in zip(texts, marks, strict=True)]


def decimals(found: Sequence[Interval]) -> int:
    """As many that the typical interval has two significant digits."""
    halves = sorted(half for one in found if (half := (one.high - one.low) / 2) > 0)
    return min(max(1 - math.floor(math.log10(halves[len(halves) // 2])), 0), 4) if halves else 3


def _number(value: float, places: int) -> str:
    return "—" if math.isnan(value) else f"{value:.{places}f}"


def _shortened(name: str) -> str:
    return name if len(name) <= _WIDEST_NAME else f"{name[: _WIDEST_NAME - 1]}…"


def _standings(comparison: Comparison) -> list[str]:
    """Each method's light, cost and reason."""
    rows = [("", "", "SECONDS", "PASSES", "")]
    for one in standings(comparison):
        explained = comparison.explained[one.row]
        rows.append(
            (
                _LIGHTS[one.light],
                _shortened(comparison.names[one.row]),
                f"{explained.seconds:.2f}",
                f"{(explained.forwards + explained.backwards) / comparison.n:.4g}",
                reason(comparison, one),
            )
        )
    return columns(rows)


def _cost(comparison: Comparison) -> str:
    """What explaining and each criterion has cost, over all methods."""
    parts = []
    for column in range(len(comparison.criteria)):
        cells = [cell for (_, j), cell in comparison.cells.items() if j == column]
        seconds, asked = sum(cell.seconds for cell in cells), sum(cell.forwards + cell.backwards for cell in cells)
        parts.append(f"{comparison.criterion_name(column)} {seconds:.1f} s, {asked:,}")
    return (
        f"{comparison.seconds:.0f} s, {comparison.forwards:,} forward and {comparison.backwards:,} backward passes of "
        f"a sample; of these the measurements (what others had asked before is not asked again): {'; '.join(parts)}."
    )
