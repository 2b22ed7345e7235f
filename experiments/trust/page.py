"""docs/experiments/trust.md, written from what was found."""

import importlib
from pathlib import Path
from typing import Any

from experiments.trust import PARTS

PAGE = Path(__file__).parents[2] / "docs/experiments/trust.md"
HEADER = """<!-- Written by `python -m experiments.trust` from experiments/trust/results.json. Do not edit. -->

# Trust checks with known answers

Small nets of which it is known what they go by, because it was planted or taught; a method that explains them should
show it, and a control, which never looks at the model, should not. Everything is made of scikit-learn's digits and a
seed: `python -m experiments.trust` trains the nets and measures all of this anew.

What is expected are orders, never values. An order holds where the 95 % bootstrap interval of the mean difference,
sample by sample, lies above zero for each of its pairs; beside it stands the pair that came closest to failing. Tables
give means ± half the width of their intervals. LRP ε has ε = 0.25: with ε → 0 it is input × gradient on such nets.
Gradients are taken by size where relevance should lie somewhere, since their sign says nothing about that.
"""


def write(known: dict[str, Any]) -> Path:
    """Write the page, from what has been measured so far."""
    PAGE.write_text(text(known), encoding="utf-8")
    return PAGE


def text(known: dict[str, Any]) -> str:
    """The page."""
    orders = [order for part in known.values() for order in part["orders"]]
    parts = [HEADER, f"**{sum(order['holds'] for order in orders)} of {len(orders)} expected orders came out.**\n"]
    return "\n".join(parts + [_section(name, known[name]) for name in PARTS if name in known])


def _section(name: str, part: dict[str, Any]) -> str:
    module = importlib.import_module(f"experiments.trust.{name}")
    lines = [f"## {module.TITLE}\n", f"{module.TEXT}\n", _table(part["scores"])]
    if part["facts"]:
        lines.append("".join(f"- {says}: {value:.3f}\n" for says, value in part["facts"].items()))
    if part["orders"]:
        lines.append("Expected:\n")
        lines.append("".join(map(_order, part["orders"])))
    it = part["versions"]
    lines.append(
        f"<small>{part['date']}, commit {part['commit']}, whybox {it['whybox']}, torch {it['torch']}, python "
        f"{it['python']}; {part['seconds']:.0f} s of one core.</small>\n"
    )
    return "\n".join(lines)


def _table(scores: dict[str, Any]) -> str:
    columns = list(next(iter(scores.values())))
    lines = [["", *columns], ["---"] + ["--:"] * len(columns)]
    lines += [
        [row.replace("|", r"\|"), *(_cell(found.get(column)) for column in columns)] for row, found in scores.items()
    ]
    counts = sorted({cell["of"] for found in scores.values() for cell in found.values()})
    said = " or ".join(map(str, counts))
    return (
        "".join(f"| {' | '.join(line)} |\n" for line in lines)
        + f"\nn = {said}; where fewer have a score, it is said.\n"
    )


def _cell(cell: dict[str, Any] | None) -> str:
    """Mean ± half the interval, and of how many samples, where some have no score."""
    if cell is None:
        return ""
    if not cell["n"]:
        return "none"
    spread = "" if cell["low"] is None else f" ± {(cell['high'] - cell['low']) / 2:.3f}"
    value = f"{cell['mean']:.3f}{spread}"
    return value if cell["n"] == cell["of"] else f"{value} (n = {cell['n']})"


def _order(order: dict[str, Any]) -> str:
    mark = "✓" if order["holds"] else "✗ **not so**:"
    if "found" in order:
        return f"- {mark} {order['says']}\n"
    if "largest" in order:
        return f"- {mark} {order['says']}; the largest is {order['largest']:.2g}\n"
    if order["low"] is None:
        return f"- {mark} {order['says']}; too few samples have both scores: {order['n']}\n"
    interval = f"{order['mean']:.3f} [{order['low']:.3f}, {order['high']:.3f}]"
    return f"- {mark} {order['says']}; closest: {order['closest']} = {interval}\n"
