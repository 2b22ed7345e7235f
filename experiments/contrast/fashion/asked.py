"""What is asked of which net, by which method: why these garments, and not others."""

from dataclasses import dataclass
from pathlib import Path

import torch
from experiments.common.data import chosen, digest
from experiments.common.kept import blocks
from experiments.contrast.entries import Entry
from experiments.contrast.fashion.nets import HERE, SEEDS, classifier
from torch import Tensor

import whybox
from whybox.contrast.latent import Latent

NAMES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
BLOCK = 20
FASHION = Latent.load(HERE.parent / "fashion.latent")
# With the three starts that are the default a nearer contrast is missed now and then, which the last row shows.
STARTS = 6
CDEEPEX = Entry("CDeepEx", whybox.CDeepEx(FASHION, starts=STARTS), ties=True)
BOUNDARY = Entry("xGEM, boundary", whybox.XGEM(FASHION, starts=STARTS), ties=True)
FEWER = Entry("CDeepEx, 3 starts", whybox.CDeepEx(FASHION), ties=True)
METHODS = (CDEEPEX, BOUNDARY, FEWER)

# The architectures that the paper compares; and what else is compared: what the shortcuts are worth.
COMPARED = ("plain", "residual")
COMPARISONS = (COMPARED, ("cut", "residual"))


@dataclass(frozen=True)
class Subject:
    """A trained net."""

    architecture: str
    seed: int
    model: whybox.Model

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.architecture} {self.seed}"

    def scores(self, x: Tensor) -> Tensor:
        """Logits (n, 10), without gradients."""
        with torch.no_grad():
            return torch.cat([self.model(part) for part in x.split(250)])


@dataclass(frozen=True)
class Question:
    """Why these garments are of one class and not of another.

    Attributes:
        pair: the two classes.
        places: of the garments in the test set.
        garments: their pictures (n, 1, 28, 28).
    """

    pair: tuple[int, int]
    places: list[int]
    garments: Tensor

    @property
    def name(self) -> str:
        """As in the paper."""
        return " → ".join(NAMES[number] for number in self.pair)

    def paths(self, subject: Subject, entry: Entry, folder: Path) -> list[tuple[Path, int, int]]:
        """The file of each block of garments, and where the block begins and ends."""
        home = folder / "fashion" / subject.name.replace(" ", "-") / "-".join(map(str, self.pair))
        method = entry.name.replace(" ", "-").replace(",", "")
        return [
            (home / f"{method}-{start:03d}-{stop:03d}.safetensors", start, stop)
            for start, stop in blocks(len(self.places), BLOCK)
        ]

    def settings(self, subject: Subject, entry: Entry, start: int, stop: int) -> dict[str, str]:
        """What its measurements depend on, besides the code."""
        return entry.settings(f"{digest(subject.model)} {self.pair} {self.places[start:stop]}")


def subjects(*architectures: str) -> list[Subject]:
    """All nets of these architectures; trained where they are not there."""
    return [Subject(name, seed, classifier(name, seed)) for name in architectures for seed in SEEDS]


def question(pair: tuple[int, int], compared: list[Subject], x: Tensor, labels: Tensor, count: int) -> Question:
    """The first so many garments of the class, in random order, that every net compared gets right."""
    rows = (labels == pair[0]).nonzero()[:, 0]
    right = torch.stack([one.scores(x[rows]).argmax(1) == pair[0] for one in compared]).all(0)
    rows = rows[right]
    places = [int(rows[place]) for place in chosen(len(rows), count)]
    return Question(pair, places, x[places])
