"""CDeepEx: the least change, among inputs that look natural, at which two classes tie."""

import math
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Literal

import torch
from torch import Tensor

from whybox.contrast.answer import answer
from whybox.contrast.constrained import search
from whybox.contrast.latent import Latent
from whybox.contrast.problem import Problem
from whybox.contrast.record import NOT_SETTLED, Record
from whybox.contrast.starts import starts
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task

# Where no start settles, so many times as many more are tried.
MORE = 2


@dataclass(frozen=True)
class CDeepEx(Method):
    """Relevance R = G(z0) − G(z_e): what would have to change for the probe class to be as likely as the true one.

    z0 = argmin ‖G(z) − I‖², z_e = argmin ‖z − z0‖² with s_t = s_p and s_i + ε ≤ s_t, s_p for every other class i, where
    s are the model's scores for I + G(z) − G(z0), so that z0 gives I itself. The target is a `Contrast(t, p)`; a class
    is contrasted with its runner-up. Where R < 0 something is to be added, where R > 0 removed. The search is by
    sequential quadratic programming, from several starts; where none settles, the one that came nearest goes on in
    rounds of the augmented Lagrangian (32 steps each), and is tried again after each. `CDeepEx.paper(latent)` is the
    augmented Lagrangian alone. Details, per sample: `contrast_image`; `classes` t and p, with their `probabilities` in
    it, and `all_probabilities` of every class; `distance` ‖z_e − z0‖; `violations`: |h| = |s_t − s_p|, and by how much
    another class comes too near; `status`, as a place in `statuses`; `trajectory`: the probabilities of t and p in each
    iteration from the start that was kept, NaN behind the last; `latents` z0 and z_e; `reconstruction`: the distance of
    G(z0) from I; `forwards` and `backwards` of the search. A sample without a contrast has NaN in place of what was not
    found.
    Cost: for each start 5 to 41 forward passes, each with a backward pass for h and for every near one of three other
    classes where its step is taken, about every second time; where nothing settles, at most 74 · rounds more. A start
    ends where it and its next step are farther than another one that has settled, though it might have come back
    nearer. A backward pass counts each sample whose gradient is
    asked for, though a chunk goes back whole. Beside these three forward passes, and 128 for the whole batch; z0 costs
    no pass of the model.
    Limits: as natural as what G draws, and as near as G comes to the input (see the check); a local optimum, one of
    several, and not quite that where more than three other classes are as likely as the two; says nothing of what lies
    off the latent space.
    Source: Feghahati, Shelton, Pazzani & Tang 2020, "CDeepEx: Contrastive Deep Explanations", ECAI 2020.

    Args:
        latent: a `Latent`, or the path of its file; None for the one that comes with whybox, of handwritten digits. Two
            are equal when their nets are; a configuration names an object by its digest, from which nothing is rebuilt.
        residual: False to score G(z) itself, not I + G(z) − G(z0).
        margin: ε, by which the two classes stay above all others.
        tolerance: the |h| that counts as a tie.
        starts: from how many points the search begins: z0, two on the way to points of the probe class, one with noise,
            and so on; the nearest contrast is kept. Where none settles, twice as many more are tried.
        rounds: of the augmented Lagrangian, at most.
        search: "polished", or "plain": the augmented Lagrangian alone, all its rounds, from z0.
        film: keep so many inputs on the straight way from z0 to z_e in the details, with the `film_probabilities` of
            every class in each; a forward pass more for each.
    """

    latent: Latent | str | None = None
    residual: bool = True
    margin: float = 0.05
    tolerance: float = 0.02
    starts: int = 3
    rounds: int = 25
    search: Literal["polished", "plain"] = "polished"
    film: int = 0

    taxonomy = Taxonomy(shows="contrast", needs="gradients", relation="dependence", trains=True)

    def __post_init__(self) -> None:
        check_latent(self.latent)
        if not (0 <= self.margin < math.inf and 0 < self.tolerance < math.inf):
            raise InputError(
                f"margin is not negative and tolerance positive, both finite, not {self.margin}, {self.tolerance}"
            )
        check_search(self.search)
        if self.starts < 1 or self.rounds < 1 or self.film < 0:
            raise InputError(
                f"starts and rounds are at least 1, film not negative, not {self.starts}, {self.rounds}, {self.film}"
            )

    @classmethod
    def paper(cls, latent: Latent | str | None = None) -> "CDeepEx":
        """As the paper has it: the augmented Lagrangian from z0, 800 steps, no margin.

        The paper gives no numbers: those of the penalty and the steps are choices.
        """
        return cls(latent, margin=0.0, starts=1, search="plain")

    def attribute(self, task: Task) -> Attribution:
        problem = Problem.of(task, opened(self.latent), residual=self.residual, margin=self.margin)
        return contrasted(problem, self.tolerance, self.starts, self.rounds, self.search == "polished", self.film)


def contrasted(problem: Problem, tolerance: float, count: int, rounds: int, polished: bool, film: int) -> Attribution:
    """The answer of the nearest contrast found from `count` starts, or from more where these find none."""
    n = len(problem.origin)
    waves = (count, MORE * count) if polished else ()
    begins = starts(problem, sum(waves) or 1)
    with problem.task.bar(rounds) as bar:
        record = search(
            problem.ask, problem.origin, begins, tolerance=tolerance, rounds=rounds, waves=waves, bar=bar
        )  # fmt: skip
    width = begins.shape[1]
    best = torch.arange(n) * width + _order(record).view(n, width).argmin(1)
    asked = record.forwards.view(n, width).sum(1), record.backwards.view(n, width).sum(1)
    return answer(problem, record.z[best], record.status[best], record.told()[best], asked, film)


def _order(record: Record) -> Tensor:
    """Smaller is better: what is solved, then what is not settled, by distance; then the others, by violation."""
    within = torch.where(record.status <= NOT_SETTLED, record.distance, record.violation)
    squeezed = within / (1 + within)
    return record.status + squeezed.nan_to_num(1.0)


def opened(latent: Latent | str | None) -> Latent:
    """The latent model itself."""
    if isinstance(latent, Latent):
        return latent
    if latent is not None:
        return Latent.load(latent)
    with as_file(files("whybox.contrast.latent") / "digits.safetensors") as path:
        return Latent.load(path)


def check_latent(latent: object) -> None:
    """Raise InputError for what is no latent model."""
    if not isinstance(latent, (Latent, str, type(None))):
        raise InputError(
            f"latent is a Latent, the path of its file or None, not {type(latent).__name__}; a generator of your own "
            "becomes one by whybox.latent.Latent.of(generator, size)"
        )


def check_search(search: str) -> None:
    """Raise InputError unless it is one of the two."""
    if search not in ("polished", "plain"):
        raise InputError(f"search is 'polished' or 'plain', not {search!r}")
