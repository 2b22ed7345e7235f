"""The numbers: means with bootstrap intervals, and differences of the same pictures."""

from pathlib import Path
from typing import Any

import numpy
import torch
from experiments.common.data import SEED
from experiments.common.kept import blocks, joined
from experiments.samek2017.measure import BLOCK, SENSITIVITY, Entry
from experiments.samek2017.subjects import Subject
from torch import Tensor

RESAMPLES = 5000
DIGITS = 4
QUANTITIES = ("probability", "score")
OPPONENTS = (SENSITIVITY.name, "random map")
GROUPS = {"all": None, "right": True, "wrong": False}

Curves = dict[str, Tensor]


def numbers(subject: Subject, entries: tuple[Entry, ...], folder: Path) -> dict[str, Any]:
    """All that the page says of these entries and this subject, as plain values.

    For every infill, entry, group of pictures (all, those that the model gets right, those it gets wrong) and quantity
    that is followed: the mean AOPC and the mean of its difference to each opponent's on the same pictures, each as
    [mean, low, high] with the 95 % interval of 5,000 bootstrap resamples of the pictures. And the mean curves.
    """
    curves = {
        infill: {entry.name: _curves(subject, entry, infill, folder) for entry in entries} for infill in subject.infills
    }
    correct = next(iter(next(iter(curves.values())).values()))["correct"]
    return {
        "data": subject.name,
        "model": subject.model.name,
        "size": list(subject.inputs(0, 1).shape[1:]),
        "region": subject.metric.size,
        "steps": subject.metric.steps,
        "levels": subject.metric.levels,
        "pictures": len(correct),
        "right": int(correct.sum()),
        "infills": {infill: _infill(found, correct) for infill, found in curves.items()},
    }


def _curves(subject: Subject, entry: Entry, infill: str, folder: Path) -> Curves:
    """What was measured of all blocks, joined."""
    return joined([entry.path(folder, subject, infill, *block) for block in blocks(len(subject.labels), BLOCK)])


def _infill(curves: dict[str, Curves], correct: Tensor) -> dict[str, Any]:
    """The numbers of every entry, under one infill."""
    found: dict[str, Any] = {name: _plain(one, correct) for name, one in curves.items()}
    for group, wanted in GROUPS.items():
        rows = torch.ones_like(correct) if wanted is None else correct == wanted
        columns: dict[tuple[str, str, str], Tensor] = {}
        for name, one in curves.items():
            for followed in QUANTITIES:
                values = one[f"AOPC {followed}"][rows]
                columns[name, followed, "AOPC"] = values
                for opponent in OPPONENTS:
                    columns[name, followed, opponent] = values - curves[opponent][f"AOPC {followed}"][rows]
        intervals = bootstrap(torch.stack(list(columns.values()), 1)) if rows.any() else [None] * len(columns)
        for (name, followed, what), interval in zip(columns, intervals, strict=True):
            found[name].setdefault(group, {}).setdefault(followed, {})[what] = interval
    return found


def _plain(one: Curves, correct: Tensor) -> dict[str, Any]:
    """Counts, cost, and the mean curves as drawn: the mean of every picture's relative score."""
    relative = {followed: (one[followed] / one[followed][:, :1]).mean(0) for followed in QUANTITIES}
    drawn = {**relative, "right": one["right"].mean(0)}
    return {
        "flat": int(one["flat"].sum()),
        "flat among right": int((one["flat"] & correct).sum()),
        "forwards": int(one["forwards"]),
        "processor seconds": float(one["seconds"]),
        "removed": one["removed"].mean(0).tolist(),
        "relative": {name: [round(value, DIGITS) for value in curve.tolist()] for name, curve in drawn.items()},
    }


def bootstrap(values: Tensor) -> list[list[float]]:
    """Mean and 95 % percentile interval of every column (n, k); all columns share the resamples of the rows."""
    count = len(values)
    weights = numpy.random.default_rng(SEED).multinomial(count, [1 / count] * count, RESAMPLES) / count
    low, high = numpy.percentile(weights @ values.numpy(), (2.5, 97.5), axis=0)
    rows = zip(values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [[round(value, DIGITS) for value in row] for row in rows]
