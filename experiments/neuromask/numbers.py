"""The numbers: means with bootstrap intervals, differences of the same pictures, and how alike masks are."""

import math
from pathlib import Path
from typing import Any

import torch
from experiments.common.kept import joined
from experiments.neuromask.entries import CHUNKS, DEFAULT, NEUROMASK, NOISY, REFERENCE, ROWS, SEARCHES, SEED, Entry
from experiments.neuromask.subjects import Subject
from torch import Tensor

from whybox.evaluation.bootstrap import intervals
from whybox.evaluation.similarity import rank_correlation, top_overlap

DIGITS = 5
NOT_ROWS = ("map", "film", "seconds", "evaluations", "correct")
TOP = 0.05
ALIKE = ("rank correlation", "highest 5 %", "m > ½")

Found = dict[str, Tensor]


def numbers(subject: Subject, folder: Path) -> dict[str, Any]:
    """All that the page says of a subject, as plain values.

    Of every entry: how many pictures, its cost for a picture, and of every quantity the mean with its 95 % bootstrap
    interval over pictures, and the same of the difference to NeuroMask's on the same pictures; [mean, low, high], the
    ends None where there are fewer than six pictures.
    """
    known = {entry.name: load(subject, entry, folder) for entry in (*ROWS, *SEARCHES)}
    base = known[NEUROMASK.name]
    return {
        "data": subject.name,
        "model": subject.model.name,
        "size": list(subject.inputs(0, 1).shape[1:]),
        "pictures": subject.count,
        "right": int(base["correct"].sum()),
        "judges": list(subject.judges),
        "settings": DEFAULT.config(),
        "entries": {name: _entry(found, base) for name, found in known.items()},
        "alike": _alike(known),
    }


def load(subject: Subject, entry: Entry, folder: Path) -> Found:
    """What was measured of an entry."""
    return joined([path for path, _, _ in entry.paths(subject, folder)])


def _entry(found: Found, base: Found) -> dict[str, Any]:
    count = len(found["map"])
    names = [name for name in found if name not in NOT_ROWS]
    paired = [name for name in names if name in base]
    values = [found[name].double() for name in names]
    values += [found[name].double() - base[name][:count].double() for name in paired]
    plain = _plain(torch.stack(values))
    return {
        "pictures": count,
        "evaluations": float(found["evaluations"].sum() / count) if "evaluations" in found else None,
        "seconds": float(found["seconds"].sum() / count) if "seconds" in found else None,
        "mean": dict(zip(names, plain, strict=False)),
        "less NeuroMask": dict(zip(paired, plain[len(names) :], strict=True)),
    }


def _plain(values: Tensor) -> list[list[float | None]]:
    """[mean, low, high] of each row."""
    return [
        [round(value, DIGITS) if math.isfinite(value) else None for value in (one.mean, one.low, one.high)]
        for one in intervals(values.double().numpy())
    ]


def _alike(known: dict[str, Found]) -> dict[str, dict[str, Any]]:
    """How alike the masks of two searches are, and for comparison those of different pictures."""
    pairs = {
        "reference: two seeds": (REFERENCE, SEED, 0),
        "reference: two pictures": (REFERENCE, SEED, 1),
        "default: in chunks of another size": (NEUROMASK, CHUNKS, 0),
        "default: of the picture with 1 % noise": (NEUROMASK, NOISY, 0),
        "default: two pictures": (NEUROMASK, NOISY, 1),
        "default and reference": (NEUROMASK, REFERENCE, 0),
    }
    return {name: _pair(known[a.name]["map"], known[b.name]["map"], shift) for name, (a, b, shift) in pairs.items()}


def _pair(first: Tensor, second: Tensor, shift: int) -> dict[str, Any]:
    """How alike masks (n, h, w) are; the second's are those of the next picture where they are shifted."""
    count = min(len(first), len(second))
    a, b = first[:count, None], second[:count, None].roll(shift, 0)
    both, either = (op(a > 0.5, b > 0.5).flatten(1).sum(1) for op in (torch.logical_and, torch.logical_or))
    values = torch.stack((rank_correlation(a, b), top_overlap(a, b, TOP), both / either))
    return {"pictures": count, **dict(zip(ALIKE, _plain(values), strict=True))}
