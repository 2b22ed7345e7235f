"""Polish: sequential quadratic programming, which needs few steps where the constraints are nearly linear.

Each step goes to the point nearest z0 on the linearised constraints: of h, and of the few inequalities that are
nearest to being violated. It is halved where it does not lessen the merit ½‖z − z0‖² + ρ (|h| + Σ max(0, g + h/2)).
On h = 0 both inequalities of a class, g and g + h, are g + h/2.
"""

import torch
from torch import Tensor

from whybox.contrast.projection import miss, shortest
from whybox.contrast.record import Record
from whybox.core.active import Active

# So many inequalities are linearised.
RIVALS = 4
TRIALS = 30
# A step is the last where it is shorter than this share of the way so far.
SETTLED = 1e-3
# A step is tried by this share until it goes at least so far; the longest is this multiple of √dimension.
_SHORTER, _SHORTEST, _LONGEST = 0.5, 1e-3, 0.5
# The share of the promised descent that must come true, and what rounding may hide.
_ARMIJO, _NOISE = 1e-4, 1e-7
_STIFFNESS, _STIFFEST = 2.0, 1e8


def polish(record: Record, rows: Tensor, z: Tensor) -> Tensor:
    """Search from a point of each of these rows (k, d); say which are settled (k,). The record keeps what was found."""
    settled = torch.zeros(len(rows), dtype=torch.bool)
    values, slopes = record.ask(rows, z, _weigh)
    state = Active(
        len(rows),
        z=z,
        values=values,
        slopes=slopes,
        share=torch.ones(len(rows), dtype=torch.float64),
        stiffness=torch.ones(len(rows), dtype=torch.float64),
    )
    for trial in range(TRIALS + 1):
        here, z, values = rows[state.sample], state["z"], state["values"]
        way = z - record.origin[here]
        step, promised, state["stiffness"] = _step(way, values, state["slopes"], state["stiffness"])
        length = step.norm(dim=1)
        last = (length <= SETTLED * way.norm(dim=1)) | (state["share"] < _SHORTEST)
        last |= ~torch.isfinite(values).all(1)
        done = last & record.fulfilled(values)
        record.settle(here, z, values, done)
        settled[state.sample[done]] = True
        if trial == TRIALS or bool(last.all()):
            break
        share = state["share"] * (_LONGEST * z.shape[1] ** 0.5 / length.clamp_min(1e-300)).clamp_max(1)
        there = z + share[:, None] * step
        going = ~last
        state["goal"], state["length"], state["promised"] = there, share, promised
        state.finish(~going)
        here = rows[state.sample]
        values, slopes = record.ask(here, state["goal"], _weigh)
        _choose(record, state, here, values, slopes)
    return settled


def _choose(record: Record, state: Active, rows: Tensor, values: Tensor, slopes: Tensor) -> None:
    """Go to the trial points where they are as good as promised, else try a shorter step."""

    def merit(z: Tensor, values: Tensor) -> Tensor:
        return (z - record.origin[rows]).square().sum(1) / 2 + state["stiffness"] * miss(_centred(values))

    before = merit(state["z"], state["values"])
    noise = _NOISE * (1 + before.abs() + state["stiffness"])
    better = merit(state["goal"], values) <= before + _ARMIJO * state["length"] * state["promised"] + noise
    state["z"] = torch.where(better[:, None], state["goal"], state["z"])
    state["values"] = torch.where(better[:, None], values, state["values"])
    state["slopes"] = torch.where(better[:, None, None], slopes, state["slopes"])
    state["share"] = torch.where(better, (state["share"] / _SHORTER).clamp_max(1), state["share"] * _SHORTER)


def _step(way: Tensor, values: Tensor, slopes: Tensor, stiffness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The step to the linearised optimum (k, d), by how much the merit falls on it at first (k,), and its ρ (k,).

    ρ is larger than all multipliers, so that the merit has its minimum where the constraints hold.
    """
    centred = _centred(values)
    near = torch.cat((centred[:, :1], centred[:, 1:].gather(1, _rivals(values))), 1)
    slopes = slopes.nan_to_num(0.0, 0.0, 0.0)
    goal, multipliers = shortest(slopes, (slopes @ way[:, :, None])[:, :, 0] - near.nan_to_num(0.0, 0.0, 0.0))
    step = goal - way
    along = (way * step).sum(1)
    gained = miss(near) - miss(near + (slopes @ step[:, :, None])[:, :, 0])
    needed = torch.where(gained > 0, 2 * along / gained, 0.0)
    wanted = torch.maximum(needed, _STIFFNESS * multipliers.abs().amax(1)).clamp_max(_STIFFEST)
    stiffness = torch.maximum(stiffness, wanted)
    return step, along - stiffness * gained, stiffness


def _centred(values: Tensor) -> Tensor:
    """h and g + h/2 (k, 1 + m)."""
    return torch.cat((values[:, :1], values[:, 1:] + values[:, :1] / 2), 1)


def _rivals(values: Tensor) -> Tensor:
    """The inequalities that are nearest to being violated (k, RIVALS), or all."""
    return values[:, 1:].argsort(1, descending=True, stable=True)[:, :RIVALS]


def _weigh(values: Tensor, _rows: Tensor) -> Tensor:
    """Of h, and of g + h/2 of the rivals, the gradients are wanted."""
    rivals = _rivals(values)
    weights = values.new_zeros((len(values), 1 + rivals.shape[1], values.shape[1]))
    weights[:, 0, 0] = 1
    weights[:, 1:, 0] = 0.5
    weights[:, 1:].scatter_(2, 1 + rivals[:, :, None], 1.0)
    return weights
