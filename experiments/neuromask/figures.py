"""The paper's Figures 2, 3 and 4, with the pictures or without them.

The pictures are no part of the documentation; without them, what would show them (the masked picture, and the edges) is
left out.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy
from experiments.neuromask.entries import DRAWN, FILM, MOVED, NEUROMASK, OTHER, RANDOM, ROWS
from experiments.neuromask.measure import other_class
from experiments.neuromask.numbers import Found, load
from experiments.neuromask.subjects import Subject
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from whybox.core.reference import Black
from whybox.plot import Scale, heat, picture, scale_of

FAINT = 0.05  # masks that stay below are drawn faintly
MANY = 8  # pictures in Figure 2
SHOWS_THE_PICTURE = ("edges",)
NOT_DRAWN = (RANDOM, MOVED)


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a subject: its first pictures and what was found of them."""

    subject: Subject
    inputs: Tensor
    known: dict[str, Found]

    @classmethod
    def of(cls, subject: Subject, folder: Path) -> "Drawn":
        """Read what is drawn."""
        known = {one.name: load(subject, one, folder) for one in (*ROWS, OTHER, FILM)}
        return cls(subject, subject.inputs(0, min(MANY, subject.count)), known)

    def shown(self, number: int, mask: Tensor | None = None) -> numpy.ndarray:
        """A picture, under a mask (h, w) if there is one."""
        x, model = self.inputs[number], self.subject.model
        if mask is not None:
            black = Black().fill(x[None], model.domain_of(x[None]), [])[0]
            x = black + (x - black) * mask.to(x.dtype)
        return picture(x, model.domain_of(x[None]), model.preprocess)

    def explained(self, number: int, *, other: bool = False) -> str:
        """The class that is explained, or the other one."""
        labels = self.subject.model.labels or ()
        index = int(self.subject.model(self.inputs[number : number + 1]).argmax())
        return labels[other_class(index, len(labels)) if other else index].split(",")[0]


def write(drawn: list[Drawn], out: Path, *, pictures: bool) -> None:
    """Figures 2, 3 and 4, as WebP."""
    figures = {2: masks(drawn[0], pictures), 3: methods(drawn, pictures), 4: film(drawn, pictures)}
    for number, figure in figures.items():
        figure.savefig(out / f"neuromask_{number}.webp", dpi=90, pil_kwargs={"quality": 85, "method": 6})


def masks(one: Drawn, pictures: bool) -> Figure:
    """Figure 2: pictures, their masks, what those leave, as bright as can be; and masks for a class that it is not."""
    count = min(MANY, len(one.inputs), *(len(one.known[entry.name]["map"]) for entry in (NEUROMASK, OTHER)))
    rows = ["picture", "mask", "what it\nleaves", "mask of\nanother class"]
    if not pictures:
        rows = [rows[1], rows[3]]
    figure = Figure(figsize=(1.2 + 1.15 * count, 1.5 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for number, column in enumerate(axes.T):
        for ax, entry in ((column[-3 if pictures else 0], NEUROMASK), (column[-1], OTHER)):
            found = one.known[entry.name]
            _map(ax, found["map"][number], _visible(found["map"][number]))
            whole, kept = (float(found[name][number]) for name in ("whole", "dimmed"))
            ax.set_title(f"{one.explained(number, other=entry is OTHER)}\n{whole:.2f} → {kept:.2f}", fontsize=8)
        if pictures:
            left = one.shown(number, one.known[NEUROMASK.name]["map"][number])
            column[0].imshow(one.shown(number), interpolation="nearest")
            column[2].imshow(left / left.max().clip(1e-6), interpolation="nearest")
    _names(axes[:, 0], rows)
    for ax in axes.flat:
        _bare(ax)
    return figure


def methods(drawn: list[Drawn], pictures: bool) -> Figure:
    """Figure 3: a row for each picture, a column for each method; every map on its own scale."""
    names = [row.name for row in ROWS if row not in NOT_DRAWN and not (row.name in SHOWS_THE_PICTURE and not pictures)]
    columns = ["picture", *names] if pictures else names
    lines = [
        (one, number) for one in drawn for number in range(min(DRAWN, *(len(one.known[name]["map"]) for name in names)))
    ]
    figure = Figure(figsize=(1.15 * len(columns) + 0.8, 1.17 * len(lines) + 0.5), layout="constrained")
    axes = figure.subplots(len(lines), len(columns), squeeze=False)
    for line, (one, number) in zip(axes, lines, strict=True):
        for ax, name in zip(line, columns, strict=True):
            if name == "picture":
                ax.imshow(one.shown(number), interpolation="nearest")
            else:
                _map(ax, one.known[name]["map"][number])
            _bare(ax)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name.replace(", ", ",\n").replace(" ", "\n"), fontsize=8)
    _names(axes[:, 0], [one.explained(number).replace(" ", "\n") for one, number in lines])
    return figure


def film(drawn: list[Drawn], pictures: bool) -> Figure:
    """Figure 4: a row for each picture, from the start of the search to its end."""
    lines = [(one, number) for one in drawn for number in range(min(2, len(one.inputs)))]
    frames = drawn[0].known[FILM.name]["film"].shape[1]
    width = frames + pictures
    figure = Figure(figsize=(1.15 * width + 0.8, 1.17 * len(lines) + 0.4), layout="constrained")
    axes = figure.subplots(len(lines), width, squeeze=False)
    for line, (one, number) in zip(axes, lines, strict=True):
        strip = one.known[FILM.name]["film"][number]
        for ax, mask in zip(line, strip, strict=False):
            _map(ax, mask, _visible(strip[-1]))
        if pictures:
            line[-1].imshow(one.shown(number), interpolation="nearest")
        for ax in line:
            _bare(ax)
    for frame, ax in enumerate(axes[0, :frames]):
        ax.set_title(f"{frame / (frames - 1):.0%}", fontsize=8)
    _names(axes[:, 0], [one.explained(number).replace(" ", "\n") for one, number in lines])
    return figure


def _map(ax: Axes, values: Tensor, scale: Scale | None = None) -> None:
    """A map on its own scale, unless another is given."""
    ax.imshow(heat(values, scale or scale_of(values)), interpolation="nearest")


def _visible(mask: Tensor) -> Scale:
    """The scale of a mask, but for one that is empty, whose rounding would be drawn as if it were full."""
    scale = scale_of(mask)
    return replace(scale, limit=max(scale.limit, FAINT))


def _names(axes: numpy.ndarray, names: list[str]) -> None:
    """Names at the left, since the axes themselves are not drawn."""
    for ax, name in zip(axes, names, strict=True):
        ax.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")


def _bare(ax: Axes) -> None:
    """A thin frame and nothing else."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(color="0.8", linewidth=0.5)
