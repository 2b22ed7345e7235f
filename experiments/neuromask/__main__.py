"""NeuroMask against other explanations, after Alzantot et al. 2019: `python -m experiments.neuromask` (an hour).

ResNet-20 on 500 pictures of CIFAR-10 and SqueezeNet on 50 photographs. Data and weights are read from the folder that
WHYBOX_DATA names; `--data digits` needs none and takes seconds. What was measured is kept as it comes: a run that was
stopped goes on where it was. Writes the numbers, the figures and the tables of docs/experiments/neuromask.md; the
figures with the pictures, which are no part of the documentation, lie in the folder of the measurements.
"""

import argparse
import json
from pathlib import Path

import torch
from experiments.common.data import ROOT
from experiments.neuromask import figures, page
from experiments.neuromask.measure import measure
from experiments.neuromask.numbers import numbers
from experiments.neuromask.subjects import SUBJECTS

import whybox

COUNTS = {"cifar10": 500, "imagenet": 50, "digits": 12}
WHOLE = [name for name in SUBJECTS if name != "digits"]


def main() -> None:
    """Measure what is not known yet, then write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.neuromask", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", choices=SUBJECTS, default=WHOLE)
    parser.add_argument("--count", type=int, help="how many pictures of each; by default 500 and 50")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/neuromask", help="where measurements are kept")
    parser.add_argument("--out", type=Path, help="where to write; docs for the whole, else the folder")
    asked = parser.parse_args()
    whole = asked.data == WHOLE and asked.count is None
    out = asked.out or (ROOT / "docs" if whole else asked.folder)
    torch.set_num_threads(1)
    for folder in (asked.folder, out / "experiments", out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    subjects = [SUBJECTS[name](asked.count or COUNTS[name], asked.folder) for name in asked.data]
    for subject in subjects:
        measure(subject, asked.folder)
    found = [numbers(subject, asked.folder) for subject in subjects]
    versions = {"whybox": whybox.__version__, "torch": torch.__version__}
    content = json.dumps({"versions": versions, "found": found}, ensure_ascii=False, indent=1)
    (out / "experiments/neuromask.json").write_text(content, encoding="utf-8")
    drawn = [figures.Drawn.of(subject, asked.folder) for subject in subjects]
    figures.write(drawn, out / "figures", pictures=False)
    figures.write(drawn, asked.folder, pictures=True)
    page.write(found, out / "experiments")
    print(page.rows(found[0]))


if __name__ == "__main__":
    main()
