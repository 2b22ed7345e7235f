"""Polish: sequential quadratic programming, which needs few steps where it begins near enough.

Each step goes to the optimum of the linearised constraints (of h, and of the few inequalities that are nearest to
being violated) in the metric B of the Lagrangian's curvature, which damped BFGS learns on the way; at first it is that
of the distance, I. A step is halved where it does not lessen the merit ½‖z − z0‖² + ρ (|h| + Σ max(0, g + h/2)).
On h = 0 both inequalities of a class, g and g + h, are g + h/2.
Source: Nocedal & Wright 2006, chapter 18.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from whybox.contrast.projection import miss, shortest
from whybox.contrast.record import Record
from whybox.core.active import Active

# So many inequalities are linearised.
RIVALS = 4
TRIALS = 50
# Where the constraints hold, a step shorter than this share of the way so far is not taken; one shorter than this
# multiple of √dimension, the size of a z ~ N(0, I), never is.
SETTLED, NOTHING = 1e-3, 1e-7
# A step is halved until less than this share of it is left; the longest is this multiple of √dimension.
_SHORTER, _SHORTEST, _LONGEST = 0.5, 1e-3, 0.5
# The share of the promised descent that must come true, and what rounding may hide.
_ARMIJO, _NOISE = 1e-4, 1e-7
# ρ is this multiple of the largest multiplier, and at most so large.
_STIFFNESS, _STIFFEST = 2.0, 1e8
# Powell's damping: sᵀy is at least this share of sᵀBs.
_DAMPING = 0.2


@dataclass(frozen=True)
class _Step:
    """From each row's point to the optimum of its linearised problem.

    Attributes:
        step: (k, d).
        pull: ∇L = z − z0 + Aᵀν at the point (k, d).
        multipliers: ν of every constraint (k, 1 + m); zero for those not linearised.
        promised: by how much the merit falls on it at first (k,).
        stiffness: ρ (k,).
    """

    step: Tensor
    pull: Tensor
    multipliers: Tensor
    promised: Tensor
    stiffness: Tensor


def polish(record: Record, rows: Tensor, z: Tensor) -> Tensor:
    """Search from a point of each of these rows (k, d); say which are settled (k,). The record keeps what was found."""
    settled = torch.zeros(len(rows), dtype=torch.bool)
    values, slopes = record.ask(rows, z, _weigh)
    one = z.new_ones(len(rows))
    inverse = torch.eye(z.shape[1]).to(z).repeat(len(rows), 1, 1)
    state = Active(len(rows), z=z, values=values, slopes=slopes, share=one, stiffness=one, inverse=inverse)
    for trial in range(TRIALS + 1):
        here, z, values = rows[state.sample], state["z"], state["values"]
        way = z - record.origin[here]
        found = _step(way, state)
        length = found.step.norm(dim=1)
        held = record.fulfilled(values)
        last = (length <= NOTHING * z.shape[1] ** 0.5) | (held & (length <= SETTLED * way.norm(dim=1)))
        last |= (state["share"] < _SHORTEST) | ~torch.isfinite(length)
        done = last & held
        record.settle(here, z, values, done)
        settled[state.sample[done]] = True
        if trial == TRIALS or bool(last.all()):
            break
        share = state["share"] * (_LONGEST * z.shape[1] ** 0.5 / length.clamp_min(1e-300)).clamp_max(1)
        found = _Step(*(getattr(found, name)[~last] for name in _Step.__dataclass_fields__))
        state.finish(last)
        state["stiffness"] = found.stiffness
        _try(record, rows[state.sample], state, found, share[~last])
    return settled


def _try(record: Record, rows: Tensor, state: Active, found: _Step, share: Tensor) -> None:
    """Go this share of the step where that is as good as promised; else half as far is to be tried next."""

    def merit(z: Tensor, values: Tensor) -> Tensor:
        return (z - record.origin[rows]).square().sum(1) / 2 + found.stiffness * miss(_centred(values))

    goal = state["z"] + share[:, None] * found.step
    values, slopes = record.ask(rows, goal, _weigh)
    before = merit(state["z"], state["values"])
    noise = _NOISE * (1 + before + found.stiffness)
    better = merit(goal, values) <= before + _ARMIJO * share * found.promised + noise
    moved = share[:, None] * found.step
    known, pull = _pull(goal - record.origin[rows], values, slopes, found.multipliers)
    state["inverse"] = torch.where(
        (better & known)[:, None, None],
        _learnt(state["inverse"], moved, pull - found.pull, -share[:, None] * found.pull),
        state["inverse"],
    )
    state["z"] = torch.where(better[:, None], goal, state["z"])
    state["values"] = torch.where(better[:, None], values, state["values"])
    state["slopes"] = torch.where(better[:, None, None], slopes, state["slopes"])
    state["share"] = torch.where(better, (state["share"] / _SHORTER).clamp_max(1), state["share"] * _SHORTER)


def _step(way: Tensor, state: Active) -> _Step:
    """The step to the linearised optimum. ρ is larger than all multipliers: the merit's minimum is where they hold."""
    values, slopes, inverse = state["values"], state["slopes"].nan_to_num(0.0, 0.0, 0.0), state["inverse"]
    rivals = _rivals(values)
    centred = _centred(values).nan_to_num(0.0, 0.0, 0.0)
    near = torch.cat((centred[:, :1], centred[:, 1:].gather(1, rivals)), 1)
    back = (inverse @ way[:, :, None])[:, :, 0]
    goal, multipliers = shortest(slopes, (slopes @ back[:, :, None])[:, :, 0] - near, inverse)
    step = goal - back
    along = (way * step).sum(1)
    gained = miss(near) - miss(near + (slopes @ step[:, :, None])[:, :, 0])
    needed = torch.where(gained > 0, 2 * along / gained, 0.0)
    wanted = torch.maximum(needed, _STIFFNESS * multipliers.abs().amax(1)).clamp_max(_STIFFEST)
    stiffness = torch.maximum(state["stiffness"], wanted)
    every = torch.zeros_like(values)
    every[:, 0] = multipliers[:, 0]
    every[:, 1:].scatter_(1, rivals, multipliers[:, 1:])
    pull = way + (multipliers[:, :, None] * slopes).sum(1)
    return _Step(step, pull, every, along - stiffness * gained, stiffness)


def _pull(way: Tensor, values: Tensor, slopes: Tensor, multipliers: Tensor) -> tuple[Tensor, Tensor]:
    """∇L with these multipliers at another point, and whether all slopes that it needs are known there."""
    here = torch.cat((multipliers[:, :1], multipliers[:, 1:].gather(1, _rivals(values))), 1)
    known = torch.isfinite(slopes).flatten(1).all(1) & ((here != 0).sum(1) == (multipliers != 0).sum(1))
    return known, way + (here[:, :, None] * slopes).sum(1)


def _learnt(inverse: Tensor, s: Tensor, y: Tensor, bs: Tensor) -> Tensor:
    """B⁻¹ after the damped BFGS update of B by y = change of ∇L over the step s; `bs` is B s."""
    curvature = (s * bs).sum(1).clamp_min(1e-300)
    seen = (s * y).sum(1)
    damped = seen < _DAMPING * curvature
    kept = torch.where(damped, (1 - _DAMPING) * curvature / (curvature - seen).clamp_min(1e-300), 1.0)[:, None]
    y = kept * y + (1 - kept) * bs
    rho = 1 / (s * y).sum(1).clamp_min(1e-300)
    image = (inverse @ y[:, :, None])[:, :, 0]
    cross = rho[:, None, None] * (s[:, :, None] * image[:, None, :])
    square = rho * (1 + rho * (y * image).sum(1))
    return inverse - cross - cross.mT + square[:, None, None] * (s[:, :, None] * s[:, None, :])


def _centred(values: Tensor) -> Tensor:
    """h and g + h/2 (k, 1 + m)."""
    return torch.cat((values[:, :1], values[:, 1:] + values[:, :1] / 2), 1)


def _rivals(values: Tensor) -> Tensor:
    """The inequalities that are nearest to being violated (k, RIVALS), or all."""
    return values[:, 1:].argsort(dim=1, descending=True, stable=True)[:, :RIVALS]


def _weigh(values: Tensor, _rows: Tensor) -> Tensor:
    """Of h, and of g + h/2 of the rivals, the gradients are wanted."""
    rivals = _rivals(values)
    weights = values.new_zeros((len(values), 1 + rivals.shape[1], values.shape[1]))
    weights[:, 0, 0] = 1
    weights[:, 1:, 0] = 0.5
    weights[:, 1:].scatter_(2, 1 + rivals[:, :, None], 1.0)
    return weights
