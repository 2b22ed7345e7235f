"""The whole: measure what is not known yet, then write the numbers, the figure and the tables."""

import json
from pathlib import Path

import torch
from experiments.contrast.table import figure, page
from experiments.contrast.table.numbers import entries, measured, numbers
from experiments.contrast.table.subjects import subjects

import whybox

COUNT = 300


def run(count: int, folder: Path, out: Path) -> None:
    """So many test rows of each table, or all if there are fewer; measurements are kept in `folder`."""
    found = {}
    for subject in subjects(folder / "table"):
        all_found = {entry.name: measured(subject, entry, count, folder) for entry in entries(subject)}
        found[subject.name] = numbers(subject, all_found)
        print(f"{subject.name}: {found[subject.name]['rows']} rows", flush=True)
    whole = {"versions": {"whybox": whybox.__version__, "torch": torch.__version__}, "subjects": found}
    content = json.dumps(whole, ensure_ascii=False, indent=1)
    (out / "experiments/contrast_table.json").write_text(content, encoding="utf-8")
    drawn = figure.draw(found)
    drawn.savefig(out / "figures/contrast_table.webp", dpi=90, pil_kwargs={"quality": 90, "method": 6})
    page.write(whole, out / "experiments")
