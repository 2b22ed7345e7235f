"""Contrasts of digits, after Feghahati et al. 2020: `python -m experiments.contrast mnist` (about an hour) or `eights`.

The paper's classifier, the latent models of `train_latents.py`; 500 test digits, or 60 that are asked why they are no
eights. The data are read from the folder that WHYBOX_DATA names. What was measured is kept as it comes: a run that was
stopped goes on where it was, and one with fewer digits uses and leaves the blocks of a larger one. Writes the numbers,
the figures and the tables of docs/experiments/contrast.md or contrast_eights.md.
"""

import argparse
import json
from pathlib import Path

import torch
from experiments.common.data import ROOT, chosen, digest
from experiments.contrast import figures, nets, page
from experiments.contrast.eights import command as eights
from experiments.contrast.entries import CURVES, ROWS
from experiments.contrast.measure import measure
from experiments.contrast.numbers import Jury, numbers

import whybox

COUNT = {"mnist": 500, "eights": eights.COUNT}


def main() -> None:
    """Measure what is not known yet, then write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.contrast", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=COUNT)
    parser.add_argument("--count", type=int, help="how many digits; 500, or 60 for eights")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/contrast", help="where measurements are kept")
    parser.add_argument("--out", type=Path, help="where to write; docs for the whole, else the folder")
    asked = parser.parse_args()
    count = asked.count or COUNT[asked.what]
    out = asked.out or (ROOT / "docs" if count == COUNT[asked.what] else asked.folder)
    torch.set_num_threads(1)
    for folder in (asked.folder / asked.what, out / "experiments", out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    (eights.run if asked.what == "eights" else mnist)(count, asked.folder, out)


def mnist(count: int, kept: Path, out: Path) -> None:
    """Contrasts of so many digits with the runner-up; what was measured is kept in a folder."""
    model = nets.classifier()
    test, labels = nets.mnist("test")
    places, weights = chosen(len(test), count), digest(model)
    dear_last = sorted((*ROWS, *CURVES), key=lambda entry: -entry.share)
    measure(model, test[places], dear_last, kept, weights)
    judge, (training, _) = nets.judge(), nets.mnist("train")
    jury = Jury(model, judge, nets.autoencoders(kept), training.flatten(1))
    found = {
        "versions": {"whybox": whybox.__version__, "torch": torch.__version__},
        "weights": weights,
        "accuracy": {
            "classifier": nets.accuracy(model.module, test, labels),
            "other": nets.accuracy(judge, test, labels),
            "on the digits": nets.accuracy(model.module, test[places], labels[places]),
        },
        **numbers(jury, test[places], places, kept),
    }
    figures.write(model, test, labels, found, kept, out / "figures")
    content = json.dumps(found, ensure_ascii=False, indent=1)
    (out / "experiments/contrast_mnist.json").write_text(content, encoding="utf-8")
    page.write(found, out / "experiments")
    print(page.outcomes(found))


if __name__ == "__main__":
    main()
