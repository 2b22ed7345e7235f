"""The figure: which columns change, in a real table and in one where it is known which decide."""

from typing import Any

from experiments.contrast.table.numbers import CDEEPEX, GRADIENT
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES = {CDEEPEX: "#2166ac", GRADIENT: "#bdbdbd", "shuffled": "#b2182b"}


def draw(found: dict[str, Any]) -> Figure:
    """Bars for each column."""
    figure = Figure(figsize=(9.0, 6.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    cancer, planted = found["breast cancer"], found["planted"]
    order = sorted(range(len(cancer["columns"])), key=lambda i: -cancer["change"][CDEEPEX]["first"][i])
    for place, name in enumerate((CDEEPEX, GRADIENT)):
        _bars(left, [cancer["change"][name]["first"][i] for i in order], place, 2, STYLES[name], name)
    _columns(left, [cancer["columns"][i] for i in order])
    left.axvline(0, color="black", linewidth=0.6)
    left.set_title("Why malignant and not benign?\nmean change, standard deviations", fontsize=9)
    shown = {
        CDEEPEX: planted["change"][CDEEPEX],
        GRADIENT: planted["change"][GRADIENT],
        "shuffled": found["planted, shuffled labels"]["change"][CDEEPEX],
    }
    right.axhspan(-0.5, planted["deciding"] - 0.5, color="#fee8c8", zorder=0, label="columns that decide the class")
    for place, (name, change) in enumerate(shown.items()):
        label = f"{CDEEPEX}, shuffled labels" if name == "shuffled" else name
        _bars(right, change["size"], place, 3, STYLES[name], label)
    _columns(right, planted["columns"])
    right.set_title("Planted: columns of five causes, 1 and 2 decide\nmean size of the change", fontsize=9)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _bars(ax: Axes, values: list[float], place: int, of: int, colour: str, label: str) -> None:
    height = 0.8 / of
    where = [i + (place - (of - 1) / 2) * height for i in range(len(values))]
    ax.barh(where, values, height, color=colour, label=label)


def _columns(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
