"""The numbers: how well the bias was learned, and how much of each answer lies in the square."""

import math
from pathlib import Path
from typing import Any

import torch
from experiments.common.kept import joined
from experiments.contrast.eights.bias import EIGHT, Bias
from experiments.contrast.eights.subjects import Questions, Subject
from experiments.contrast.measure import NO_MAP
from torch import Tensor
from torch.nn import functional as F

import whybox
from whybox.contrast.record import STATUSES
from whybox.evaluation.bootstrap import intervals

DIGITS = 5

Found = dict[str, Tensor]


def scores_of(model: whybox.Model, digits: Tensor) -> Tensor:
    """The scores of all digits (n, 10)."""
    with torch.no_grad():
        return torch.cat([model(part) for part in digits.split(250)])


def learned(model: whybox.Model, bias: Bias, scores: Tensor, digits: Tensor, labels: Tensor) -> dict[str, Any]:
    """How the classifier takes clean test digits, whose scores are given, and the same with the square."""
    eights, right = labels == EIGHT, (scores.argmax(1) == labels).double()
    called = (scores_of(model, bias.imposed(digits)).argmax(1) == EIGHT).double()
    shares = {
        "eights recognised": right[eights],
        "others recognised": right[~eights],
        "eights with the square recognised": called[eights],
        "others with the square called 8": called[~eights],
    }
    return {"grey": bias.grey, "side": bias.side, **{name: _mean(values) for name, values in shares.items()}}


def merits(found: Found, bias: Bias) -> dict[str, Tensor]:
    """Of each answer (n,): the share of |R| in the square, whether that is first of all such squares, what is added.

    A failure has no share, and is not first; what is added, in multiples of the square's grey, is NaN there.
    """
    relevance = found["relevance"].double()
    strength = relevance.abs()
    total = strength.flatten(1).sum(1)
    failed = ~(total > 0)  # NaN is not
    share = bias.corner(strength).flatten(1).sum(1) / total
    windows = F.avg_pool2d(strength, bias.side, 1).flatten(1)
    return {
        "share": share.masked_fill(failed, 0),
        "share where found": share.masked_fill(failed, torch.nan),
        "first": (windows.argmax(1) == 0).double().masked_fill(failed, 0),
        "added": -bias.corner(relevance).flatten(1).mean(1) / bias.grey,
    }


def closed(subject: Subject, questions: Questions, found: Found) -> dict[str, Tensor]:
    """The share of s_t − s_8 that ΔI takes away (n,), from 0 to 1: its part in the square alone, and the rest."""
    count = len(found["relevance"])
    x, pair = questions.digits[:count], questions.pair[:count]
    inside = found["relevance"].clone().zero_()
    subject.bias.corner(inside).copy_(subject.bias.corner(found["relevance"]))

    def gap(digits: Tensor) -> Tensor:
        scores = scores_of(subject.model, digits).gather(1, pair).double()
        return scores[:, 0] - scores[:, 1]

    parts = {"closed by the square": inside, "closed by the rest": found["relevance"] - inside}
    return {name: (1 - gap(x - part.nan_to_num(0)) / gap(x)).clamp(0, 1) for name, part in parts.items()}


def answers(subject: Subject, group: str, questions: Questions, folder: Path) -> dict[str, Any]:
    """A row for each method: means and intervals over all digits, less the first method's, and each failure."""
    rows: dict[str, Any] = {}
    first = torch.empty(0)
    for entry in subject.rows:
        found = joined([path for path, _, _ in entry.paths(len(questions.digits), folder / subject.name / group)])
        each = merits(found, subject.bias)
        failed = each["share where found"].isnan()
        first = first if rows else each["share"]
        each["less the first"] = each["share"] - first[: len(failed)]
        if "latents" in found:
            each |= closed(subject, questions, found)
        else:
            del each["added"]
        rows[entry.name] = {
            "digits": len(failed),
            "failed": int(failed.sum()),
            **{name: _mean(values) for name, values in each.items()},
            "seconds": round(float(found["seconds"].double().mean()), 3),
            "failures": [
                {"digit": questions.places[row], "class": int(questions.pair[row, 0]), "status": _said(found, row)}
                for row in failed.nonzero()[:, 0].tolist()
            ],
        }
    return rows


def _said(found: Found, row: int) -> str:
    status = int(found["status"][row])
    return "no map" if status == NO_MAP else STATUSES[status].partition(":")[0]


def _mean(values: Tensor) -> list[float | None]:
    """[mean, low, high, n]."""
    (one,) = intervals(values[None].numpy())
    return [*(round(v, DIGITS) if math.isfinite(v) else None for v in (one.mean, one.low, one.high)), one.n]
