"""docs/benchmarks.md, written from benchmarks/results/*.json: `python -m benchmarks.table`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT
from benchmarks.sections.accuracy import integrated, shapley
from benchmarks.sections.contrasting import contrast
from benchmarks.sections.cost import memory, speed, start_up, stream
from benchmarks.sections.evaluating import evaluation
from benchmarks.sections.hiding import perturbation
from benchmarks.sections.lrp import backprop, recurrence
from benchmarks.sections.masks import masks

PAGE = ROOT / "docs/benchmarks.md"
HEADER = """<!-- Written by `python -m benchmarks.table` from benchmarks/results/*.json. Do not edit. -->

# Benchmarks

`make bench` measures everything anew, with `WHYBOX_DATA` set to the folder of real data. Each benchmark runs in a
process of its own on one thread; contenders take turns (A B A B …), five rounds after a warm-up; seconds are medians,
and a ratio is the median over the rounds of one contender's seconds over the other's in the same round. The machine's
cores are shared, so ratios are given by the wall clock and by processor time, which other work on the machine disturbs
less. Captum and the plain loops run at the batch size that was fastest for them. *Evaluations* are samples sent
forward and backward; they do not depend on the machine.
"""


def write() -> Path:
    """Write the page, from what has been measured so far."""
    parts = [HEADER]
    for name, section in SECTIONS.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            content = json.loads(file.read_text())
            parts.append(f"{section(content['results'], content['settings'])}\n{footer(content)}")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(parts))
    return PAGE


def footer(content: dict[str, Any]) -> str:
    """On what it was measured."""
    it = content["environment"]
    versions = ", ".join(
        f"{name} {it[name]}" for name in ("whybox", "torch", "captum", "zennit", "quantus", "python") if it.get(name)
    )
    return (
        f"<small>{it['date']}, commit {it['commit']}, {versions}; {it['cores']} shared cores ({it['processor']}), one "
        f"thread, mean load of the machine {it['load']}. All numbers and settings: "
        f"`benchmarks/results/{content['benchmark']}.json`.</small>\n"
    )


SECTIONS: dict[str, Callable[[dict[str, Any], dict[str, Any]], str]] = {
    "stream": stream,
    "integrated_gradients": integrated,
    "shapley": shapley,
    "memory": memory,
    "speed": speed,
    "backprop": backprop,
    "recurrence": recurrence,
    "perturbation": perturbation,
    "masks": masks,
    "contrast": contrast,
    "evaluation": evaluation,
    "start_up": start_up,
}


if __name__ == "__main__":
    print(write())
