"""The figures, from what the generator draws: contrasts and mean changes. No picture of the data is shown."""

from collections.abc import Callable
from pathlib import Path

import torch
from experiments.contrast.entries import Entry
from experiments.contrast.fashion.asked import BOUNDARY, CDEEPEX, COMPARED, FASHION, NAMES, Question, Subject
from experiments.contrast.figures import Drawn, films, ink, lay
from matplotlib.figure import Figure
from torch import Tensor

from whybox.plot import scale_of

# So many garments of each question are drawn, the first of those measured: none is picked by hand.
SHOWN = 4

Lookup = Callable[[Question, Subject, Entry], dict[str, Tensor]]
"""What was measured."""


def write(questions: list[Question], subjects: list[Subject], found: Lookup, out: Path) -> None:
    """All of them, as WebP; the first nets of the two architectures compared stand for the others."""
    first = [next(one for one in subjects if one.architecture == name) for name in COMPARED]
    rows = {
        "nets": [(one, CDEEPEX, one.architecture) for one in first],
        "constraints": [(first[0], entry, entry.name.partition(",")[0]) for entry in (CDEEPEX, BOUNDARY)],
    }
    figures = {
        name: films([(said, drawn(questions, one, entry, found)) for one, entry, said in parts])
        for name, parts in rows.items()
    }
    figures["mean"] = means(questions, subjects, found)
    for name, figure in figures.items():
        figure.savefig(out / f"contrast_fashion_{name}.webp", dpi=90, pil_kwargs={"quality": 90, "method": 6})


def drawn(questions: list[Question], subject: Subject, entry: Entry, found: Lookup) -> Drawn:
    """The first garments of each question."""
    known = [found(question, subject, entry) for question in questions]
    z, x = (torch.cat([one[name][:SHOWN] for one in known]) for name in ("latents", "contrast"))
    pictures = FASHION.decode(z.flatten(0, 1)).view(len(z), 2, 28, 28)
    pair = torch.tensor([question.pair for question in questions]).repeat_interleave(SHOWN, 0)
    return Drawn(pictures, pair, subject.scores(x).softmax(1), NAMES)


def means(questions: list[Question], subjects: list[Subject], found: Lookup) -> Figure:
    """A row for each question, a column for each net: the mean change, on half of the mean G(z0); one scale a row."""
    figure = Figure(figsize=(0.5 + 1.2 * len(subjects), 0.3 + 1.4 * len(questions)), layout="constrained")
    axes = figure.subplots(len(questions), len(subjects), squeeze=False)
    for question, row in zip(questions, axes, strict=True):
        known = [found(question, subject, CDEEPEX) for subject in subjects]
        changes = [-one["relevance"][:, 0].nanmean(0) for one in known]
        scale = scale_of(changes, signed=True)
        drawn = FASHION.decode(known[0]["latents"][:, 0])[:, 0].mean(0)
        for ax, change in zip(row, changes, strict=True):
            ink(ax, 0.3 * drawn)
            lay(ax, change, scale)
        row[0].set_ylabel(question.name, fontsize=8)
    for ax, subject in zip(axes[0], subjects, strict=True):
        ax.set_title(subject.name, fontsize=8)
    return figure
