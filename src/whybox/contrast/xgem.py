"""XGEM: exemplars of another class in a latent space, with nothing said of the classes beside the two."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from whybox.attribution.masks.descent import Adam
from whybox.contrast.answer import answer
from whybox.contrast.cdeepex import check_latent, check_search, contrasted, opened
from whybox.contrast.latent import Latent
from whybox.contrast.problem import Problem
from whybox.contrast.record import DIVERGED, NOT_FOUND, SOLVED
from whybox.core.active import Active
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple

# A sample is finished where its loss has changed by less than this share over so many steps.
STALLED, OVER = 1e-3, 20
_ADAM = Adam(rate=0.03, last=0.03, momentum=0.9, decay=0.999, epsilon=1e-8)


@dataclass(frozen=True)
class XGEM(Method):
    """Relevance R = G(z0) − G(z_e): what has to change for the probe class, whatever becomes of the others.

    z0 = argmin ‖G(z) − I‖². "boundary" has z_e = argmin ‖z − z0‖² with s_t = s_p, as CDeepEx but without its other
    constraints: what that paper compares with. "descent" is the original, z_e = argmin ‖x(z) − I‖² + λ·CE(f(x(z)),
    probe), by Adam from z0; it goes as far beyond the boundary as λ says, and found is what the model takes for the
    probe class. The target is a `Contrast(t, p)`; a class is contrasted with its runner-up. Details and checks as in
    CDeepEx; `violations` are those of its constraints with ε = 0.
    Cost: "boundary" as CDeepEx, with one backward pass to a forward pass; "descent" a forward and a backward pass for
    each step, at most `steps`; a sample whose loss has settled costs no more.
    Limits: a third class may take over on the way (see the check); otherwise as CDeepEx.
    Source: Joshi, Koyejo, Kim & Ghosh 2018, arXiv 1806.08867; "boundary": Feghahati et al. 2020, ECAI 2020.

    Args:
        latent: as in CDeepEx.
        form: "boundary" or "descent".
        residual: as in CDeepEx.
        weight: λ, for the descent.
        steps: at most, for the descent.
        tolerance: the |h| that counts as a tie, for the boundary.
        starts: as in CDeepEx, for the boundary.
        rounds: of the augmented Lagrangian, at most, for the boundary.
        search: as in CDeepEx, for the boundary.
        film: as in CDeepEx.
    """

    latent: Latent | str | None = None
    form: Literal["boundary", "descent"] = "boundary"
    residual: bool = True
    weight: float = 1.0
    steps: int = 400
    tolerance: float = 0.02
    starts: int = 3
    rounds: int = 25
    search: Literal["polished", "plain"] = "polished"
    film: int = 0

    taxonomy = Taxonomy(shows="contrast", needs="gradients", relation="dependence", trains=True)

    def __post_init__(self) -> None:
        check_latent(self.latent)
        if self.form not in ("boundary", "descent"):
            raise InputError(f"form is 'boundary' or 'descent', not {self.form!r}")
        check_search(self.search)
        if not (0 < self.weight < math.inf and 0 < self.tolerance < math.inf):
            raise InputError(f"weight and tolerance are positive and finite, not {self.weight}, {self.tolerance}")
        if min(self.steps, self.starts, self.rounds) < 1 or self.film < 0:
            raise InputError(
                "steps, starts and rounds are at least 1, film not negative, not "
                f"{self.steps}, {self.starts}, {self.rounds}, {self.film}"
            )

    def attribute(self, task: Task) -> Attribution:
        problem = Problem.of(task, opened(self.latent), residual=self.residual, margin=None)
        if self.form == "boundary":
            return contrasted(problem, self.tolerance, self.starts, self.rounds, self.search == "polished", self.film)
        active, told = self._descend(problem)
        found, steps = active.gathered("z"), active.gathered("steps")
        scores = problem.scores(found)
        status = torch.where(scores.argmax(1) == problem.pair[:, 1], SOLVED, NOT_FOUND)
        status[~torch.isfinite(scores).all(1)] = DIVERGED
        return answer(problem, found, status, told, (steps, steps.clone()), self.film)

    def _descend(self, problem: Problem) -> tuple[Active, Tensor]:
        """The state of the descent at its end, and log p_t and log p_p of each step (n, steps, 2)."""
        z = problem.origin
        active = Active(len(z), z=z, steps=torch.zeros(len(z), dtype=torch.long), **_ADAM.start(z))
        losses, told = [], []
        with problem.task.bar(self.steps) as bar:
            for number in range(1, self.steps + 1):
                loss, gradient, likely = self._loss(problem, active["z"], active.sample)
                losses.append(torch.full((len(z),), torch.nan, dtype=torch.float64))
                losses[-1][active.sample] = loss
                told.append(torch.full((len(z), 2), torch.nan, dtype=torch.float64))
                told[-1][active.sample] = likely
                state = {"mean": active["mean"], "square": active["square"]}
                active["z"] = active["z"] - _ADAM.step(gradient, state, number, 0.0)
                active["mean"], active["square"] = state["mean"], state["square"]
                active["steps"] = active["steps"] + 1
                bar.update(1)
                over = ~torch.isfinite(loss)
                if number > OVER:
                    before = losses[-1 - OVER][active.sample]
                    over |= (before - loss).abs() < STALLED * before.abs()
                active.finish(over)
                if not len(active):
                    break
        return active, torch.stack(told, 1)

    def _loss(self, problem: Problem, z: Tensor, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """‖x(z) − I‖² + λ·CE (k,), its gradient (k, size), and log p_t and log p_p (k, 2)."""

        def differentiate(points: Inputs, sample: Tensor) -> tuple[Tensor, ...]:
            given = leaf(as_tuple(points)[0])
            likely, difference = problem.likely(given, sample)
            loss = difference.flatten(1).square().sum(1) - self.weight * likely[:, 1]
            (gradient,) = problem.task.backward(loss, (given,))
            return loss.detach().cpu().double(), gradient.cpu().double(), likely.detach().cpu().double()

        loss, gradient, likely = problem.task.map(differentiate, z, sample, gradient=True)
        return loss, gradient, likely
