"""Biased eights, after Feghahati et al. 2020: `python -m experiments.contrast eights` (about half an hour)."""

import json
from pathlib import Path
from typing import Any

import torch
from experiments.common.data import digest
from experiments.contrast import nets
from experiments.contrast.eights import figures, page
from experiments.contrast.eights.measure import measure
from experiments.contrast.eights.numbers import answers, learned, scores_of
from experiments.contrast.eights.subjects import Questions, Subject, subjects
from torch import Tensor

import whybox

COUNT = 60


def run(count: int, folder: Path, out: Path) -> None:
    """Measure what is not known yet, then write.

    Args:
        count: how many digits of other classes the biased classifier is asked about.
        folder: where measurements and the nets of the sweep are kept.
        out: whose folders `experiments` and `figures` are written into.
    """
    folder = folder / "eights"
    folder.mkdir(parents=True, exist_ok=True)
    digits, labels = nets.mnist("test")
    found: dict[str, Any] = {"versions": {"whybox": whybox.__version__, "torch": torch.__version__}, "subjects": {}}
    taken: dict[str, tuple[Tensor, dict[str, Any]]] = {}  # each classifier takes the test set once
    asked: dict[tuple[str, str], tuple[Subject, Questions]] = {}
    for subject in subjects(folder):
        if (weights := digest(subject.model)) not in taken:
            scores = scores_of(subject.model, digits)
            taken[weights] = scores, learned(subject.model, subject.bias, scores, digits, labels)
        scores, known = taken[weights]
        one = found["subjects"][subject.name] = {
            "chance": round(subject.bias.chance, 5),
            "learned": known,
            "answers": {},
        }
        for group, share in subject.groups:
            questions = Questions.of(scores, digits, labels, group, round(share * count))
            measure(subject, group, questions, folder)
            one["answers"][group] = answers(subject, group, questions, folder)
            asked[subject.name, group] = subject, questions
    figures.write(asked, found, folder, out / "figures")
    (out / "experiments/contrast_eights.json").write_text(json.dumps(found, ensure_ascii=False, indent=1), "utf-8")
    page.write(found, out / "experiments")
    print(page.shares(found))
