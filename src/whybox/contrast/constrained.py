"""The constrained optimiser: the nearest latent point at which two classes tie and no other comes near them.

    z_e = argmin ‖z − z0‖²  subject to  h = 0,  g ≤ 0  and  g + h ≤ 0

For a contrast h = s_t − s_p and g_i = s_i − s_t + ε, so that g_i + h = s_i − s_p + ε is class i's other inequality. All
samples are searched at once; each has multipliers, a penalty and an end of its own, and leaves the batch there.
"""

from typing import Any

import torch
from torch import Tensor

from whybox.attribution.masks.descent import Adam
from whybox.contrast.polish import polish
from whybox.contrast.record import Ask, Record, inequalities
from whybox.core.active import Active

# The augmented Lagrangian (Bertsekas 1982, section 4.2), for which the paper gives no numbers: steps of Adam in a
# round, the first penalty, its growth where a round has left more than ENOUGH of the violation, and its largest.
STEPS = 32
PENALTY, GROWTH, ENOUGH, LARGEST = 1.0, 4.0, 0.25, 1e4
_ADAM = Adam(rate=0.03, last=0.03, momentum=0.9, decay=0.999, epsilon=1e-8)
# A point that fulfils the constraints is settled where a round has changed its distance by less than this share.
STALLED = 1e-2


def search(
    ask: Ask,
    origin: Tensor,
    starts: Tensor,
    *,
    tolerance: float,
    rounds: int,
    waves: tuple[int, ...] = (1,),
    bar: Any = None,
) -> Record:
    """Search from the starts (n, s, d) of each sample for the point nearest its origin (n, d).

    A polish is tried from every start of the first wave; then of the next for the samples of which none has settled.
    Where none ever does, the start that came nearest to fulfilling the constraints goes on in rounds, of STEPS steps of
    Adam on the augmented Lagrangian and another polish each.

    Args:
        ask: the problem.
        origin: where the distance is measured from, double precision, on the CPU; `starts` likewise.
        starts: where the search begins; a row of the record is a sample's start.
        tolerance: the |h| that counts as zero.
        rounds: how many at most.
        waves: how many starts each wave has; none for the augmented Lagrangian alone, all rounds from the first start.
        bar: a progress bar of `rounds` steps.
    """
    n, count, size = starts.shape
    sample, number = torch.arange(n).repeat_interleave(count), torch.arange(count).repeat(n)
    record, begins = Record(ask, origin[sample], sample, tolerance), starts.reshape(-1, size)
    done = 0
    for wave in waves:
        rows = ((number >= done) & (number < done + wave) & ~record.answered()).nonzero()[:, 0]
        if len(rows):
            polish(record, rows, begins[rows])
        done += wave
    chosen = (record.nearest() & ~record.answered() if waves else number == 0).nonzero()[:, 0]
    nothing = origin.new_zeros(len(chosen))
    active = Active(
        len(chosen),
        row=chosen,
        z=begins[chosen],
        equality=nothing,
        inequality=nothing[:, None, None].expand(-1, 2, 1),  # of every g
        penalty=nothing + PENALTY,
        violation=nothing + torch.inf,
        distance=nothing + torch.inf,
    )
    for _ in range(rounds):
        if not len(active):
            break
        _round(record, active, leaves=bool(waves))
        if waves and len(active):
            active.finish(polish(record, active["row"], active["z"]))
        if bar is not None:
            bar.update(1)
    return record


def _round(record: Record, active: Active, *, leaves: bool) -> None:
    """Descend on L = ‖z − z0‖² + λ h + c h²/2 + Σ (max(0, μ + c g)² − μ²)/2c, then adapt λ, μ and c."""
    rows, z = active["row"], active["z"]
    equality, inequality, penalty = active["equality"], active["inequality"], active["penalty"]

    def pulls(values: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """λ + c h (k,) and max(0, μ + c g) (k, 2, m), which the multipliers become."""
        c = penalty[here]
        up = (inequality[here] + c[:, None, None] * inequalities(values)).clamp_min(0)
        return equality[here] + c * values[:, 0], up

    def weigh(values: Tensor, here: Tensor) -> Tensor:
        level, up = pulls(values, here)
        return torch.cat(((level + up[:, 1].sum(1))[:, None], up.sum(1)), 1)[:, None]

    state = _ADAM.start(z)
    for number in range(1, STEPS + 1):
        slopes = record.ask(rows, z, weigh)[1]
        z = z - _ADAM.step(2 * (z - record.origin[rows]) + slopes[:, 0], state, number, 0.0)
    values = record.ask(rows, z, lambda values, _: values.new_zeros((len(values), 0, values.shape[1])))[0]

    everything = torch.arange(len(rows))
    gaps = torch.maximum(inequalities(values), -inequality / penalty[:, None, None]).flatten(1).abs()
    violation = torch.cat((values[:, :1].abs(), gaps), 1).amax(1)
    active["equality"], active["inequality"] = pulls(values, everything)
    grown = torch.where(violation > ENOUGH * active["violation"], GROWTH * penalty, penalty)
    active["z"], active["penalty"], active["violation"] = z, grown.clamp_max(LARGEST), violation
    distance = (z - record.origin[rows]).norm(dim=1)
    stalled = record.fulfilled(values) & ((distance - active["distance"]).abs() <= STALLED * distance)
    active["distance"] = distance
    record.settle(rows, z, values, stalled)
    broken = ~torch.isfinite(values).all(1)
    record.diverge(rows[broken])
    active.finish(broken | (stalled & leaves))
