"""The widest box in which linear bounds hold: the linear program of InvariantPerturbation for one sample."""

from dataclasses import dataclass
from typing import Any

import numpy
import scipy.optimize
import scipy.sparse

from whybox.core.errors import ModelError

# So many of the most violated constraints are added at a time; the others are mostly implied by them.
AT_ONCE = 200
# What counts as violated, as a share of a constraint's largest possible value; above the solver's own tolerance.
TOLERANCE = 1e-6

Array = numpy.ndarray[Any, numpy.dtype[numpy.float64]]


@dataclass(frozen=True, eq=False)
class Box:
    """What was found: how far each value may fall and rise (d,), and the slack."""

    fall: Array
    rise: Array
    slack: float


def widest_box(falling: Array, rising: Array, room: Array, limit: float, penalty: float) -> Box:
    """Maximise Σ(u + v) − 2dλr subject to `falling`·u + `rising`·v ≤ `room` + r and 0 ≤ u, v ≤ δ, r ≥ 0.

    Neither infeasible nor unbounded: u = v = 0 with r = max(0, −min room) is always a solution. Constraints are
    generated: the program is solved with the most violated ones, again and again, until none is violated, which is
    exact and much faster than to solve it with all.

    Args:
        falling: what a unit of u takes of each constraint's room (m, d), not negative.
        rising: the same of v.
        room: the right-hand sides (m,).
        limit: δ.
        penalty: λ; infinite for the least r that any box needs.

    Raises:
        ModelError: the solver gave up.
    """
    count = falling.shape[1]
    taken = numpy.hstack((falling, rising))
    least = max(0.0, -float(room.min(initial=0.0)))
    hard = numpy.isinf(penalty)
    gain = numpy.append(numpy.ones(2 * count), 0.0 if hard else -2 * count * penalty)
    bounds = numpy.array([(0.0, limit)] * (2 * count) + [(least, least if hard else numpy.inf)])
    best = numpy.append(numpy.full(2 * count, limit), least)
    scale = TOLERANCE * (1.0 + numpy.abs(room) + limit * taken.sum(1))
    chosen = numpy.zeros(len(room), dtype=bool)
    while True:
        excess = numpy.where(chosen, -numpy.inf, (taken @ best[:-1] - room - best[-1]) / scale)
        worst = numpy.argsort(-excess, kind="stable")[:AT_ONCE]
        violated = worst[excess[worst] > 1.0]
        if not len(violated):
            return Box(best[:count], best[count:-1], float(best[-1]))
        chosen[violated] = True
        rows = scipy.sparse.csr_array(numpy.hstack((taken[chosen], numpy.full((int(chosen.sum()), 1), -1.0))))
        solved = scipy.optimize.linprog(-gain, A_ub=rows, b_ub=room[chosen], bounds=bounds, method="highs")
        if solved.x is None:
            raise ModelError(f"the linear program of the box was not solved: {solved.message}")
        best = solved.x
