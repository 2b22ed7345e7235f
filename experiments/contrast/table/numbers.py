"""The numbers: what becomes of every row, what the contrasts are like, and where the change lies."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from experiments.common.data import digest
from experiments.common.kept import blocks, joined, keep, known
from experiments.contrast.entries import Entry
from experiments.contrast.measure import TOLERANCE, block
from experiments.contrast.numbers import Jury
from experiments.contrast.table.subjects import Subject
from torch import Tensor

import whybox
from whybox.contrast.record import ROUNDING, SOLVED
from whybox.evaluation.bootstrap import intervals

BLOCK = 100
CDEEPEX, BOUNDARY, DESCENT, GRADIENT = NAMES = (
    "CDeepEx",
    "xGEM, boundary",
    "xGEM, descent",
    "gradient of the difference",
)

Found = dict[str, Tensor]


def entries(subject: Subject) -> tuple[Entry, ...]:
    """The rows of a subject's table."""
    latent = subject.latent
    return (
        Entry(CDEEPEX, whybox.CDeepEx(latent), ties=True),
        Entry(BOUNDARY, whybox.XGEM(latent), ties=True),
        Entry(DESCENT, whybox.XGEM(latent, form="descent", weight=20.0)),
        Entry(GRADIENT, whybox.Gradient()),
    )


def measured(subject: Subject, entry: Entry, count: int, folder: Path) -> Found:
    """The contrasts of the first so many test rows, found or read where they were found before."""
    settings = entry.settings(digest(subject.model))
    home = folder / "table" / f"{subject.name} {entry.name}".replace(" ", "-").replace(",", "")
    paths = []
    for start, stop in blocks(min(count, len(subject.test)), BLOCK):
        paths.append(home / f"{start:05d}-{stop:05d}.safetensors")
        if not known(paths[-1], settings):
            keep(block(subject.model, subject.test[start:stop], entry, start), paths[-1], settings)
    return joined(paths)


def numbers(subject: Subject, all_found: dict[str, Found]) -> dict[str, Any]:
    """All that the page says of a subject, as plain values."""
    jury = Jury(subject.model, subject.model.module, [], subject.training)
    figures = {name: _figures(subject, found) for name, found in all_found.items()}
    base = figures[CDEEPEX]
    rows = subject.test[: len(base["‖ΔI‖₁"])]
    return {
        "rows": len(rows),
        "columns": subject.columns,
        "deciding": None if subject.deciding is None else len(subject.deciding),
        "classes": subject.classes,
        "accuracy": subject.accuracy,
        "themselves": _plain({"neighbour": _neighbour(rows, subject.training)}),
        "entries": {
            name: {
                **jury.counts(found),
                "rates": _plain(_rates(jury, found)),
                "mean": _plain(figures[name]),
                "less CDeepEx": _plain({what: values - base[what] for what, values in figures[name].items()}),
                **{what: round(float(found[what].mean()), 4) for what in ("forwards", "backwards", "seconds")},
            }
            for name, found in all_found.items()
        },
        "change": _changes(subject, all_found),
    }


def _rates(jury: Jury, found: Found) -> dict[str, Tensor]:
    """Of each row, none left out: whether it was solved, and whether a constraint does not hold."""
    _, third, excess, gap = jury.constraints(found)
    violated = (excess > ROUNDING) | (gap > TOLERANCE)
    rates = {"solved": found["status"] == SOLVED, "violated": violated, "third class": third}
    return {name: values.double() for name, values in rates.items()}


def _figures(subject: Subject, found: Found) -> dict[str, Tensor]:
    """Of each row; NaN where there is no contrast, and for a way outside the latent space."""
    x = found["contrast"]
    change = (x - subject.test[: len(x)]).abs()
    figures = {
        "‖ΔI‖₁": change.sum(1),
        "neighbour": _neighbour(x, subject.training),
        "‖z − z0‖": found["distance"],
    }
    if subject.deciding is not None:
        figures["share"] = change[:, list(subject.deciding)].sum(1) / change.sum(1)
    missing = x.isnan().any(1)
    return {name: values.double().masked_fill(missing, torch.nan) for name, values in figures.items()}


def _neighbour(x: Tensor, training: Tensor) -> Tensor:
    return torch.cdist(x, training).amin(1).double()


def _changes(subject: Subject, all_found: dict[str, Found]) -> dict[str, dict[str, list[float]]]:
    """The mean change of each column: signed, of the rows of the first class asked why it is that; and its size."""
    changes: dict[str, dict[str, list[float]]] = {}
    for name in (CDEEPEX, GRADIENT):
        found = all_found[name]
        change = (found["contrast"] - subject.test[: len(found["contrast"])]).double()
        there = ~change.isnan().any(1)
        first = there & (found["classes"][:, 0] == 0)
        changes[name] = {"first": _rounded(change[first].mean(0)), "size": _rounded(change[there].abs().mean(0))}
    return changes


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _plain(values: dict[str, Tensor]) -> dict[str, Sequence[float | None]]:
    """[mean, low, high] of each."""
    return {
        name: [round(v, 4) if math.isfinite(v) else None for v in (one.mean, one.low, one.high)]
        for name, one in zip(values, intervals(torch.stack(list(values.values())).numpy()), strict=True)
    }
