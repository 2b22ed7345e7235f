"""Contrasts, after Feghahati et al. 2020: `python -m experiments.contrast WHAT`.

WHAT is `mnist` (about an hour): the paper's classifier, the latent models of `train_latents.py`, 500 test digits, which
are read from the folder that WHYBOX_DATA names; or `table` (a minute): rows of tables that come with scikit-learn, and
of one with planted columns. What was measured is kept as it comes: a run that was stopped goes on where it was, and one
with fewer digits uses and leaves the blocks of a larger one. Writes the numbers, the figures and the tables of
docs/experiments/contrast.md and contrast_table.md.
"""

import argparse
import json
from pathlib import Path

import torch
from experiments.common.data import ROOT, chosen, digest
from experiments.contrast import figures, nets, page
from experiments.contrast.entries import CURVES, ROWS
from experiments.contrast.measure import measure
from experiments.contrast.numbers import Jury, numbers
from experiments.contrast.table import experiment as table

import whybox

COUNTS = {"mnist": 500, "table": table.COUNT}


def main() -> None:
    """Measure what is not known yet, then write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.contrast", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=COUNTS)
    parser.add_argument("--count", type=int, help="how many digits, or rows of each table")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/contrast", help="where measurements are kept")
    parser.add_argument("--out", type=Path, help="where to write; docs for the whole, else the folder")
    asked = parser.parse_args()
    count = asked.count or COUNTS[asked.what]
    out = asked.out or (ROOT / "docs" if count == COUNTS[asked.what] else asked.folder)
    torch.set_num_threads(1)
    for folder in (asked.folder / asked.what, out / "experiments", out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    if asked.what == "table":
        table.run(count, asked.folder, out)
        return
    model = nets.classifier()
    test, labels = nets.mnist("test")
    places, weights = chosen(len(test), count), digest(model)
    dear_last = sorted((*ROWS, *CURVES), key=lambda entry: -entry.share)
    measure(model, test[places], dear_last, asked.folder, weights)
    judge, (training, _) = nets.judge(), nets.mnist("train")
    jury = Jury(model, judge, nets.autoencoders(asked.folder), training.flatten(1))
    found = {
        "versions": {"whybox": whybox.__version__, "torch": torch.__version__},
        "weights": weights,
        "accuracy": {
            "classifier": nets.accuracy(model.module, test, labels),
            "other": nets.accuracy(judge, test, labels),
            "on the digits": nets.accuracy(model.module, test[places], labels[places]),
        },
        **numbers(jury, test[places], places, asked.folder),
    }
    figures.write(model, test, labels, found, asked.folder, out / "figures")
    content = json.dumps(found, ensure_ascii=False, indent=1)
    (out / "experiments/contrast_mnist.json").write_text(content, encoding="utf-8")
    page.write(found, out / "experiments")
    print(page.outcomes(found))


if __name__ == "__main__":
    main()
