"""What a method of learned masks answers: the masks with what is known of them."""

from typing import Any, Literal

import torch
from torch import Tensor

from whybox.attribution.masks.optimiser import Found
from whybox.core.method import Attribution, Check


def answer(
    found: Found,
    relevance: Tensor,
    evaluations: Tensor,
    score: Tensor,
    lost: Tensor | None,
    *checks: Check,
    called: Literal["kept", "left"] = "kept",
) -> Attribution:
    """The attribution of these masks; `score` and `lost` are what `Masked.outcome` says of them.

    Args:
        found: what the optimiser has found.
        relevance: the masks, in the input's shape.
        evaluations: of the model, for each sample (n,).
        score: of the target under the masks (n,).
        lost: whether its class is lost there (n,); None where the target is no class.
        checks: further ones, behind that of the search itself.
        called: what to call the score in the details: of what the masks keep, or of what they leave.
    """
    last = found.losses.gather(1, found.steps[:, None] - 1)[:, 0]
    diverged = ~torch.isfinite(last) | ~torch.isfinite(score)
    details: dict[str, Any] = {
        f"{called}_score" if lost is None else f"{called}_probability": score if lost is None else score.exp(),
        "area": (relevance > 0.5).view(len(relevance), -1).cpu().double().mean(1),
        "losses": found.losses,
        "evaluations": evaluations,
    }
    if found.film is not None:
        details["film"] = found.film
    search = Check(
        "search that diverged",
        diverged.double(),
        0.0,
        "Whether the loss became NaN or infinite, which ended the search. Then the mask is the best before that, or "
        "the one that the search began with.",
    )
    return Attribution(relevance, details, (search, *checks))
