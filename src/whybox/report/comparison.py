"""comparison_page: a comparison of methods as one HTML file that needs nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from whybox._version import __version__
from whybox.evaluation.comparison import Comparison
from whybox.evaluation.recommending import disagreement_says, headline, reason, recommendation
from whybox.evaluation.standing import (
    Light,
    against_controls,
    ahead_of,
    beyond_limit,
    disagreements,
    judged,
    standings,
)
from whybox.evaluation.tabulating import decimals, left_out
from whybox.plot import number
from whybox.report.cards import MethodCard, cost_says, method_card
from whybox.report.compared import reproduce_comparison
from whybox.report.names import model_titles
from whybox.report.reproduce import Reproduce
from whybox.report.templates import asset, templates


@dataclass(frozen=True)
class MethodRow:
    """How one method stands."""

    name: str
    light: Light
    reason: str
    seconds: str
    passes: str


@dataclass(frozen=True)
class Score:
    """One mean with its interval; low, mean and high are places on the table's axis, from 0 to 1, or None."""

    text: str
    low: float | None
    mean: float | None
    high: float | None
    mark: str
    says: str


@dataclass(frozen=True)
class ScoreRow:
    """One method's scores by one metric."""

    name: str
    control: bool
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class MetricTable:
    """One metric, a column for each infill."""

    name: str
    family: str
    better: str
    judged: bool
    infills: tuple[str, ...]
    axis: tuple[str, str]
    rows: tuple[ScoreRow, ...]
    costs: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonView:
    """The whole page."""

    title: str
    version: str
    headline: str
    says: tuple[str, ...]
    facts: str
    methods: tuple[MethodRow, ...]
    tables: tuple[MetricTable, ...]
    disagreements: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    cards: tuple[MethodCard, ...]
    metric_cards: tuple[MethodCard, ...]
    reproduce: Reproduce


def comparison_page(comparison: Comparison, command: str = "") -> str:
    """The page as text."""
    return (
        templates()
        .get_template("comparison.html.j2")
        .render(
            page=_view(comparison, command),
            styles="\n".join(map(asset, ("tokens.css", "page.css", "trust.css", "comparison.css", "print.css"))),
            scripts=asset("page.js"),
        )
    )


def _view(comparison: Comparison, command: str) -> ComparisonView:
    n, infills = comparison.n, [one.infill for one in comparison.criteria if one.infill]
    facts = [
        f"{n} sample{'s' * (n != 1)}",
        f"{len(comparison.methods)} methods",
        f"{len(comparison.controls)} controls",
    ]
    facts.append(f"{len(comparison.criteria)} measurements")
    facts += [f"infills {', '.join(dict.fromkeys(infills))}"] * bool(infills)
    facts.append(f"{comparison.seconds:.0f} s, {_count(comparison.forwards)} forward and "
                 f"{_count(comparison.backwards)} backward passes of a sample")  # fmt: skip
    said = [disagreement_says(comparison, one) for one in disagreements(comparison)]
    lines = [line for line in recommendation(comparison).splitlines()[1:] if line not in said]
    return ComparisonView(
        title=f"{model_titles([comparison.model])[0]}: {len(comparison.methods)} methods compared",
        version=__version__,
        headline=headline(comparison),
        says=tuple(lines),
        facts="; ".join(facts),
        methods=tuple(_methods(comparison)),
        tables=tuple(_tables(comparison)),
        disagreements=tuple(
            ("fail" if one.reversed else "pass", words)
            for one, words in zip(disagreements(comparison), said, strict=True)
        ),
        left_out=tuple(left_out(comparison)),
        cards=tuple(
            method_card(one.method, name, (cost_says(one, n),))
            for one, name in zip(comparison.explained, comparison.names, strict=True)
        ),
        metric_cards=tuple(_metric_cards(comparison)),
        reproduce=reproduce_comparison(comparison, command),
    )


def _methods(comparison: Comparison) -> list[MethodRow]:
    rows = []
    for one in standings(comparison):
        explained = comparison.explained[one.row]
        passes = number((explained.forwards + explained.backwards) / comparison.n)
        why = reason(comparison, one)
        rows.append(
            MethodRow(
                comparison.names[one.row], one.light, f"{why[:1].upper()}{why[1:]}", f"{explained.seconds:.2f}", passes
            )
        )
    return rows


def _columns(comparison: Comparison) -> list[list[int]]:
    """The criteria of each metric, in their order."""
    found: dict[str, list[int]] = {}
    for column, metric in enumerate(comparison.metrics):
        found.setdefault(metric, []).append(column)
    return list(found.values())


def _tables(comparison: Comparison) -> list[MetricTable]:
    order = comparison.order
    counts = judged(comparison)
    tables = []
    for columns in _columns(comparison):
        found = [comparison.interval(row, column) for row in order for column in columns]
        ends = [x for one in found for x in (one.low, one.mean, one.high) if not math.isnan(x)]
        axis = _Axis(min(ends, default=0.0), max(ends, default=0.0), decimals(found))
        criterion = comparison.criteria[columns[0]]
        tables.append(
            MetricTable(
                comparison.metrics[columns[0]],
                criterion.family,
                "higher is better" if criterion.higher_is_better else "lower is better",
                columns[0] in counts,
                tuple(comparison.criteria[column].infill for column in columns),
                (axis.written(axis.low), axis.written(axis.high)),
                tuple(
                    ScoreRow(
                        comparison.names[row],
                        comparison.explained[row].control,
                        tuple(_score(comparison, row, column, axis) for column in columns),
                    )
                    for row in order
                ),
                _costs(comparison, columns),
            )
        )
    return tables


@dataclass(frozen=True)
class _Axis:
    """What all scores of a table are drawn along, and how many decimals they have."""

    low: float
    high: float
    decimals: int

    def place(self, value: float) -> float | None:
        """Where a value lies, from 0 to 1; None for NaN."""
        if math.isnan(value):
            return None
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def written(self, value: float) -> str:
        """The value as text."""
        return f"{value:.{self.decimals}f}".replace("-", "−")


def _score(comparison: Comparison, row: int, column: int, axis: _Axis) -> Score:
    found = comparison.interval(row, column)
    if not found.n:
        return Score("—", None, None, None, "", "no score")
    low, mean, high = map(axis.place, (found.low, found.mean, found.high))
    between = f"{axis.written(found.low)} to {axis.written(found.high)}"
    interval = "too few samples for an interval" if low is None else between
    outcome = against_controls(comparison, row, column)
    mark = "beyond" if beyond_limit(comparison, row, column) else outcome or "open"
    says = {
        "beats": "; better than every control",
        "behind": f"; worse than {', '.join(comparison.names[c] for c in ahead_of(comparison, row, column))}",
        "beyond": f"; {comparison.criteria[column].limit_says}",
    }.get(mark, "")
    return Score(axis.written(found.mean), low, mean, high, mark, f"{interval}, n = {found.n}{says}")


def _costs(comparison: Comparison, columns: Sequence[int]) -> tuple[str, ...]:
    """What each criterion has cost, over all methods."""
    found = []
    for column in columns:
        cells = [cell for (_, j), cell in comparison.cells.items() if j == column]
        asked = sum(cell.forwards + cell.backwards for cell in cells)
        infill = comparison.criteria[column].infill
        seconds = sum(cell.seconds for cell in cells)
        found.append(f"{f'{infill}: ' if infill else ''}{seconds:.1f} s, {_count(asked)} passes of a sample")
    return tuple(found)


def _metric_cards(comparison: Comparison) -> list[MethodCard]:
    cards = []
    for columns in _columns(comparison):
        criterion = comparison.criteria[columns[0]]
        made = method_card(criterion.metric, comparison.metrics[columns[0]], _costs(comparison, columns))
        infills = "; ".join(comparison.criteria[column].infill for column in columns)
        settings = tuple((key, infills if key == "infill" else value, says) for key, value, says in made.settings)
        cards.append(MethodCard(made.title, made.text, made.card, settings, made.measured))
    return cards


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")
