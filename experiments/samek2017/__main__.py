"""Region perturbation of pictures, after Samek et al. 2017: `python -m experiments.samek2017` (about half an hour).

SqueezeNet on 200 photographs, ResNet-56 on 200 pictures of CIFAR-10 and a small CNN on 500 digits of MNIST. Data and
weights are read from the folder that WHYBOX_DATA names; `--data digits` needs none and takes seconds. What was
measured is kept as it comes: a run that was stopped goes on where it was. Writes the numbers, the figures and the
tables of docs/experiments/samek2017.md.
"""

import argparse
import json
from pathlib import Path

import torch
from experiments.common.data import ROOT
from experiments.samek2017 import page
from experiments.samek2017.measure import ABLATIONS, COMPARED, MAIN, measure
from experiments.samek2017.numbers import numbers
from experiments.samek2017.subjects import SUBJECTS

import whybox

COUNTS = {"imagenet": 200, "cifar10": 200, "mnist": 500, "mnist_signed": 500, "digits": 300}
ABLATED = {"imagenet": 25, "cifar10": 100, "mnist": 250, "mnist_signed": 250}  # of the first so many pictures
WHOLE = [name for name in SUBJECTS if name != "digits"]


def main() -> None:
    """Measure what is not known yet, then write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.samek2017", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", choices=SUBJECTS, default=WHOLE)
    parser.add_argument("--count", type=int, help="how many pictures of each; by default 200, 200, 500 and 500")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/samek2017", help="where measurements are kept")
    parser.add_argument("--out", type=Path, help="where to write; docs/experiments for the whole, else the folder")
    asked = parser.parse_args()
    whole = asked.data == WHOLE and asked.count is None
    out = asked.out or (ROOT / "docs/experiments" if whole else asked.folder)
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    subjects = [SUBJECTS[name](asked.count or COUNTS[name], asked.folder) for name in asked.data]
    ablated = [
        subject.first(ABLATED.get(name, asked.count or COUNTS[name]))
        for name, subject in zip(asked.data, subjects, strict=True)
    ]
    for some, entries in ((subjects, MAIN), (ablated, ABLATIONS)):
        for subject in some:
            measure(subject, entries, asked.folder)
    found = [numbers(subject, MAIN, asked.folder) for subject in subjects]
    for one, subject in zip(found, ablated, strict=True):
        one["ablations"] = numbers(subject, COMPARED, asked.folder)
    versions = {"whybox": whybox.__version__, "torch": torch.__version__}
    content = json.dumps({"versions": versions, "found": found}, ensure_ascii=False)
    (out / "samek2017.json").write_text(content, encoding="utf-8")
    page.write(found, out)
    print(page.order(found))


if __name__ == "__main__":
    main()
