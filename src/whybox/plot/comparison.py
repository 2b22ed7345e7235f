"""comparison: how several methods score, as a matplotlib figure."""

from typing import TYPE_CHECKING, Any

import numpy as np

from whybox.plot.colour import FOR, STRENGTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from whybox.evaluation.comparison import Comparison

MOST_COLUMNS = 3
_COLOURS = {"beats": STRENGTH, "behind": FOR, None: (120, 120, 120), "open": (40, 40, 40)}


def comparison(comparison: "Comparison") -> Any:
    """Draw each criterion: the mean score of every method and control, with its 95 % bootstrap interval.

    Green is better than every control, red worse than one of them, black neither; the controls, hollow, stand below
    the line.

    Args:
        comparison: what to draw.

    Returns:
        the Figure; nothing is shown, and pyplot is not used.
    """
    from matplotlib.figure import Figure

    order, count = comparison.order, len(comparison.criteria)
    wide = min(count, MOST_COLUMNS)
    high = -(-count // wide)
    figure = Figure(figsize=(2.2 + 2.5 * wide, high * (0.9 + 0.24 * len(order))), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False, sharey=True)
    for column, ax in enumerate(axes.flat):
        if column < count:
            _draw(ax, comparison, column, order)
        else:
            ax.set_visible(False)
    colours = ("green: better than every control", "red: worse than one of them", "hollow: the controls")
    figure.suptitle(f"{comparison.model}, n = {comparison.n}\n{'; '.join(colours)}", fontsize="small")
    return figure


def _draw(ax: "Axes", comparison: "Comparison", column: int, order: list[int]) -> None:
    criterion = comparison.criteria[column]
    outcomes = {row["method"]: row["against_controls"] for row in comparison.table if row["column"] == column}
    for place, row in enumerate(order):
        found, control = comparison.interval(row, column), comparison.explained[row].control
        if not found.n:
            continue
        colour = tuple(part / 255 for part in _COLOURS[outcomes[comparison.names[row]]])
        if np.isfinite(found.low):
            ax.plot((found.low, found.high), (place, place), color=colour, linewidth=1.5, solid_capstyle="butt")
        ax.plot(found.mean, place, "o", color=colour, markersize=5, markerfacecolor="white" if control else colour)
    methods = sum(not comparison.explained[row].control for row in order)
    if methods < len(order):
        ax.axhline(methods - 0.5, color="0.5", linewidth=0.8)
    ax.set_yticks(range(len(order)), [comparison.names[row] for row in order], fontsize="small")
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.tick_params(axis="x", labelsize="small")
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    infill = f"\nwith {criterion.infill}" if criterion.infill else ""
    ax.set_title(f"{comparison.metrics[column]}{infill}", fontsize="small")
    ax.set_xlabel("higher is better →" if criterion.higher_is_better else "← lower is better", fontsize="small")
