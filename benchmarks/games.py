"""Games whose every coalition is known: the score of a picture with each of the 4,096 choices of 12 superpixels shown.

SqueezeNet sees its pictures at 128 × 128 here. The tables are kept in .benchmarks/; `python -m benchmarks.games` makes
them all, and what was interrupted goes on where it was.
"""

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import CACHE, ROOT, one_thread
from benchmarks.subjects import SUBJECTS, Subject
from whybox import Superpixels

REGIONS = 12
PICTURES = 20
COUNTS = range(REGIONS, 4 * REGIONS)
CHUNK = {"SqueezeNet": 8, "ResNet-20": 32}


class Game(nn.Module):
    """The score (n, 1) of coalitions (n, 12) of ones and zeros, read from the table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table
        self.asked: list[int] = []

    def forward(self, kept: Tensor) -> Tensor:
        """One look each, remembered in order."""
        number = (kept.round().long() << torch.arange(REGIONS)).sum(1)
        self.asked += number.tolist()
        return self.table[number][:, None]


def games(name: str) -> list[Tensor]:
    """The tables (4096,), float64, of the first 20 pictures that SLIC divides into twelve; bit i is superpixel i."""
    tables: list[Tensor] = []
    number = 0
    while len(tables) < PICTURES:
        file = CACHE / f"games/{name}-{_digest()}/{number}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, _table(_subject(name), number).numpy())
        table = torch.from_numpy(np.load(file))
        tables += [table] * (len(table) > 0)
        number += 1
    return tables


@cache
def _subject(name: str) -> Subject:
    subject = SUBJECTS[name]()
    if name == "SqueezeNet":
        smaller = replace(subject.model.preprocess, resize=144, crop=(128, 128))  # type: ignore[type-var]
        subject.model.preprocess = smaller
    return subject


@torch.no_grad()
def _table(subject: Subject, number: int) -> Tensor:
    """The scores of the class predicted for the picture; empty where no count gives twelve superpixels."""
    x = subject.images(number)
    for count in COUNTS:
        labels = Superpixels(count).labels(x)[0, 0]
        if int(labels.max()) + 1 == REGIONS:
            break
    else:
        return torch.empty(0, dtype=torch.float64)
    target = int(subject.module(x).argmax())
    scores = []
    for subsets in torch.arange(2**REGIONS).split(CHUNK[subject.name]):
        shown = ((subsets[:, None] >> torch.arange(REGIONS)) & 1).to(x)[:, labels]
        scores.append(subject.module(x * shown[:, None])[:, target].double())
    return torch.cat(scores)


@cache
def _digest() -> str:
    seen = hashlib.sha256(torch.__version__.encode())
    for file in ("benchmarks/games.py", "benchmarks/subjects.py", "src/whybox/core/regions.py"):
        seen.update((ROOT / file).read_bytes())
    return seen.hexdigest()[:12]


if __name__ == "__main__":
    one_thread()
    for subject in reversed(SUBJECTS):
        games(subject)
