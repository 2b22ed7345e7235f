"""The whole: measure what is not known yet, then write the numbers, the figures and the tables."""

import json
from pathlib import Path
from typing import Any

import torch
from experiments.common.data import digest
from experiments.contrast.fashion import figures, page
from experiments.contrast.fashion.asked import (
    CDEEPEX,
    COMPARED,
    COMPARISONS,
    FASHION,
    FEWER,
    METHODS,
    Question,
    Subject,
    question,
    subjects,
)
from experiments.contrast.fashion.measure import measure
from experiments.contrast.fashion.nets import ARCHITECTURES, garments
from experiments.contrast.fashion.numbers import (
    Each,
    Found,
    agreement,
    failed,
    less,
    measures,
    missed,
    moved,
    of,
    outcomes,
    single,
)
from experiments.contrast.fashion.page import GENERAL
from experiments.contrast.nets import accuracy
from torch import Tensor

import whybox

PAIRS = ((0, 6), (1, 4))
COUNT = 40


def run(count: int, folder: Path, out: Path) -> None:
    """So many garments for each pair of classes; measurements are kept in `folder`."""
    x, labels = garments("test")
    nets = subjects(*ARCHITECTURES)
    compared = [one for one in nets if one.architecture in COMPARED]
    asked = [question(pair, compared, x, labels, count) for pair in PAIRS]
    found = {
        "versions": {"whybox": whybox.__version__, "torch": torch.__version__},
        "latent": FASHION.digest,
        "garments": count,
        "nets": {one.name: _net(one, x, labels) for one in nets},
        "questions": {one.name: _answers(one, nets, folder) for one in asked},
    }
    figures.write(asked, nets, lambda *what: measure(*what, folder), out / "figures")
    content = json.dumps(found, ensure_ascii=False, indent=1)
    (out / "experiments/contrast_fashion.json").write_text(content, encoding="utf-8")
    page.write(found, out / "experiments")


def _net(subject: Subject, x: Tensor, labels: Tensor) -> dict[str, Any]:
    right = (subject.scores(x).argmax(1) == labels).double()
    return {
        "weights": digest(subject.model),
        "parameters": sum(value.numel() for value in subject.model.module.parameters()),
        "accuracy": accuracy(subject.model.module, x, labels),
        "classes": {str(c): round(float(right[labels == c].mean()), 4) for pair in PAIRS for c in pair},
    }


def _answers(question: Question, nets: list[Subject], folder: Path) -> dict[str, Any]:
    """Of each method: what became of the garments, how general the change is, and the differences.

    The net that is but an ablation is asked by CDeepEx alone.
    """
    answers: dict[str, Any] = {"places": question.places}
    found: dict[str, dict[str, Found]] = {}
    for entry in METHODS:
        some = [one for one in nets if entry is CDEEPEX or one.architecture in COMPARED]
        known = found[entry.name] = {one.name: measure(question, one, entry, folder) for one in some}
        result = {one.name: outcomes(question, one, known[one.name]) for one in some}
        each: dict[str, Each] = {one.name: measures(question, one, known[one.name], some) for one in some}
        moved(each, some)
        architectures = list(dict.fromkeys(one.architecture for one in some))
        answers[entry.name] = {
            "outcomes": {name: of(result, name) for name in architectures},
            "generality": {name: of(each, name) for name in architectures},
            "less": {
                f"{first} − {second}": {
                    name: less(each, first, second, name)
                    for name in next(iter(each.values()))
                    if not name.startswith("to ")
                }
                for first, second in COMPARISONS
                if first in architectures
            },
            "single": {name: single(each, *COMPARED, name) for name in GENERAL},
            "agreement": agreement({name: one["relevance"] for name, one in known.items()}),
            "failures": {one.name: failed(question, one, known[one.name]) for one in some},
        }
    answers["missed"] = missed(found[FEWER.name], found[CDEEPEX.name])
    return answers
