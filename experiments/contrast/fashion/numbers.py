"""The numbers: what became of every garment, how general the change is, and whether that lies in the architecture."""

import math
from collections.abc import Mapping
from itertools import combinations, product
from typing import Any

import torch
from experiments.common.tables import sign
from experiments.contrast.fashion import generality
from experiments.contrast.fashion.asked import COMPARED, Question, Subject
from experiments.contrast.measure import TOLERANCE
from experiments.contrast.numbers import Jury, failures
from torch import Tensor
from torch.nn import functional as F

from whybox.contrast.record import ROUNDING, SOLVED
from whybox.evaluation.bootstrap import intervals

DIGITS = 5
FARTHER = 1.02
COUNTED = ("solved", "violated", "third class", "nothing found")

Found = Mapping[str, Tensor]
Each = dict[str, Tensor]
"""Measures of each garment (n,), NaN where no contrast was found."""


def outcomes(question: Question, subject: Subject, found: Found) -> Each:
    """What became of every garment: 1 for what is so and 0 for what is not, and figures of merit of what was found."""
    missing, third, excess, gap = _jury(question, subject).constraints(dict(found))
    x = found["contrast"]
    likely = subject.scores(x).softmax(1)[:, list(question.pair)]
    counted = {
        "solved": found["status"] == SOLVED,
        "violated": (gap > TOLERANCE) | (excess > ROUNDING),
        "third class": third,
        "nothing found": missing,
    }
    figures = {
        "p_t apart from p_p": (likely[:, 0] - likely[:, 1]).abs(),
        "p_t + p_p": likely.sum(1),
        "‖z − z₀‖": found["distance"],
        "‖ΔI‖₁": (x - question.garments).flatten(1).abs().sum(1),
    }
    return {
        **{name: values.double() for name, values in counted.items()},
        **{name: values.double().masked_fill(missing, torch.nan) for name, values in figures.items()},
        **{name: found[name].double() for name in ("forwards", "backwards", "seconds")},
    }


def failed(question: Question, subject: Subject, found: Found) -> list[dict[str, Any]]:
    """What was not solved or breaks a constraint, one by one."""
    return failures(_jury(question, subject), dict(found), question.places)


def measures(question: Question, subject: Subject, found: Found, others: list[Subject]) -> Each:
    """How general each garment's change is; `others` are all nets, for what the change does to them."""
    change, x = -found["relevance"][:, 0].double(), question.garments
    garments = x[:, 0].double()
    gap, made = _gap(subject, question), change[:, None].float()
    each = {
        "area": generality.area(change),
        "changed": generality.share_changed(change, garments),
        "outside": generality.share_outside(change, garments),
        "beside": generality.share_beside(change),
        "height": generality.height(change),
        "spread": generality.spread(change),
        "likeness": generality.likeness(change),
        "carried": generality.carried(gap, x, made),
        "carried, sized": generality.carried(gap, x, generality.sized(made)),
    }
    for other in others:
        if other.name != subject.name:
            each[f"to {other.name}"] = generality.closed(_gap(other, question), x, found["contrast"])
    missing = change.flatten(1).isnan().any(1)
    return {name: values.double().masked_fill(missing, torch.nan) for name, values in each.items()}


def moved(each: Mapping[str, Each], subjects: list[Subject]) -> None:
    """Add what other nets make of a contrast: the mean over those of the same architecture, and over those compared."""
    for one, found in each.items():
        kind = one.partition(" ")[0]
        same = [s.name for s in subjects if s.architecture == kind and s.name != one]
        other = [s.name for s in subjects if s.architecture in COMPARED and s.architecture != kind]
        for name, nets in (("moves its kind", same), ("moves the other kind", other)):
            found[name] = torch.stack([found[f"to {net}"] for net in nets]).mean(0)


def less(each: Mapping[str, Each], first: str, second: str, name: str) -> dict[str, Any]:
    """An architecture's measure less another's, each the mean of its nets on the same garments.

    "nets" has the mean of each net; "above" tells in how many pairs of nets, one of each, the first has more.
    """
    rows = [_rows(each, architecture, name) for architecture in (first, second)]
    means = [row.nanmean(1) for row in rows]
    pairs = [bool(a > b) for a, b in product(*means)]
    return {
        "difference": mean(rows[0].mean(0) - rows[1].mean(0)),
        "nets": {a: _rounded(m) for a, m in zip((first, second), means, strict=True)},
        "above": sum(pairs),
        "pairs": len(pairs),
    }


def single(each: Mapping[str, Each], first: str, second: str, name: str) -> dict[str, int]:
    """What single nets would have said: in how many pairs one's interval lies above the other's net, or below it.

    "first" and "second" count the pairs of nets of different architectures in which that one's has more, for certain;
    "alike" the pairs of one architecture in which either has.
    """
    signs = {
        names: sign(mean(each[names[0]][name] - each[names[1]][name]))  # type: ignore[arg-type]
        for names in combinations(each, 2)
        if all(one.partition(" ")[0] in (first, second) for one in names)
    }
    # The first architecture's nets come first, so that a positive sign means that it has more.
    mixed = [s for names, s in signs.items() if len({one.partition(" ")[0] for one in names}) > 1]
    same = [s for names, s in signs.items() if len({one.partition(" ")[0] for one in names}) == 1]
    return {
        "first": mixed.count(1),
        "second": mixed.count(-1),
        "pairs": len(mixed),
        "alike": len(same) - same.count(0),
        "alike of": len(same),
    }


def of(each: Mapping[str, Each], architecture: str) -> dict[str, Any]:
    """The mean of all garments and nets of an architecture, with its interval over garments; counts where counted."""
    found = {name: _rows(each, architecture, name) for name in next(iter(each.values())) if not name.startswith("to ")}
    return {
        name: {"mean": mean(rows.nanmean(0)), **({"count": int(rows.sum())} if name in COUNTED else {})}
        for name, rows in found.items()
    }


def missed(few: Mapping[str, Found], many: Mapping[str, Found]) -> dict[str, Any]:
    """Where fewer starts end farther from z₀ than more do, by over 2 % (rounding and where a search stalls)."""
    rows = torch.stack([found["distance"] > FARTHER * many[name]["distance"] for name, found in few.items()]).double()
    return {"mean": mean(rows.mean(0)), "count": int(rows.sum()), "of": rows.numel()}


def agreement(changes: Mapping[str, Tensor]) -> dict[str, list[float | None]]:
    """The mean cosine between two nets' changes of the same garment, for nets of one architecture and of two."""
    unit = {name: F.normalize(change.flatten(1).double(), dim=1) for name, change in changes.items()}
    groups: dict[str, list[Tensor]] = {}
    names = list(unit)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            kinds = sorted({one.partition(" ")[0], other.partition(" ")[0]})
            groups.setdefault(" and ".join(kinds), []).append((unit[one] * unit[other]).sum(1))
    return {kind: mean(torch.stack(rows).mean(0)) for kind, rows in groups.items()}


def mean(values: Tensor) -> list[float | None]:
    """[mean, low, high]."""
    (one,) = intervals(values[None].numpy())
    return [round(v, DIGITS) if math.isfinite(v) else None for v in (one.mean, one.low, one.high)]


def _jury(question: Question, subject: Subject) -> Jury:
    """Of the constraints alone."""
    return Jury(subject.model, subject.model.module, [], question.garments)


def _rows(each: Mapping[str, Each], architecture: str, name: str) -> Tensor:
    return torch.stack([found[name] for one, found in each.items() if one.partition(" ")[0] == architecture])


def _rounded(values: Tensor) -> list[float]:
    return [round(v, DIGITS) for v in values.tolist()]


def _gap(subject: Subject, question: Question) -> Any:
    true, probe = question.pair

    def gap(x: Tensor) -> Tensor:
        scores = subject.scores(x)
        return scores[:, true] - scores[:, probe]

    return gap
