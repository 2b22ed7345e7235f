"""What a check finds: scores by method and column, and the orders that were expected of them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

RESAMPLED = 1000


@dataclass
class Findings:
    """The scores of one check, per sample, and what was expected.

    Attributes:
        scores: by row (method) and column (what is measured) one score a sample (n,); NaN where there is none.
        orders: what was expected, in words, and what was found.
        facts: other figures, in words.
    """

    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    orders: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)

    def add(self, row: str, column: str, values: Tensor) -> None:
        """Take down the scores of a row."""
        self.scores.setdefault(row, {})[column] = values.double()

    def falls(self, column: str, *rows: str) -> None:
        """Expect each row to score higher than the next, in pairs of the same samples."""
        for first, second in zip(rows, rows[1:], strict=False):
            self.higher(f"{column}: {first} > {second}", self.scores[first][column], self.scores[second][column])

    def higher(self, says: str, first: Tensor, second: Tensor | float) -> None:
        """Expect the first to be higher: the interval of the mean difference lies above zero."""
        mean, low, high, n, _ = summary(first - second)
        self.orders.append(
            {"says": says, "difference": mean, "low": low, "high": high, "n": n, "holds": n > 0 and low > 0}
        )

    def within(self, says: str, values: Tensor, most: float) -> None:
        """Expect no value to be larger than this in magnitude."""
        largest = float(values.abs().max())
        self.orders.append({"says": says, "largest": largest, "n": len(values), "holds": largest <= most})

    def record(self) -> dict[str, Any]:
        """As plain values: of each score its mean, the interval, the samples that have one, and all samples."""
        table = {row: {column: summary(v) for column, v in columns.items()} for row, columns in self.scores.items()}
        return {"scores": table, "orders": self.orders, "facts": self.facts}


def summary(values: Tensor) -> tuple[float, float, float, int, int]:
    """Mean, its 95 % bootstrap interval, the number of samples that have a value, and that of all samples."""
    finite = values[torch.isfinite(values)].double()
    if not len(finite):
        return float("nan"), float("nan"), float("nan"), 0, len(values)
    drawn = torch.randint(len(finite), (RESAMPLED, len(finite)), generator=torch.Generator().manual_seed(0))
    means = finite[drawn].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(finite.mean()), low, high, len(finite), len(values)
