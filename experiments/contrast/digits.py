"""Contrasts of MNIST digits: the paper's classifier, the latent models of `train_latents.py`, 500 test digits."""

import json
from pathlib import Path

import torch
from experiments.common.data import chosen, digest
from experiments.contrast import figures, nets, page
from experiments.contrast.entries import CURVES, ROWS
from experiments.contrast.measure import measure
from experiments.contrast.numbers import Jury, numbers

import whybox

COUNT = 500


def run(count: int, folder: Path, out: Path) -> None:
    """So many digits, each against its runner-up; measurements are kept in `folder`."""
    model = nets.classifier()
    test, labels = nets.mnist("test")
    places, weights = chosen(len(test), count), digest(model)
    dear_last = sorted((*ROWS, *CURVES), key=lambda entry: -entry.share)
    measure(model, test[places], dear_last, folder, weights)
    judge, (training, _) = nets.judge(), nets.mnist("train")
    jury = Jury(model, judge, nets.autoencoders(folder), training.flatten(1))
    found = {
        "versions": {"whybox": whybox.__version__, "torch": torch.__version__},
        "weights": weights,
        "accuracy": {
            "classifier": nets.accuracy(model.module, test, labels),
            "other": nets.accuracy(judge, test, labels),
            "on the digits": nets.accuracy(model.module, test[places], labels[places]),
        },
        **numbers(jury, test[places], places, folder),
    }
    figures.write(model, test, labels, found, folder, out / "figures")
    content = json.dumps(found, ensure_ascii=False, indent=1)
    (out / "experiments/contrast_mnist.json").write_text(content, encoding="utf-8")
    page.write(found, out / "experiments")
    print(page.outcomes(found))
