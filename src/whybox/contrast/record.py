"""Record: what a search has seen of each sample: the best point, how often the model was asked, and the way there."""

from collections.abc import Callable

import torch
from torch import Tensor

# What has become of a sample; `Record.status` holds places in this list.
STATUSES = (
    "solved",
    "not settled: the constraints hold, but the distance still fell when the search ended",
    "not found: no point was met that fulfils the constraints",
    "diverged: the model's scores became NaN or infinite",
)
SOLVED, NOT_SETTLED, NOT_FOUND, DIVERGED = range(len(STATUSES))

# An inequality counts as fulfilled up to this, for rounding; the margin ε of a contrast is far larger.
ROUNDING = 1e-4

Weigh = Callable[[Tensor, Tensor], Tensor]
"""From constraint values (k, 1 + m) and the places (k,) of those rows among the rows asked for, to the combinations of
constraints whose gradients are wanted (k, r, 1 + m); none where all is zero."""

Ask = Callable[[Tensor, Tensor, Weigh], tuple[Tensor, Tensor, Tensor]]
"""From points (k, d), the sample of each (k,) and `Weigh`, to the constraint values h, g_1, …, g_m (k, 1 + m), the
gradients (k, r, d), and what else is to be kept of each iteration (k, e)."""


def inequalities(values: Tensor) -> Tensor:
    """g and g + h (k, 2, m), which must not be positive."""
    h, g = values[:, :1], values[:, 1:]
    return torch.stack((g, g + h), 1)


def violation(values: Tensor) -> Tensor:
    """The largest violation of any constraint (k,)."""
    excess = inequalities(values).flatten(1).clamp_min(0)
    return torch.cat((values[:, :1].abs(), excess), 1).amax(1)


class Record:
    """All rows of a search, seen and asked through it. Everything is double precision on the CPU.

    Args:
        ask: the problem.
        origin: the points from which the distance is measured (n, d).
        sample: the sample of each row (n,), as `ask` numbers them.
        tolerance: the |h| that counts as zero.
    """

    def __init__(self, ask: Ask, origin: Tensor, sample: Tensor, tolerance: float) -> None:
        self._ask, self.origin, self.sample, self.tolerance = ask, origin, sample, tolerance
        count = len(origin)
        self.z = origin.clone()
        self.distance = torch.full((count,), torch.inf, dtype=torch.float64)
        self.violation = torch.full((count,), torch.inf, dtype=torch.float64)
        self.status = torch.full((count,), NOT_FOUND)
        self.forwards = torch.zeros(count, dtype=torch.long)
        self.backwards = torch.zeros(count, dtype=torch.long)
        self._told: list[tuple[Tensor, Tensor, Tensor]] = []

    def ask(self, rows: Tensor, z: Tensor, weigh: Weigh) -> tuple[Tensor, Tensor]:
        """Constraint values and gradients at a point of each of these rows, which is remembered if it is the best."""

        def counted(values: Tensor, places: Tensor) -> Tensor:
            weights = weigh(values, places)
            self.backwards[rows[places]] += weights.any(2).sum(1)
            return weights

        values, gradients, told = self._ask(z, self.sample[rows], counted)
        self._told.append((rows, self.forwards[rows], told))
        self.forwards[rows] += 1
        distance, missed = self._distance(rows, z), violation(values)
        ok = self.fulfilled(values)
        nearer = ok & ((self.status[rows] != NOT_SETTLED) | (distance < self.distance[rows]))
        closer = ~ok & (self.status[rows] == NOT_FOUND) & (missed < self.violation[rows])
        unsettled = self.status[rows] != SOLVED
        self._keep(rows, z, distance, missed, unsettled & nearer, NOT_SETTLED)
        self._keep(rows, z, distance, missed, unsettled & closer, NOT_FOUND)
        return values, gradients

    def settle(self, rows: Tensor, z: Tensor, values: Tensor, done: Tensor) -> None:
        """These points are the answer for the rows that are `done`."""
        self._keep(rows, z, self._distance(rows, z), violation(values), done, SOLVED)

    def diverge(self, rows: Tensor) -> None:
        """The scores of these rows are not finite; an answer found before stays."""
        self.status[rows[self.status[rows] == NOT_FOUND]] = DIVERGED

    def fulfilled(self, values: Tensor) -> Tensor:
        """Whether all constraints hold (k,)."""
        within = (inequalities(values) <= ROUNDING).flatten(1).all(1)
        return (values[:, 0].abs() <= self.tolerance) & within

    def answered(self) -> Tensor:
        """Whether this row's sample is solved, by this row or by another one (n,)."""
        return self.reached().isfinite()

    def reached(self) -> Tensor:
        """The least distance at which a row of each row's sample has settled, infinite where none has (n,)."""
        return self._least(self.distance.where(self.status == SOLVED, torch.inf))

    def nearest(self) -> Tensor:
        """Whether this row has the point that violates the constraints least, of its sample's rows (n,)."""
        row = torch.arange(len(self.sample))
        mine = self.violation == self._least(self.violation)
        own: Tensor = row == self._least(row.where(mine, len(row)))
        return own

    def told(self) -> Tensor:
        """What was told of each iteration (n, iterations, e), NaN behind a row's last."""
        length, width = int(self.forwards.max()), self._told[0][2].shape[1]
        kept = torch.full((len(self.origin), length, width), torch.nan, dtype=torch.float64)
        for rows, places, told in self._told:
            kept[rows, places] = told
        return kept

    def _least(self, values: Tensor) -> Tensor:
        """The least of the values (n,) of all rows of each row's sample."""
        least = values.new_empty(int(self.sample.max()) + 1).scatter_reduce(
            0, self.sample, values, "amin", include_self=False
        )
        return least[self.sample]

    def _distance(self, rows: Tensor, z: Tensor) -> Tensor:
        distance: Tensor = (z - self.origin[rows]).norm(dim=1)
        return distance

    def _keep(self, rows: Tensor, z: Tensor, distance: Tensor, missed: Tensor, which: Tensor, status: int) -> None:
        here = rows[which]
        self.z[here], self.distance[here], self.violation[here] = z[which], distance[which], missed[which]
        self.status[here] = status
