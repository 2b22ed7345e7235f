"""What a contrast answers: the difference, what is known of it, and whether it is what it should be."""

import torch
from torch import Tensor

from whybox.contrast.problem import Problem
from whybox.contrast.record import DIVERGED, NOT_FOUND, ROUNDING, STATUSES, inequalities
from whybox.core.method import Attribution, Check

# The share of the training data that a latent model must draw worse for an input to count as known to it.
KNOWN = 0.99
# The names of the checks.
MISSING, TAKEN, UNKNOWN = "no contrast found", "another class takes over", "input unknown to the latent model"


def answer(
    problem: Problem, found: Tensor, status: Tensor, told: Tensor, asked: tuple[Tensor, Tensor], film: int
) -> Attribution:
    """The relevance G(z0) − G(z_e), NaN where no contrast was found, with its details and checks.

    Args:
        problem: what was asked.
        found: z_e of each sample (n, size).
        status: the place of each in STATUSES (n,).
        told: log p_t and log p_p of each iteration (n, iterations, 2), NaN behind a sample's last.
        asked: how often the model was asked in the search, forward and backward (n,).
        film: keep so many inputs on the way from z0 to z_e.
    """
    missing = (status == NOT_FOUND) | (status == DIVERGED)
    everyone = torch.arange(len(found))
    scores = problem.scores(found)
    values = problem.constraints(scores, everyone, problem.margin or 0.0)
    likely = scores.softmax(1)
    with torch.no_grad():
        end = problem.decode(found)
        contrast = problem.inputs(found, everyone)
        distance = problem.reconstruction()
        way = [torch.lerp(problem.origin, found, share) for share in _shares(film)]
        frames = [problem.inputs(point, everyone) for point in way]

    def known(x: Tensor) -> Tensor:
        return x.masked_fill(missing.to(x.device).view(-1, *(1,) * (x.ndim - 1)), torch.nan)

    details = {
        "contrast_image": known(contrast),
        "classes": problem.pair,
        "probabilities": known(likely.gather(1, problem.pair)),
        "all_probabilities": known(likely),
        "distance": known((found - problem.origin).norm(dim=1)),
        "violations": torch.stack((values[:, 0].abs(), _excess(values)), 1),
        "status": status,
        "statuses": STATUSES,
        "trajectory": told.exp(),
        "latents": torch.stack((problem.origin, known(found)), 1),
        "reconstruction": distance,
        "forwards": asked[0],
        "backwards": asked[1],
        "latent": problem.latent.config(),
    }
    if film:
        details["film"] = torch.stack([known(frame) for frame in frames], 1)
        details["film_probabilities"] = torch.stack([known(problem.scores(point).softmax(1)) for point in way], 1)
    checks = (
        Check(
            MISSING,
            missing.double(),
            0.0,
            "Whether the search has met no point that is a contrast. Then there is no map: nothing is shown in place "
            "of it.",
        ),
        Check(
            TAKEN,
            known((scores.amax(1) > scores.gather(1, problem.pair).amax(1) + ROUNDING).double()),
            0.0,
            "Whether a third class is the most likely one for the contrast image, which then is no answer to why one "
            "class and not the other.",
        ),
        *_familiarity(problem, distance),
    )
    return Attribution(known(problem.drawn - end), details, checks)


def _excess(values: Tensor) -> Tensor:
    """By how much any other class comes too near (k,)."""
    return torch.cat((torch.zeros_like(values[:, :1]), inequalities(values).flatten(1)), 1).amax(1)


def _familiarity(problem: Problem, distance: Tensor) -> tuple[Check, ...]:
    """How far the reconstruction is from the input, beside the training data; nothing where theirs is not known."""
    spread = problem.latent.spread
    if spread is None:
        return ()
    spread = spread.double().cpu()
    middle, limit = float(spread.median()), float(spread.quantile(KNOWN))
    says = (
        f"Distance of what the latent model draws for the input, G(z0), from the input itself, as a multiple of that "
        f"which {KNOWN:.0%} of its training data keep within ({limit:.3g}; half of them, {middle:.3g}). Above 1 the "
        f"latent model does not know this input, and the contrast is one of something else."
    )
    return (Check(UNKNOWN, distance / limit, 1.0, says),)


def _shares(frames: int) -> list[float]:
    places: list[float] = torch.linspace(0, 1, frames).tolist()
    return places
