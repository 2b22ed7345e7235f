"""Measuring: the contrast of every garment, by every method, for every net. Kept block by block."""

import time
from pathlib import Path

from experiments.common.kept import joined, keep, known
from experiments.contrast.entries import Entry
from experiments.contrast.fashion.asked import Question, Subject
from experiments.contrast.measure import block
from torch import Tensor

import whybox


def measure(question: Question, subject: Subject, entry: Entry, folder: Path) -> dict[str, Tensor]:
    """What is known of all garments of a question; what is not known yet is measured, and kept as it comes."""
    paths = question.paths(subject, entry, folder)
    for path, start, stop in paths:
        settings = question.settings(subject, entry, start, stop)
        if not known(path, settings):
            began = time.perf_counter()
            found = block(subject.model, question.garments[start:stop], entry, start, whybox.Contrast(*question.pair))
            keep(found, path, settings)
            seconds = time.perf_counter() - began
            print(f"{subject.name}, {question.name}, {entry.name}: {start} to {stop - 1}, {seconds:.0f} s", flush=True)
    return joined([path for path, _, _ in paths])
