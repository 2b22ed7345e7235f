"""What a check finds: scores by method and column, and whether the orders that were expected came out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy
import torch
from experiments.trust.methods import CONTROLS
from torch import Tensor

from whybox.evaluation.bootstrap import Interval, intervals


@dataclass
class Outcome:
    """The scores of one check, per sample, and what was expected of them.

    Attributes:
        scores: by row (method) and column (what is measured) one score a sample (n,); NaN where there is none.
        orders: what was expected, in words, whether it came out, and the differences that decide it.
        facts: other figures, in words.
    """

    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    orders: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)

    def add(self, row: str, column: str, values: Tensor) -> None:
        """Take down the scores of a row."""
        self.scores.setdefault(row, {})[column] = values.double()

    def falls(self, column: str, *rows: str) -> None:
        """Expect each row to score higher than the next."""
        self.expect(f"{column}: {' > '.join(rows)}", self._pairs(column, pairwise(rows)))

    def beat_the_controls(self, column: str, *rows: str) -> None:
        """Expect each of the rows to score higher than each of the controls."""
        pairs = ((row, control) for row in rows for control in CONTROLS)
        self.expect(f"{column}: {', '.join(rows)} > every control", self._pairs(column, pairs))

    def above(self, column: str, least: float, *rows: str) -> None:
        """Expect each of the rows to score higher than this."""
        values = {f"{row} − {least:g}": self.scores[row][column] - least for row in rows}
        self.expect(f"{column}: {', '.join(rows)} > {least:g}", values)

    def within(self, column: str, most: float, *rows: str) -> None:
        """Expect no score of these rows to be larger than this in magnitude."""
        largest = max(float(self.scores[row][column].abs().max()) for row in rows)
        says = f"|{column}| of every sample: {', '.join(rows)} ≤ {most:g}"
        self.orders.append({"says": says, "holds": largest <= most, "largest": largest})

    def expect(self, says: str, differences: dict[str, Tensor]) -> None:
        """Expect the mean of each of these differences, sample by sample, to be above zero by its whole interval."""
        found = {name: summary(values) for name, values in differences.items()}
        closest = min(found, key=lambda name: found[name].low if found[name].low == found[name].low else -torch.inf)
        holds = all(difference.sign > 0 for difference in found.values())
        self.orders.append({"says": says, "holds": holds, "closest": closest, **vars(found[closest])})

    def knows(self, says: str, share: float, least: float) -> None:
        """A net that has not learned what it was taught has no known answer: at least this share must be so."""
        self.facts[says] = share
        self.orders.append({"says": f"{says}: at least {least:g}", "holds": share >= least, "found": share})

    def record(self) -> dict[str, Any]:
        """As plain values: of each score its mean, the interval, the samples that have one, and how many there are."""
        table = {
            row: {column: vars(summary(values)) | {"of": len(values)} for column, values in columns.items()}
            for row, columns in self.scores.items()
        }
        return {"scores": table, "orders": self.orders, "facts": self.facts}

    def _pairs(self, column: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
        return {f"{a} − {b}": self.scores[a][column] - self.scores[b][column] for a, b in pairs}


def summary(values: Tensor) -> Interval:
    """The mean over the samples that have a value, with its bootstrap interval."""
    return intervals(numpy.asarray(values.double())[None])[0]
