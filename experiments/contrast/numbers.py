"""The numbers: what becomes of every digit, counted over all of them, and the figures of merit of what was found."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from experiments.common.kept import joined
from experiments.contrast.entries import CDEEPEX, CURVES, ROWS, WGAN, Entry
from experiments.contrast.measure import TOLERANCE
from torch import Tensor, nn

import whybox
from whybox.contrast.record import ROUNDING, SOLVED, STATUSES
from whybox.evaluation.bootstrap import intervals

DIGITS = 5
TINY = 1e-3  # ε of IM1 and IM2
# Of the curves so many places are written: every one at first, then fewer.
SHOWN = sorted({*range(41), *range(40, 825, 8), 824})

Found = dict[str, Tensor]


@dataclass(frozen=True)
class Jury:
    """All that judges a contrast: the classifier, another one, autoencoders of each class and all, training digits."""

    model: whybox.Model
    other: nn.Module
    autoencoders: list[nn.Module]
    training: Tensor

    def figures(self, x: Tensor, digits: Tensor, pair: Tensor) -> dict[str, Tensor]:
        """The figures of merit of contrasts x (n, 1, 28, 28) of these digits; NaN where x is."""
        with torch.no_grad():
            scores, seen = self.model(x), self.other(x)
            drawn = torch.stack([net(x) for net in self.autoencoders])
            critic = WGAN.realism(x)
        likely, judged = (s.softmax(1).gather(1, pair) for s in (scores, seen))
        everyone = torch.arange(len(x))
        of_true, of_probe = (_squared(drawn[classes, everyone] - x) for classes in pair.unbind(1))
        two = seen.topk(2, dim=1).indices.sort(dim=1).values == pair.sort(dim=1).values
        found = {
            "|p_t − p_p|": (likely[:, 0] - likely[:, 1]).abs(),
            "p_t + p_p": likely.sum(1),
            "‖ΔI‖₁": (x - digits).flatten(1).abs().sum(1),
            "critic": critic,
            "neighbour": torch.cat([torch.cdist(part, self.training).amin(1) for part in x.flatten(1).split(50)]),
            "IM1": of_probe / (of_true + TINY),
            "IM2": _squared(drawn[pair[:, 1], everyone] - drawn[-1]) / (x.flatten(1).abs().sum(1) + TINY),
            "other: two": two.all(1).float(),
            "other: p_t + p_p": judged.sum(1),
        }
        missing = x.flatten(1).isnan().any(1)
        return {name: values.double().masked_fill(missing, torch.nan) for name, values in found.items()}

    def counts(self, found: Found) -> dict[str, Any]:
        """How many were solved, how many break which constraint, counted over all."""
        missing, third, excess, gap = self.constraints(found)
        return {
            "digits": len(missing),
            "found": int((~missing).sum()),
            "not tied": int((gap > TOLERANCE).sum()),
            "violated": int(((gap > TOLERANCE) | (excess > ROUNDING)).sum()),
            "third class": int(third.sum()),
            "status": {name.partition(":")[0]: int((found["status"] == n).sum()) for n, name in enumerate(STATUSES)},
        }

    def constraints(self, found: Found) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Whether there is no contrast; whether another class is first; by how much another is second; and |h|."""
        pair, x = found["classes"], found["contrast"]
        with torch.no_grad():
            scores = self.model(x).double()
        missing = x.flatten(1).isnan().any(1)
        two = scores.gather(1, pair)
        rest = scores.scatter(1, pair, -torch.inf).amax(1)
        third = ~missing & (rest > two.amax(1) + ROUNDING)
        return missing, third, rest - two.amin(1), (two[:, 0] - two[:, 1]).abs()


def load(entry: Entry, digits: int, folder: Path) -> Found:
    """What was measured of an entry."""
    return joined([path for path, _, _ in entry.paths(digits, folder)])


def numbers(jury: Jury, digits: Tensor, places: list[int], folder: Path) -> dict[str, Any]:
    """All that the page says, as plain values; `places` are those of the digits in the test set."""
    known = {entry.name: load(entry, len(digits), folder) for entry in (*ROWS, *CURVES)}
    base = known[CDEEPEX.name]
    themselves = jury.figures(digits, digits, base["classes"])
    figures = {name: _figures(jury, found, digits) for name, found in known.items()}
    for name in ("|p_t − p_p|", "‖ΔI‖₁"):
        del themselves[name]
    return {
        "pictures": len(digits),
        "entries": {name: _entry(jury, found, figures[name], figures[CDEEPEX.name]) for name, found in known.items()},
        "themselves": _plain(themselves),
        "failures": {
            name: failures(jury, found, places) for name, found in known.items() if found["status"].amin() >= SOLVED
        },
        "curves": {name: _curves(found) for name, found in known.items() if "curve" in found},
    }


def failures(jury: Jury, found: Found, places: list[int]) -> list[dict[str, Any]]:
    """What was not solved or breaks a constraint, one by one."""
    missing, third, excess, gap = jury.constraints(found)
    wrong = (found["status"] != SOLVED) | third | (excess > ROUNDING) | (gap > TOLERANCE)
    return [
        {
            "digit": places[row],
            "classes": found["classes"][row].tolist(),
            "status": STATUSES[int(found["status"][row])].partition(":")[0],
            "third class": bool(third[row]),
            "excess": None if missing[row] else round(float(excess[row]), 3),
            "reconstruction": round(float(found["reconstruction"][row]), 4),
        }
        for row in wrong.nonzero()[:, 0].tolist()
    ]


def _figures(jury: Jury, found: Found, digits: Tensor) -> dict[str, Tensor]:
    figures = jury.figures(found["contrast"], digits[: len(found["contrast"])], found["classes"])
    return {**figures, "‖z − z0‖": found["distance"].double()}


def _entry(jury: Jury, found: Found, figures: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Any]:
    count = len(found["contrast"])
    return {
        **jury.counts(found),
        "mean": _plain(figures),
        "less CDeepEx": _plain({name: values - base[name][:count] for name, values in figures.items()}),
        **{name: round(float(found[name].double().mean()), 3) for name in ("forwards", "backwards", "seconds")},
    }


def _curves(found: Found) -> dict[str, Any]:
    """The mean p_t and p_p of all digits at some iterations, and of how many digits."""
    mean = found["curve"].double().mean(0)[SHOWN]
    return {
        "digits": len(found["curve"]),
        "iteration": SHOWN,
        "true": [round(p, DIGITS) for p in mean[:, 0].tolist()],
        "probe": [round(p, DIGITS) for p in mean[:, 1].tolist()],
    }


def _plain(values: dict[str, Tensor]) -> dict[str, list[float | None]]:
    """[mean, low, high] of each."""
    rows = torch.stack(list(values.values())).numpy()
    return {
        name: [round(v, DIGITS) if math.isfinite(v) else None for v in (one.mean, one.low, one.high)]
        for name, one in zip(values, intervals(rows), strict=True)
    }


def _squared(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)
