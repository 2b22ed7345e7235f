"""What is compared: the rows of the tables, and further searches for masks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from experiments.common.kept import blocks
from experiments.neuromask.subjects import Subject
from torch import Tensor

import whybox
from whybox.evaluation.controls import CentreBlob, EdgeDetector, RandomMap

DEFAULT = whybox.NeuroMask()
FRAMES = 8
DRAWN = 4  # pictures of each subject in the figures


@dataclass(frozen=True)
class Entry:
    """What is measured of some of the pictures, and kept in files.

    Attributes:
        name: in the tables.
        method: what explains.
        of: of which pictures: "all", the first "some", "few" or "drawn".
    """

    name: str
    method: whybox.Method
    of: Literal["all", "some", "few", "drawn"] = "all"

    def count(self, subject: Subject) -> int:
        """The number of pictures."""
        wanted = {"all": subject.count, "some": subject.some, "few": subject.few, "drawn": DRAWN}[self.of]
        return min(wanted, subject.count)

    def paths(self, subject: Subject, folder: Path) -> Iterator[tuple[Path, int, int]]:
        """Its files, each with its block of pictures."""
        place = folder / subject.name / self.name
        for start, stop in blocks(self.count(subject), subject.block):
            yield place / f"{start:05d}-{stop:05d}.safetensors", start, stop


@dataclass(frozen=True)
class Row(Entry):
    """A row of the table: a method and what becomes of its relevance.

    Attributes:
        use: the relevance "as it is", its "magnitude", or "moved" by half the picture down and to the right.
        control: whether it knows nothing of what the model answers to this picture.
    """

    use: Literal["as it is", "magnitude", "moved"] = "as it is"
    control: bool = False

    def relevance(self, raw: Tensor) -> Tensor:
        """The relevance that counts, (n, 1, h, w)."""
        found = (raw.abs() if self.use == "magnitude" else raw).sum(1, keepdim=True)
        height, width = found.shape[2:]
        return found.roll((height // 2, width // 2), (2, 3)) if self.use == "moved" else found


@dataclass(frozen=True)
class Search(Entry):
    """A further search for masks: with another seed, of a picture with a little noise, in chunks of another size …

    Attributes:
        seed: is added to the block's.
        noise: the standard deviation of what is added to the picture, as a share of its range.
        chunks: by how much the chunk is divided.
        other: whether a class is explained that the model does not predict: the one half of all classes further on.
    """

    seed: int = 0
    noise: float = 0.0
    chunks: int = 1
    other: bool = False


NEUROMASK = Row("NeuroMask", DEFAULT)
REFERENCE = Row("NeuroMask, reference", whybox.NeuroMask.reference(), "few")
RANDOM = Row("random map", RandomMap(), control=True)
MOVED = Row("NeuroMask, moved", DEFAULT, use="moved", control=True)
ROWS = (
    NEUROMASK,
    REFERENCE,
    Row("sensitivity analysis", whybox.SensitivityAnalysis()),
    Row("SmoothGrad", whybox.SmoothGrad(samples=16), use="magnitude"),
    Row("GuidedBackprop", whybox.GuidedBackprop(), use="magnitude"),
    Row("GradCAM", whybox.GradCAM()),
    Row("LIME", whybox.LIME(samples=300)),
    Row("LRP ε", whybox.LRP("epsilon")),
    RANDOM,
    Row("centre blob", CentreBlob(), control=True),
    Row("edges", EdgeDetector(), control=True),
    MOVED,
)
SEED = Search("reference, other seed", REFERENCE.method, "few", seed=10_000)
NOISY = Search("NeuroMask, noise", DEFAULT, "some", noise=0.01)
CHUNKS = Search("NeuroMask, other chunks", DEFAULT, "some", chunks=2)
OTHER = Search("NeuroMask of another class", DEFAULT, "some", other=True)
FILM = Search("NeuroMask, film", replace(DEFAULT, film=FRAMES), "drawn")
SEARCHES = (NOISY, CHUNKS, OTHER, SEED, FILM)
