"""Measuring: why this digit is not an eight. Kept block by block."""

import time
from pathlib import Path

import torch
from experiments.common.kept import keep, known
from experiments.contrast.eights.subjects import Questions, Subject, settings
from experiments.contrast.measure import NO_MAP
from torch import Tensor

import whybox
from whybox.contrast.record import SOLVED


def measure(subject: Subject, group: str, questions: Questions, folder: Path) -> None:
    """Measure what is not known yet, and keep it as it comes."""
    made_with = settings(subject, questions)
    for entry in subject.rows:
        for path, start, stop in entry.paths(len(questions.digits), folder / subject.name / group):
            if not known(path, entry.settings(made_with)):
                began = time.perf_counter()
                part = slice(start, stop)
                found = block(subject.model, questions.digits[part], questions.pair[part], entry.method, start)
                keep(found, path, entry.settings(made_with))
                seconds = time.perf_counter() - began
                print(f"{subject.name}, {group}, {entry.name}: {start} to {stop - 1}, {seconds:.0f} s", flush=True)


def block(model: whybox.Model, x: Tensor, pair: Tensor, method: whybox.Method, seed: int) -> dict[str, Tensor]:
    """What a method answers. All noise is keyed by the place of the digit: the block's beginning is the seed."""
    began = time.process_time()
    answer = method.run(model, x, whybox.Contrast(pair[:, 0], pair[:, 1]), seed=seed)
    seconds = time.process_time() - began
    relevance = answer.relevance.detach().float()
    somewhere = relevance.isfinite().flatten(1).all(1) & (relevance.abs().flatten(1).sum(1) > 0)
    found = {
        "relevance": relevance,
        "status": answer.details.get("status", torch.where(somewhere, SOLVED, NO_MAP)),
        "seconds": torch.full((len(x),), seconds / len(x)),
    }
    if "latents" in answer.details:
        found["latents"] = answer.details["latents"].float()
    return found
