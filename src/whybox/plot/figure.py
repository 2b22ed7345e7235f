"""explanation: one sample of an Explanation as a matplotlib figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.core.passage import Passage
from whybox.core.tree import as_tuple
from whybox.plot.change import Change, change_of, draw_picture_change
from whybox.plot.colour import AGAINST, FOR, STRENGTH, colour_map, heat
from whybox.plot.film import draw_film, film_of
from whybox.plot.picture import picture
from whybox.plot.scale import PERCENTILE, Scale, scale_for, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 20
# The height of a film strip, in inches.
STRIP = 1.4


def explanation(explanation: Explanation, sample: int = 0, ax: Any = None, *, opacity: float = 0.9) -> Any:
    """Draw one sample: what the model saw beside its relevance, with a colour bar that states the scale.

    A picture (n, c, h, w) is drawn with the map over it, a series (n, c, t) as lines above its relevance, anything
    else as bars of the strongest 20 features. Of several inputs the first is drawn. Where the method has kept its masks
    on the way (`NeuroMask(film=8)`), a strip shows them below a picture or series. Of a contrast in a latent space
    (`CDeepEx`) the change is drawn, red to be added and blue to be removed; for pictures also the contrast and the
    search.

    Args:
        explanation: what to draw.
        sample: which sample of the batch.
        ax: a matplotlib Axes to draw the relevance alone into; None for a new figure.
        opacity: of the map at full colour, from 0 to 1.

    Returns:
        the Figure; nothing is shown, and pyplot is not used.

    Raises:
        InputError: there is no such sample.
    """
    one = explanation.sample(sample)
    inputs, relevance = as_tuple(one.inputs)[0], as_tuple(one.relevance)[0]
    frames, change = film_of(one, 0), change_of(one, 0)
    if change is None:
        values, what = one.by_position()[0], "relevance"
        scale = scale_for(one, 0, signed=bool((explanation.by_position() < 0).any()))
    else:
        values, what = change.added, "change"
        scale = scale_of(values, signed=True)
    if inputs.ndim == 4 and change is not None:
        figure = _draw_change(one, change, scale, ax, opacity)
    elif inputs.ndim == 4 and relevance.ndim == 4:
        figure = _draw_picture(picture(inputs[0], one.domains[0]), values, scale, ax, opacity, frames)
    elif inputs.ndim == 3 and relevance.ndim == 3:
        figure = _draw_series(inputs[0], values, scale, ax, frames, what)
    else:
        figure = _draw_bars(inputs[0], values, scale, ax, what, one.passages[0] if one.passages else None)
    if ax is None:
        figure.suptitle(_title(one), fontsize="medium")
    return figure


def _title(one: Explanation) -> str:
    best = one.predictions(0, 1)
    said = f"{one.model}: {best[0].label} ({best[0].probability:.0%})\n" if best else f"{one.model}\n"
    return f"{said}{one.method['name']} of {one.target[0]}"


def _new(width: float, height: float, rows: int = 1, columns: int = 1, frames: Tensor | None = None) -> Any:
    """The axes (rows, columns) of a new figure that pyplot does not know of; frames of a film are drawn below them."""
    from matplotlib.figure import Figure

    if frames is None:
        return Figure(figsize=(width, height), layout="constrained").subplots(rows, columns, squeeze=False)
    figure = Figure(figsize=(width, height + STRIP), layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(height, STRIP))[:, 0]
    draw_film(parts[1], frames)
    return parts[0].subplots(rows, columns, squeeze=False)


def _draw_picture(
    shown: np.ndarray, values: Tensor, scale: Scale, ax: "Axes | None", opacity: float, frames: Tensor | None
) -> "Figure":
    if ax is None:
        axes = _new(7.2, 3.6, columns=2, frames=frames)
        axes[0, 0].imshow(shown, interpolation="nearest")
        axes[0, 0].set_title("what the model saw", fontsize="small")
        axes[0, 0].set_axis_off()
        ax = axes[0, 1]
        ax.set_title("its relevance", fontsize="small")
    _draw_over(ax, shown, values, scale, opacity)
    _colour_bar(ax, scale, "relevance", "R")
    return ax.get_figure(root=True)  # type: ignore[return-value]


def _draw_change(one: Explanation, change: Change, scale: Scale, ax: "Axes | None", opacity: float) -> "Figure":
    """The change over the input; without axes of one's own, beside the contrast and the search."""
    from matplotlib.figure import Figure

    if ax is None:
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        labels = one.labels or ()
        true, probe = (labels[i] if i < len(labels) else f"class {i}" for i in (change.true, change.probe))
        ax = draw_picture_change(figure, change, one, (true, probe))
    _draw_over(ax, picture(as_tuple(one.inputs)[0][0], one.domains[0]), change.added, scale, opacity)
    _colour_bar(ax, scale, "change", "change")
    return ax.get_figure(root=True)  # type: ignore[return-value]


def _draw_over(ax: "Axes", shown: np.ndarray, values: Tensor, scale: Scale, opacity: float) -> None:
    """A map over a picture in pale grey."""
    height, width = shown.shape[:2]
    grey = shown @ np.array([0.299, 0.587, 0.114])
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(0.45 + 0.55 * grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    ax.imshow(heat(values, scale), alpha=opacity, extent=extent, interpolation="nearest")
    ax.set_axis_off()


def _colour_bar(ax: "Axes", scale: Scale, says: str, letter: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    limit = scale.limit or 1.0
    colours = ScalarMappable(Normalize(-limit if scale.signed else 0, limit), colour_map(signed=scale.signed))
    extend = "neither" if scale.absolute else "both" if scale.signed else "max"
    bar = ax.get_figure().colorbar(colours, ax=ax, shrink=0.8, extend=extend)  # type: ignore[union-attr]
    where = "" if scale.absolute else f"; full colour at the\n{PERCENTILE}th percentile of |{letter}|"
    bar.set_label(f"{says}{where}", fontsize="small")
    bar.ax.tick_params(labelsize="small")


def _colours(values: Tensor, signed: bool) -> list[tuple[float, ...]]:
    ends = {True: FOR, False: AGAINST} if signed else {True: STRENGTH, False: STRENGTH}
    return [tuple(part / 255 for part in ends[value >= 0]) for value in values.tolist()]


def _draw_series(
    x: Tensor, values: Tensor, scale: Scale, ax: "Axes | None", frames: Tensor | None, what: str
) -> "Figure":
    """Lines of the channels above bars of the relevance at each position."""
    if ax is None:
        axes = _new(7.2, 4.0, rows=2, frames=frames)
        axes[0, 0].plot(x.T.float().numpy(), linewidth=1)
        axes[0, 0].set_ylabel("input")
        axes[0, 0].margins(x=0.01)
        ax = axes[1, 0]
    ax.bar(range(len(values)), torch.nan_to_num(values).tolist(), width=1.0, color=_colours(values, scale.signed))
    ax.axhline(0, color="0.6", linewidth=0.5)
    if scale.absolute:
        ax.set_ylim(0, scale.limit)
    ax.set_ylabel(f"{what} (raw)")
    ax.set_xlabel("position")
    ax.margins(x=0.01)
    return ax.get_figure(root=True)  # type: ignore[return-value]


def _draw_bars(
    x: Tensor, values: Tensor, scale: Scale, ax: "Axes | None", what: str, passage: Passage | None
) -> "Figure":
    """The strongest features, the strongest on top, each with its value in the input, or the token that it is."""
    flat, given = torch.nan_to_num(values).flatten()[: None if passage is None else len(passage)], x.flatten()
    order = flat.abs().argsort(descending=True, stable=True)[:MOST_BARS].flip(0)
    if ax is None:
        axes = _new(6.4, 1.2 + 0.26 * len(order))
        ax = axes[0, 0]
    if passage is not None:
        names = [f"{passage.pieces[i]}  ({i})".replace("$", r"\$") for i in order.tolist()]
    else:
        named = len(given) == len(flat)
        names = [f"feature {i} = {float(given[i]):.3g}" if named else f"position {i}" for i in order.tolist()]
    ax.barh(range(len(order)), flat[order].tolist(), color=_colours(flat[order], scale.signed))
    ax.set_yticks(range(len(order)), names)
    if scale.absolute:
        ax.set_xlim(0, scale.limit)
    ax.axvline(0, color="0.6", linewidth=0.5)
    left = f", strongest {len(order)} of {len(flat)}" if len(order) < len(flat) else ""
    ax.set_xlabel(f"{what} (raw{left})")
    return ax.get_figure(root=True)  # type: ignore[return-value]
