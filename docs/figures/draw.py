"""Draw the figures of the documentation from the embedded digits model: `make figures`."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

import whybox
from whybox.plot import heat, scale_of

HERE = Path(__file__).parent
DIGIT = 342  # of the held-out digits: the mistake that the model is surest of
DPI = 200

INK, FAINT, PAPER, SLATE = "#1b1f24", "#6a737d", "#ffffff", "#d8dee4"
PASS, FAIL = "#1a7f5a", "#b45309"


def picture(ax: Axes, x: Tensor) -> None:
    """What the model saw, white on black."""
    ax.imshow(x[0, 0], cmap="gray", vmin=0, vmax=1)


def relevance_map(ax: Axes, x: Tensor, relevance: Tensor) -> None:
    """The relevance over a pale negative of the picture, on the scale of `whybox.plot`."""
    values = relevance.sum(1)[0]
    ax.imshow(0.97 - 0.25 * x[0, 0], cmap="gray", vmin=0, vmax=1)
    ax.imshow(heat(values, scale_of(values)))


def bare(ax: Axes, title: str, below: str) -> None:
    """No ticks and no frame; a title above and a line below, at the same height for all."""
    ax.set_axis_off()
    left, _, width, _ = ax.get_position().bounds
    middle = left + width / 2
    ax.figure.text(middle, 0.92, title, fontsize=11.5, color=INK, ha="center")
    ax.figure.text(middle, 0.045, below, fontsize=8.5, color=FAINT, ha="center")


def meters(ax: Axes, checks: tuple[whybox.Check, ...]) -> None:
    """Each check as a bar from 0 to twice its limit, the limit in the middle."""
    for row, check in enumerate(checks):
        y, value, passed = -row, float(check.values[0]), bool(check.passed[0])
        colour = PASS if passed else FAIL
        for width, fill in ((1.0, SLATE), (min(value / check.limit / 2, 1.0), colour)):
            shape = "round,pad=0,rounding_size=0.035"
            ax.add_patch(FancyBboxPatch((0, y), width, 0.12, shape, mutation_aspect=1, fc=fill, ec="none"))
        ax.plot([0.5, 0.5], [y - 0.06, y + 0.18], color=INK, linewidth=1)
        ax.text(0, y + 0.3, check.name, fontsize=8, color=INK)
        ax.text(1, y + 0.3, f"{value:.2g}", fontsize=8, color=colour, ha="right", weight="bold")
    ax.set(xlim=(-0.02, 1.02), ylim=(-len(checks) + 0.72, 0.62))


def readme(model: whybox.Model, x: Tensor, truth: int) -> Figure:
    """One mistake of the digits model, and the questions that whybox answers about it."""
    explanation = whybox.explain(model, x)
    first, second = explanation.predictions(0, 2)
    contrast = whybox.IntegratedGradients()(model, x, whybox.Contrast(first.index, second.index))
    assert isinstance(contrast, Tensor)
    assert isinstance(explanation.relevance, Tensor)
    figure = Figure(figsize=(10, 2.82), facecolor=PAPER)
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.3))
    figure.subplots_adjust(left=0.02, right=0.98, top=0.87, bottom=0.135, wspace=0.14)
    picture(axes[0], x)
    said = f"{first.label} ({first.probability:.0%}), or {second.label} ({second.probability:.0%})? It is a {truth}."
    bare(axes[0], "What does it see?", said)
    relevance_map(axes[1], x, explanation.relevance)
    bare(axes[1], f"Why a {first.label}?", "red speaks for it, blue against")
    relevance_map(axes[2], x, contrast)
    bare(axes[2], f"Why not a {second.label}?", f"red for {first.label}, blue for {second.label}")
    meters(axes[3], explanation.checks)
    bare(axes[3], "Should you believe it?", "what passes stays left of the mark")
    return figure


def gallery(model: whybox.Model, x: Tensor, truth: int) -> Figure:
    """The same digit explained by every method."""
    names = whybox.methods()
    figure = Figure(figsize=(9.6, 4.4), facecolor=PAPER)
    axes = figure.subplots(2, -(-len(names) // 2)).flatten()
    figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.04, wspace=0.12, hspace=0.24)
    for ax in axes:
        ax.set_axis_off()
    for ax, name in zip(axes, names, strict=False):
        relevance = whybox.method(name)(model, x)
        assert isinstance(relevance, Tensor)
        relevance_map(ax, x, relevance.expand(-1, -1, *x.shape[2:]))
        ax.set_title(name, fontsize=9.5, color=INK, family="monospace")
    return figure


def main() -> None:
    """Write the figures beside this file."""
    torch.set_num_threads(1)
    model = whybox.models.load("digits")
    inputs, labels = whybox.datasets.load("digits", split="test")
    for draw in (readme, gallery):
        figure = draw(model, inputs[DIGIT : DIGIT + 1], int(labels[DIGIT]))
        figure.savefig(HERE / f"{draw.__name__}.png", dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    main()
