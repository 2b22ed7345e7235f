"""Comparison: the record of how several methods score by several metrics, with all that was left out."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from whybox.core.configs import config_titles
from whybox.core.errors import CheckpointError, InputError
from whybox.evaluation.bootstrap import Interval, intervals
from whybox.evaluation.parts import Cell, Criterion, Explained, Failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1


@dataclass(frozen=True)
class Comparison:
    """What `whybox.compare` has found. Plain values, from which intervals and differences follow at any time.

    Attributes:
        model: its name.
        samples: which rows of the data were compared.
        wrong: the rows for which the model predicts another class than the one explained.
        explained: the methods, then the controls.
        criteria: the metrics, each with its infill.
        cells: by place of the method and of the criterion.
        failures: what could not be had.
        seed: as it was given; also that of the bootstrap.
        complete: whether everything was measured, or it was interrupted.
        seconds, forwards, backwards: of the whole.
        versions: of what it was measured with.
    """

    model: str
    samples: tuple[int, ...]
    wrong: tuple[int, ...]
    explained: tuple[Explained, ...]
    criteria: tuple[Criterion, ...]
    cells: dict[tuple[int, int], Cell]
    failures: tuple[Failure, ...]
    seed: int
    complete: bool
    seconds: float
    forwards: int
    backwards: int
    versions: dict[str, str]

    @property
    def n(self) -> int:
        """How many samples were compared."""
        return len(self.samples)

    @cached_property
    def names(self) -> list[str]:
        """What to call the methods, in the order of `explained`."""
        return config_titles([one.method for one in self.explained])

    @cached_property
    def metrics(self) -> list[str]:
        """What to call the metrics, in the order of `criteria`; the same name whatever the infill."""
        bases = [criterion.apart_from_infill for criterion in self.criteria]
        distinct = [base for place, base in enumerate(bases) if base not in bases[:place]]
        titles = config_titles(distinct)
        return [titles[distinct.index(base)] for base in bases]

    def criterion_name(self, column: int) -> str:
        """The metric, with its infill."""
        infill = self.criteria[column].infill
        return f"{self.metrics[column]} with {infill}" if infill else self.metrics[column]

    @property
    def methods(self) -> list[int]:
        """The places of the methods that are no controls."""
        return [place for place, one in enumerate(self.explained) if not one.control]

    @property
    def controls(self) -> list[int]:
        """The places of the controls."""
        return [place for place, one in enumerate(self.explained) if one.control]

    @cached_property
    def order(self) -> list[int]:
        """The places of the methods, the best first, and then of the controls."""
        from whybox.evaluation.standing import standings

        return [one.row for one in standings(self)] + self.controls

    def interval(self, row: int, column: int) -> Interval:
        """The mean score of a method and its 95 % bootstrap interval over the samples."""
        return self._intervals[column][row]

    def difference(self, row: int, other: int, column: int) -> Interval:
        """By how much a method is better than another, sample by sample: above zero where it is better."""
        return self._differences[column][row * len(self.explained) + other]

    @cached_property
    def _values(self) -> list[numpy.ndarray]:
        """For each criterion the scores (methods, n)."""
        missing = (math.nan,) * self.n
        rows, columns = range(len(self.explained)), range(len(self.criteria))
        found = [[self.cells[i, j].values if (i, j) in self.cells else missing for i in rows] for j in columns]
        return [numpy.array(column, dtype=float).reshape(len(rows), self.n) for column in found]

    @cached_property
    def _intervals(self) -> list[list[Interval]]:
        return [intervals(values, self.seed) for values in self._values]

    @cached_property
    def _differences(self) -> list[list[Interval]]:
        found = []
        for values, criterion in zip(self._values, self.criteria, strict=True):
            better = values if criterion.higher_is_better else -values
            found.append(intervals((better[:, None] - better[None]).reshape(-1, self.n), self.seed))
        return found

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row for each method and criterion, as plain values: what `pandas.DataFrame` takes."""
        from whybox.evaluation.standing import against_controls

        rows = []
        for (i, j), cell in sorted(self.cells.items()):
            found, one, criterion = self.interval(i, j), self.explained[i], self.criteria[j]
            rows.append(
                {
                    "row": i,
                    "column": j,
                    "method": self.names[i],
                    "control": one.control,
                    "metric": self.metrics[j],
                    "infill": criterion.infill,
                    "family": criterion.family,
                    "higher_is_better": criterion.higher_is_better,
                    "mean": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "n": found.n,
                    "against_controls": against_controls(self, i, j),
                    "seconds": cell.seconds,
                    "forwards": cell.forwards,
                    "backwards": cell.backwards,
                }
            )
        return rows

    @cached_property
    def recommendation(self) -> str:
        """In words: which method to use for this model, how it stands against the controls, which not to rely on."""
        from whybox.evaluation.recommending import recommendation

        return recommendation(self)

    def __str__(self) -> str:
        from whybox.evaluation.tabulating import tabulated

        return tabulated(self)

    def __repr__(self) -> str:
        return f"Comparison({self.model}, {len(self.explained)} methods, {len(self.criteria)} criteria, n={self.n})"

    def plot(self) -> "Figure":
        """Draw every criterion: `whybox.plot.comparison(self)`."""
        from whybox.plot import comparison

        figure: Figure = comparison(self)
        return figure

    def save(self, path: str | Path, command: str = "") -> None:
        """Write everything as JSON (.json), which `load` reads again, or as a page to be read (.html).

        Args:
            path: where to; its ending decides.
            command: the command that led here, to be shown in the page.
        """
        from whybox.report import comparison_page, write_page

        kind = Path(path).suffix.lower()
        if kind not in (".json", ".html", ".htm"):
            raise InputError(f"a comparison is written as .json or .html, not as {str(path)!r}")
        text = (
            json.dumps(self.as_json(), indent=1, allow_nan=False) if kind == ".json" else comparison_page(self, command)
        )
        write_page(path, text)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; None for what is not finite. `results` repeats the table for other programs."""
        record = {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}
        record["explained"] = [asdict(one) for one in self.explained]
        record["criteria"] = [asdict(one) for one in self.criteria]
        record["failures"] = [asdict(one) for one in self.failures]
        record["cells"] = [{"method": i, "criterion": j, **asdict(cell)} for (i, j), cell in self.cells.items()]
        plain: dict[str, Any] = _finite(
            {"format": FORMAT, "recommendation": self.recommendation, "results": self.table, **record}
        )
        return plain

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Read what `save` has written as JSON.

        Raises:
            CheckpointError: the file is damaged, or not one of these.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise CheckpointError(f"{path} was written by another version of whybox; compare again")
            cells = {(one.pop("method"), one.pop("criterion")): _cell(one) for one in record["cells"]}
            fields = {name: record[name] for name in cls.__dataclass_fields__}
            made = {
                "samples": tuple(record["samples"]),
                "wrong": tuple(record["wrong"]),
                "explained": tuple(Explained(**one) for one in record["explained"]),
                "criteria": tuple(Criterion(**one) for one in record["criteria"]),
                "failures": tuple(Failure(**one) for one in record["failures"]),
            }
            return cls(**{**fields, **made, "cells": cells})
        except (OSError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a comparison that whybox has saved: {error}") from error


def _cell(record: dict[str, Any]) -> Cell:
    values = tuple(math.nan if value is None else value for value in record.pop("values"))
    return Cell(values, {reason: tuple(places) for reason, places in record.pop("skipped").items()}, **record)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
