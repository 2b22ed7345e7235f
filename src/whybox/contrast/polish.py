"""Polish: sequential quadratic programming, which needs few steps where the constraints are nearly linear.

The merit of a point is ½‖z − z0‖² + ρ (|h| + Σ max(0, g + h/2)): exact, that is least where the constraints hold, once
ρ exceeds all multipliers. Each step d minimises it with the constraints linearised (h, and the few inequalities that
are nearest to being violated) and σ/2 ‖d‖² added; σ grows where the merit falls by less than was promised, which at the
kinks of a ReLU net is often so, and ρ where it leaves too much of the violation. On h = 0 both inequalities of a class,
g and g + h, are g + h/2.
Source: Fletcher 1987, Practical Methods of Optimization, section 14.4.
"""

import torch
from torch import Tensor

from whybox.contrast.pulls import pulls
from whybox.contrast.record import Record
from whybox.core.active import Active

# So many inequalities are linearised: where more hold with equality at the answer, it is not quite the nearest.
RIVALS = 3
TRIALS = 40
# Where the constraints hold, a step shorter than this share of the way so far is not taken: of the distance it would
# save about half the share's square. One shorter than this multiple of √dimension, the size of a z ~ N(0, I), never is.
SETTLED, NOTHING = 1e-2, 1e-6
# σ: the first, the least but 0, and by which it changes where the merit falls by less or more than these shares of what
# was promised; a step is taken where it falls by the last of them.
_DAMPING, _LEAST, _CHANGE = 0.0, 0.1, 4.0
_POOR, _GOOD, _TAKEN = 0.2, 0.6, 1e-2
# ρ: the first and the largest; it doubles where a step that it bounds would leave this share of the violation.
_STIFFNESS, _STIFFEST, _LEFT = 1.0, 1e3, 0.5
# What rounding may hide of the merit.
_NOISE = 1e-7


def polish(record: Record, rows: Tensor, z: Tensor) -> Tensor:
    """Search from a point of each of these rows (k, d); say which are settled (k,). The record keeps what was found."""
    settled = torch.zeros(len(rows), dtype=torch.bool)
    values, slopes = record.ask(rows, z, lambda values, _: _weigh(values, values[:, 0].abs()))
    one = z.new_ones(len(rows))
    state = Active(
        len(rows), z=z, values=values, slopes=slopes, damping=_DAMPING * one, stiffness=_STIFFNESS * one
    )  # fmt: skip
    for trial in range(TRIALS + 1):
        here, z, values = rows[state.sample], state["z"], state["values"]
        way = z - record.origin[here]
        state["step"], state["promised"], wanted = _step(way, state)
        length, held = state["step"].norm(dim=1), record.fulfilled(values)
        # Damping shortens a step, so that it is judged as if there were little of it.
        undamped = length * (1 + state["damping"]).clamp_max(_CHANGE)
        still = (length <= NOTHING * z.shape[1] ** 0.5) & (wanted == state["stiffness"])
        last = (held & (undamped <= SETTLED * way.norm(dim=1))) | still
        last |= ~torch.isfinite(length)
        # Nor is it gone on where another start of the sample has settled nearer than this one is and goes.
        reached = record.reached()[here]
        last |= (way.norm(dim=1) > reached) & ((way + state["step"]).norm(dim=1) > reached)
        record.settle(here, z, values, last & held)
        settled[state.sample[last & held]] = True
        if trial == TRIALS or bool(last.all()):
            break
        state["wanted"] = wanted
        state.finish(last)
        _try(record, rows[state.sample], state)
    return settled


def _step(way: Tensor, state: Active) -> tuple[Tensor, Tensor, Tensor]:
    """The step (k, d), by how much the merit should fall on it (k,), and the ρ to go on with (k,)."""
    values, slopes, most = state["values"], state["slopes"].nan_to_num(0.0, 0.0, 0.0), state["stiffness"]
    centred = _centred(values)
    near = torch.cat((centred[:, :1], centred[:, 1:].gather(1, _rivals(values))), 1)
    curvature = 1 + state["damping"][:, None]
    levels = curvature * near - (slopes @ way[:, :, None])[:, :, 0]
    found = pulls(slopes @ slopes.mT, levels.nan_to_num(0.0, 0.0, 0.0), most)
    step = -(way + (found[:, :, None] * slopes).sum(1)) / curvature
    gained = miss(near) - miss(near + (slopes @ step[:, :, None])[:, :, 0])
    promised = (way.square().sum(1) - (way + step).square().sum(1)) / 2 + most * gained
    short = (found.abs().amax(1) >= most * (1 - 1e-9)) & (gained < (1 - _LEFT) * miss(near))
    return step, promised, torch.where(short, 2 * most, most).clamp_max(_STIFFEST)


def _try(record: Record, rows: Tensor, state: Active) -> None:
    """Take the steps on which the merit falls, and adapt σ to how well it was foretold."""
    origin, stiffness = record.origin[rows], state["stiffness"]

    def fallen(values: Tensor, here: Tensor) -> Tensor:
        """By how much the merit has fallen on the step, as a share of what was promised."""
        before, most = state["values"][here], stiffness[here]
        gained = farther[here] + most * (miss(_centred(before)) - miss(_centred(values))) + _NOISE * (1 + most)
        return gained / state["promised"][here].clamp_min(1e-300)

    def weigh(values: Tensor, here: Tensor) -> Tensor:
        """No gradient where the step is not taken, nor of a rival farther off than the last step moved any."""
        moved = (_centred(values) - _centred(state["values"][here])).abs().amax(1)
        taken = fallen(values, here) > _TAKEN
        return _weigh(values, moved) * taken[:, None, None]

    goal = state["z"] + state["step"]
    farther = ((state["z"] - origin).square().sum(1) - (goal - origin).square().sum(1)) / 2
    values, slopes = record.ask(rows, goal, weigh)
    share = fallen(values, torch.arange(len(rows)))
    taken = share > _TAKEN
    state["z"] = torch.where(taken[:, None], goal, state["z"])
    state["values"] = torch.where(taken[:, None], values, state["values"])
    state["slopes"] = torch.where(taken[:, None, None], slopes, state["slopes"])
    damping = state["damping"]
    more, less = (damping * _CHANGE).clamp_min(_LEAST), torch.where(damping > _LEAST, damping / _CHANGE, 0.0)
    state["damping"] = torch.where(share > _GOOD, less, torch.where(share > _POOR, damping, more))
    state["stiffness"] = state["wanted"]


def miss(gaps: Tensor) -> Tensor:
    """By how much an equation and inequalities (…, k) are missed in total: |gap₀| + Σ max(0, gap_i)."""
    return gaps[..., 0].abs() + gaps[..., 1:].clamp_min(0).sum(-1)


def _centred(values: Tensor) -> Tensor:
    """h and g + h/2 (k, 1 + m)."""
    return torch.cat((values[:, :1], values[:, 1:] + values[:, :1] / 2), 1)


def _rivals(values: Tensor) -> Tensor:
    """The inequalities that are nearest to being violated (k, RIVALS), or all."""
    return values[:, 1:].argsort(dim=1, descending=True, stable=True)[:, :RIVALS]


def _weigh(values: Tensor, moved: Tensor) -> Tensor:
    """Of h, and of g + h/2 of the rivals within |h| + `moved` (k,), the gradients are wanted."""
    rivals = _rivals(values)
    near = _centred(values)[:, 1:].gather(1, rivals) >= -(values[:, 0].abs() + moved)[:, None]
    weights = values.new_zeros((len(values), 1 + rivals.shape[1], values.shape[1]))
    weights[:, 0, 0] = 1
    weights[:, 1:, 0] = 0.5
    weights[:, 1:].scatter_(2, 1 + rivals[:, :, None], 1.0)
    weights[:, 1:] *= near[:, :, None]
    return weights
