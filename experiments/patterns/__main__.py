"""PatternNet's study, after Kindermans et al. 2017: `python -m experiments.patterns` (about half an hour on a CPU).

A linear model of signal and distractor; the quality of signals in a small CNN on MNIST; image degradation on MNIST and
of ResNet-20 on CIFAR-10. Data and weights are read from the folder that WHYBOX_DATA names. What was measured is kept in
docs/experiments/patterns.json as soon as it is known: a run that was stopped goes on there. Writes the tables and the
figure of docs/experiments/patterns.md.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from experiments.common import data
from experiments.common.data import ROOT, chosen
from experiments.patterns import degradation, distractor, page, quality
from experiments.samek2017 import subjects
from torch import Tensor

import whybox

OUT = ROOT / "docs/experiments"
# Pictures that patterns are fitted to, that v is fitted to, and that are explained.
FITTED, OWN, SHOWN = 2000, 400, {"MNIST": 200, "CIFAR-10": 100}
DIGITS = 5


def mnist(folder: Path) -> tuple[whybox.Model, Tensor, Tensor]:
    """The small CNN of the region perturbation experiment, training digits, test digits."""
    subject = subjects.mnist(SHOWN["MNIST"] + 2 * OWN, folder)
    digits = whybox.datasets.load("MNIST", "train", data.data())[0]
    return subject.model, digits[chosen(len(digits), FITTED)], subject.inputs(0, len(subject.labels))


def cifar10(folder: Path) -> tuple[whybox.Model, Tensor, Tensor]:
    """ResNet-20; test pictures only, those that patterns are fitted to apart from those explained."""
    model = data.resnet(20, chunk=32)
    pictures = data.cifar10(model, folder)[0]
    pictures = pictures[chosen(len(pictures), FITTED + SHOWN["CIFAR-10"])]
    return model, pictures[:FITTED], pictures[FITTED:]


def main() -> None:
    """Measure what is not known yet, then write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.patterns", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build/patterns", help="where weights and pictures are kept"
    )
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    path = OUT / "patterns.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def once(key: str, work: Callable[[], Any]) -> None:
        if key not in known:
            known[key] = json.loads(json.dumps(work()), parse_float=lambda value: round(float(value), DIGITS))
            part = path.with_suffix(".part")
            part.write_text(json.dumps(known) + "\n")
            os.replace(part, path)
            print(key, flush=True)

    conditions = [(angle, distractor.LEVEL) for angle in distractor.ANGLES]
    conditions += [(distractor.ANGLE, level) for level in distractor.LEVELS if level != distractor.LEVEL]
    for angle, level in conditions:
        seeds = range(distractor.SEEDS)
        once(f"distractor {angle} {level}", lambda a=angle, n=level, s=seeds: [distractor.measure(a, n, k) for k in s])  # type: ignore[misc]
    for name, read in {"MNIST": mnist, "CIFAR-10": cifar10}.items():
        keys = {method: f"degradation {name} {method}" for method in degradation.METHODS}
        if f"quality {name}" in known and not set(keys.values()) - set(known):
            continue
        model, fitted_to, pictures = read(folder)
        shown = pictures[: SHOWN[name]]
        if name == "MNIST":
            own, held = pictures[len(shown) :].split(OWN)
            once(f"quality {name}", lambda f=fitted_to, o=own, h=held, m=model: quality.measure(m.module, f, o, h))  # type: ignore[misc]
        states = degradation.fits(model, fitted_to)
        for method, key in keys.items():
            once(key, lambda n=method, m=model, s=states, p=shown: degradation.measure(n, m, s, p))  # type: ignore[misc]
    page.write(known, OUT)


if __name__ == "__main__":
    main()
