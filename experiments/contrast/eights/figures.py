"""Figures: the shares, the sweep, and answers to why a digit is no eight; no picture of the data is shown."""

from pathlib import Path
from typing import Any

import torch
from experiments.common.kept import joined
from experiments.contrast.eights.page import SWEPT, common
from experiments.contrast.eights.subjects import Questions, Subject
from experiments.contrast.entries import Entry
from experiments.contrast.figures import ink, lay
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from whybox.plot import scale_of

Asked = dict[tuple[str, str], tuple[Subject, Questions]]
PALE = 0.5  # of the digit that lies under a map
EIGHTS = 2
# Of the kinds of subjects whose shares are drawn beside each other.
SHOWN = {
    ("biased", "others"): ("biased", "#b2182b"),
    ("biased", "eights"): ("biased, clean 8s", "#ef8a62"),
    ("plain", "others"): ("control, not biased", "#4d4d4d"),
}
COLOURS = ("#b2182b", "#2166ac", "#1b7837", "#762a83")


def write(asked: Asked, found: dict[str, Any], folder: Path, out: Path) -> None:
    """All of them, as WebP."""
    figures = {"shares": shares(found["subjects"]), "sweep": sweep(found["subjects"]), "answers": films(asked, folder)}
    for name, figure in figures.items():
        figure.savefig(out / f"contrast_eights_{name}.webp", dpi=90, pil_kwargs={"quality": 90, "method": 6})


def shares(subjects: dict[str, Any]) -> Figure:
    """The share in the square for each method, biased and control, with chance as a line."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    ax = figure.subplots()
    for number, ((subject, group), (said, colour)) in enumerate(SHOWN.items()):
        rows = subjects[subject]["answers"][group]
        places = [place + 0.22 * (number - 1) for place in range(len(rows))]
        _points(ax, [row["share"] for row in rows.values()], places, colour, said, flat=True)
    _plain(ax)
    ax.axvline(subjects["biased"]["chance"], color="0.5", lw=1, ls=":", label="chance")
    ax.set_yticks(range(len(rows)), list(rows), fontsize=9)
    ax.invert_yaxis()
    ax.set_xlim(0)
    ax.set_xlabel("share of |ΔI| or |R| in the square", fontsize=9)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def sweep(subjects: dict[str, Any]) -> Figure:
    """For each size of the square: what the classifiers learned, and the shares, against its grey."""
    swept = {name: one for name, one in subjects.items() if name.startswith(SWEPT)}
    some, methods = list(swept.values()), common(swept)
    sides = sorted({one["learned"]["side"] for one in some}, reverse=True)
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.subplots(2, len(sides), sharey="row", sharex=True, squeeze=False)
    for (upper, lower), side in zip(axes.T, sides, strict=True):
        here = [one for one in some if one["learned"]["side"] == side]
        greys = [one["learned"]["grey"] for one in here]
        lines = {"eights recognised": "clean 8s recognised", "others with the square called 8": "others called 8"}
        for colour, (name, said) in zip(COLOURS, lines.items(), strict=False):
            _points(upper, [one["learned"][name] for one in here], greys, colour, said)
        for colour, name in zip(COLOURS, methods, strict=False):
            _points(lower, [one["answers"]["others"][name]["share"] for one in here], greys, colour, name)
        lower.axhline(here[0]["chance"], color="0.5", lw=1, ls=":", label="chance")
        upper.set_title(f"{side} × {side} pixels of 28", fontsize=9)
        upper.set_ylim(-0.02, 1.02)
        lower.set_ylim(0)
        lower.set_xlabel("grey of the square", fontsize=9)
        _plain(upper)
        _plain(lower)
    axes[0, 0].set_ylabel("share of test digits", fontsize=9)
    axes[1, 0].set_ylabel("share of |ΔI| or |R| in the square", fontsize=9)
    for row in axes:
        row[-1].legend(fontsize=8, frameon=False)
    return figure


def films(asked: Asked, folder: Path) -> Figure:
    """A column for each digit: G(z0) and CDeepEx's G(z_e), then what each method says, on G(z0)."""
    subject = asked["biased", "others"][0]
    columns = [column for group in ("others", "eights") for column in _columns(asked["biased", group], group, folder)]
    names = [
        "G(z₀)",
        "CDeepEx\nG(zₑ)",
        *(entry.name.replace(", ", "\n").replace(" of ", " of\n") for entry in _drawn(subject)),
    ]
    figure = Figure(figsize=(0.9 + 0.92 * len(columns), 0.4 + 0.98 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for place, (title, start, end, maps) in enumerate(columns):
        axes[0, place].set_title(title, fontsize=8)
        ink(axes[0, place], start)
        ink(axes[1, place], end)
        for ax, relevance in zip(axes[2:, place], maps, strict=True):
            ink(ax, PALE * start)
            lay(ax, -relevance, scale_of([relevance], signed=True))
            ax.add_patch(Rectangle((-0.5, -0.5), subject.bias.side, subject.bias.side, fill=False, lw=0.6, ec="0.4"))
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, fontsize=7)
    return figure


def _drawn(subject: Subject) -> list[Entry]:
    """All methods but the control."""
    return [entry for entry in subject.rows if entry.name != "random map"]


def _columns(
    asked: tuple[Subject, Questions], group: str, folder: Path
) -> list[tuple[str, Tensor, Tensor, list[Tensor]]]:
    """A title, G(z0), G(z_e) and the map of each method, for some digits that all methods were asked about."""
    subject, questions = asked
    count, home = len(questions.digits), folder / subject.name / group
    known = [joined([path for path, _, _ in entry.paths(count, home)]) for entry in _drawn(subject)]
    shared = min(len(found["relevance"]) for found in known)
    classes = questions.pair[:shared, 0].tolist()
    rows = list(range(EIGHTS)) if group == "eights" else [classes.index(one) for one in sorted(set(classes))]
    z = known[0]["latents"][rows]
    pictures = subject.rows[0].method.latent.decode(z.flatten(0, 1)).view(len(rows), 2, 28, 28)  # type: ignore[attr-defined]
    what = "an 8:\n" if group == "eights" else ""
    return [
        (f"{what}why {classes[row]}\nand not 8?", start, end, [found["relevance"][row, 0] for found in known])
        for row, (start, end) in zip(rows, pictures.detach(), strict=True)
    ]


def _points(
    ax: Axes, values: list[list[float]], places: list[float], colour: str, label: str, *, flat: bool = False
) -> None:
    """Means with their intervals; lying for a list of methods, else a line over the places."""
    mean, low, high = torch.tensor([value[:3] for value in values], dtype=torch.float64).T
    errors = torch.stack((mean - low, high - mean)).clamp_min(0).numpy()
    if flat:
        ax.errorbar(mean, places, xerr=errors, fmt="o", ms=4, color=colour, label=label)
    else:
        ax.errorbar(places, mean, yerr=errors, fmt="o-", ms=4, color=colour, label=label)


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
