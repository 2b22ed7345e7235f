"""Integrated gradients: how many gradients until the relevance sums to what it should, and how good the map is then.

whybox stops each sample at its own completeness gap of 1 %; Captum is given the smallest number of Gauss–Legendre
steps with which its median gap over the same 100 images is no larger. Since a rule that stops by the gap might stop
by luck, the maps themselves are compared too, with one of 512 steps by a plain loop.

Gradients are counted, not timed, so all cores work at this. Every answer is kept in .benchmarks/, under a name that
contains a digest of the code that gave it; a run that was interrupted goes on where it was.
"""

import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any, cast

import numpy as np
import scipy.stats
import torch
from captum import attr
from torch import Tensor

from benchmarks import raw
from benchmarks.measure import CACHE, ROOT, Counted, quantiles, save
from benchmarks.subjects import SUBJECTS, Subject
from whybox import IntegratedGradients

IMAGES = 100
LADDER = {
    "SqueezeNet": (8, 12, 16, 24, 32, 48, 64),
    "ResNet-20": (16, 32, 48, 64, 96, 128, 160, 192, 256),
}
LOOKED_AT = range(0, IMAGES, 10)
REFERENCE_STEPS = 512
CAPTUM_BATCH = {"SqueezeNet": 4, "ResNet-20": 32}


def main() -> None:
    """Measure both models."""
    workers = min(4, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        results = {name: measure(name, pool) for name in SUBJECTS}
    settings = {
        "images": IMAGES,
        "whybox": repr(IntegratedGradients()),
        "captum": "IntegratedGradients, gausslegendre, baseline 0",
        "captum's ladder of steps": LADDER,
        "captum's internal_batch_size": CAPTUM_BATCH,
        "reference": f"midpoint rule with {REFERENCE_STEPS} steps on {len(LOOKED_AT)} of the images",
    }
    save("integrated_gradients", settings, results)


def measure(name: str, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """The gaps of whybox, of Captum up the ladder until it reaches the same median, and the maps of each."""

    def ask(contender: str) -> list[dict[str, Any]]:
        return list(pool.map(answer, [name] * IMAGES, [contender] * IMAGES, range(IMAGES)))

    ours = ask("whybox")
    goal = quantiles(gap["gap"] for gap in ours)["median"]
    ladder = {}
    for steps in LADDER[name]:
        ladder[steps] = summary(ask(f"captum {steps}"))
        if ladder[steps]["gap"]["median"] <= goal:
            break
    whybox = summary(ours)
    budget = round(whybox["gradients"]["mean"])
    maps = {
        "whybox": "whybox",
        "Captum, as many gradients": f"captum {budget}",
        "Captum, the same median gap": f"captum {steps}",
    }
    return {
        "whybox": whybox,
        "captum": ladder,
        "captum_reaches_the_gap": ladder[steps]["gap"]["median"] <= goal,
        "captum_steps": steps,
        "gradients_ratio": whybox["gradients"]["mean"] / steps,
        "maps": {label: quality(name, contender, pool) for label, contender in maps.items()},
    }


def summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Gaps and gradients over the images."""
    return {
        "gap": quantiles(one["gap"] for one in answers),
        "within_1_percent": sum(one["gap"] <= 0.01 for one in answers) / len(answers),
        "gradients": quantiles(one["gradients"] for one in answers),
        "forwards_beside": quantiles(one["forwards"] - one["gradients"] for one in answers),
    }


def quality(name: str, contender: str, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """How far this contender's maps are from the reference."""
    images = list(LOOKED_AT)
    answers = list(pool.map(answer, [name] * len(images), [contender] * len(images), images))
    references = list(pool.map(answer, [name] * len(images), ["reference"] * len(images), images))
    distances, correlations = [], []
    for pair in zip(answers, references, strict=True):
        ours, reference = (np.load(one["map"]) for one in pair)
        distances.append(float(np.linalg.norm(ours - reference) / np.linalg.norm(reference)))
        correlations.append(float(scipy.stats.spearmanr(ours.ravel(), reference.ravel()).statistic))
    return {
        "contender": contender,
        "gradients": quantiles(one["gradients"] for one in answers),
        "relative_distance": quantiles(distances),
        "rank_correlation": quantiles(correlations),
    }


# --- In the workers


def answer(name: str, contender: str, image: int) -> dict[str, Any]:
    """Gap and cost of one contender on one image, from the cache where it is known."""
    file = place(name, contender, image)
    if not file.exists():
        relevance, result = compute(name, contender, image)
        file.parent.mkdir(parents=True, exist_ok=True)
        if image in LOOKED_AT:
            np.save(file.with_suffix(".npy"), relevance.numpy())
        file.with_suffix(".part").write_text(json.dumps(result))
        file.with_suffix(".part").rename(file)
    return {**json.loads(file.read_text()), "map": file.with_suffix(".npy")}


def compute(name: str, contender: str, image: int) -> tuple[Tensor, dict[str, Any]]:
    """The map, its gap and what it cost."""
    subject = subject_of(name)
    x = subject.images(image)
    with torch.no_grad():
        output = subject.module(x)
        target = int(output.argmax())
        difference = (output - subject.module(torch.zeros_like(x)))[0, target].double()
    counted = Counted(subject.module).eval()
    kind, _, steps = contender.partition(" ")
    if kind == "whybox":
        relevance = cast(Tensor, IntegratedGradients()(counted, x, target))
    elif kind == "captum":
        relevance = attr.IntegratedGradients(counted).attribute(
            x, target=target, n_steps=int(steps), internal_batch_size=CAPTUM_BATCH[name]
        )
    else:
        relevance = raw.integrated_gradients(counted, x, target, REFERENCE_STEPS, CAPTUM_BATCH[name])
    gap = float((relevance.double().sum() - difference).abs() / difference.abs())
    return relevance.detach(), {"gap": gap, "gradients": counted.backwards, "forwards": counted.forwards}


@cache
def subject_of(name: str) -> Subject:
    """The subject, loaded once in each process."""
    return SUBJECTS[name]()


def place(name: str, contender: str, image: int) -> Any:
    """The file for one answer."""
    code = digest(contender.split()[0])
    return CACHE / f"integrated_gradients/{name}/{contender.replace(' ', '_')}-{code}/{image}.json"


@cache
def digest(kind: str) -> str:
    """What an answer depends on: the code and the versions."""
    files = [ROOT / f"benchmarks/{name}.py" for name in ("subjects", "raw")]
    if kind == "whybox":
        files += [*(ROOT / "src/whybox/core").glob("*.py"), ROOT / "src/whybox/attribution/path.py"]
    seen = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    for file in sorted(files):
        seen.update(file.read_bytes())
    return seen.hexdigest()[:12]


if __name__ == "__main__":
    main()
