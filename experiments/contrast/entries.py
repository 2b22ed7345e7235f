"""The rows of the tables: what explains, on how many of the digits, and how its contrast comes to a tie."""

import json
from dataclasses import dataclass
from pathlib import Path

from experiments.common.kept import blocks
from experiments.contrast.nets import HERE

import whybox
from whybox.contrast.latent import Latent

BLOCK = 50
WGAN, VAE = (Latent.load(HERE / f"{name}.latent") for name in ("mnist", "mnist-vae"))


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        name: in the tables.
        method: what explains why one class and not another.
        share: on the first so many of the digits, as a share of them; less where it is dear.
        ties: whether the method ends where the two classes tie; else its contrast is followed to where they do.
    """

    name: str
    method: whybox.Method
    share: float = 1.0
    ties: bool = False

    def count(self, digits: int) -> int:
        """On how many of so many digits."""
        return max(1, round(self.share * digits))

    def paths(self, digits: int, folder: Path) -> list[tuple[Path, int, int]]:
        """The file of each block of digits, and where the block begins and ends."""
        home = folder / "mnist" / self.name.replace(" ", "-").replace(",", "")
        return [
            (home / f"{start:05d}-{stop:05d}.safetensors", start, stop)
            for start, stop in blocks(self.count(digits), BLOCK)
        ]

    def settings(self, weights: str) -> dict[str, str]:
        """What its measurements depend on, besides the code."""
        return {"settings": json.dumps({"method": self.method.config(), "weights": weights}, sort_keys=True)}


CDEEPEX = Entry("CDeepEx", whybox.CDeepEx(WGAN), ties=True)
BOUNDARY = Entry("xGEM, boundary", whybox.XGEM(WGAN), ties=True)
DESCENT = Entry("xGEM, descent", whybox.XGEM(WGAN, form="descent", weight=20.0))
CDEEPEX_VAE = Entry("CDeepEx, VAE", whybox.CDeepEx(VAE), ties=True)
BOUNDARY_VAE = Entry("xGEM, boundary, VAE", whybox.XGEM(VAE), ties=True)
GRAD_CAM = Entry("GradCAM, weighted", whybox.WeightedContrast(whybox.GradCAM()))
GRADIENT = Entry("gradient of the difference", whybox.Gradient())
LIME = Entry("LIME, weighted", whybox.WeightedContrast(whybox.LIME()), share=0.1)
PDA = Entry("PDA, weighted", whybox.WeightedContrast(whybox.PredictionDifference()), share=0.1)
ROWS = (CDEEPEX, BOUNDARY, DESCENT, CDEEPEX_VAE, BOUNDARY_VAE, GRAD_CAM, GRADIENT, LIME, PDA)

# Figure 5b: the paper's own search, to its last step, and the same without the constraints on the other classes.
PLAIN = Entry("augmented Lagrangian", whybox.CDeepEx.paper(WGAN), ties=True)
PLAIN_FREE = Entry("augmented Lagrangian, free", whybox.XGEM(WGAN, starts=1, search="plain"), ties=True)
CURVES = (PLAIN, PLAIN_FREE)
