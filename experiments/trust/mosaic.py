"""Mosaic: relevance for a class must fall into the tile that shows it."""

from experiments.trust.methods import EPSILON, EVERYTHING, GRAD_CAM, GUIDED, INPUT_X_GRADIENT, INTEGRATED, SENSITIVITY
from experiments.trust.outcome import Outcome

from whybox import Mosaic, datasets, models

TITLE = "Mosaic"
TEXT = """The embedded digits model on 2 × 2 mosaics of digits of four classes: the share of the positive relevance for
a picture's class that falls into its own tile, a quarter by chance. No labels and no training are needed: `Mosaic` does
the same for any model and pictures."""


def measure(n: int = 200) -> Outcome:
    """The share in the right tile, of n pictures."""
    found = Outcome()
    model = models.load("digits")
    images = datasets.load("digits", split="test")[0][:n]
    for row, method in EVERYTHING.items():
        scores = Mosaic()(model, images, None, method(model, images), method=method)
        found.add(row, "in the right tile", scores)
    found.beat_the_controls("in the right tile", EPSILON, INPUT_X_GRADIENT, INTEGRATED, GRAD_CAM)
    found.falls("in the right tile", EPSILON, GUIDED)
    found.falls("in the right tile", EPSILON, SENSITIVITY)
    return found
