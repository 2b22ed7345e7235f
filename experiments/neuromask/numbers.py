"""The numbers: means with bootstrap intervals, differences of the same pictures, and how alike masks are."""

import math
from pathlib import Path
from typing import Any

import torch
from experiments.common.kept import joined
from experiments.neuromask.entries import CHUNKS, DEFAULT, NEUROMASK, NOISY, REFERENCE, ROWS, SEARCHES, SEEDS, Entry
from experiments.neuromask.subjects import Subject
from torch import Tensor

from whybox.evaluation.bootstrap import intervals
from whybox.evaluation.similarity import rank_correlation, top_overlap

DIGITS = 5
NOT_ROWS = ("map", "film", "seconds", "evaluations", "correct")
TOP = 0.05

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
    seeds = [REFERENCE.name, *(entry.name for entry in SEEDS)]
    pairs = {
        "reference: two seeds": [(a, b, 0) for i, a in enumerate(seeds) for b in seeds[:i]],
        "reference: two pictures": [(seeds[0], seeds[1], 1)],
        "default: in chunks of another size": [(NEUROMASK.name, CHUNKS.name, 0)],
        "default: of the picture with 1 % noise": [(NEUROMASK.name, NOISY.name, 0)],
        "default: two pictures": [(NEUROMASK.name, NOISY.name, 1)],
        "default and reference": [(NEUROMASK.name, REFERENCE.name, 0)],
    }
    return {name: _pairs(known, some) for name, some in pairs.items()}


def _pairs(known: dict[str, Found], pairs: list[tuple[str, str, int]]) -> dict[str, Any]:
    """The mean over pairs of searches; the second's masks are those of the next picture where they are shifted."""
    measured = []
    for first, second, shift in pairs:
        count = min(len(known[first]["map"]), len(known[second]["map"]))
        a, b = (known[name]["map"][:count, None] for name in (first, second))
        b = b.roll(shift, 0)
        both, either = (op(a > 0.5, b > 0.5).flatten(1).sum(1) for op in (torch.logical_and, torch.logical_or))
        measured.append(torch.stack((rank_correlation(a, b), top_overlap(a, b, TOP), both / either)))
    values = torch.stack(measured).nanmean(0)
    names = ("rank correlation", "highest 5 %", "m > ½")
    return {"pictures": values.shape[1], **dict(zip(names, _plain(values), strict=True))}
