"""A digit among distractors: of four digits the red one counts."""

from experiments.trust.localised import localised
from experiments.trust.methods import EPSILON, GRAD_CAM, GUIDED, INPUT_X_GRADIENT, METHODS, SENSITIVITY
from experiments.trust.nets import dense, predicted, share, trained
from experiments.trust.outcome import Outcome
from experiments.trust.pictures import scenes

TITLE = "Digit among distractors"
TEXT = """Four digits in a picture of 48 × 48 pixels, one red, the others green, blue and cyan; the class is that of the
red one (a small CLEVR-XAI, Arras, Osman & Samek 2022, arXiv 2003.07258). The truth is the red ink, about a
quarter of all ink and edges. Only pictures that the net gets right."""


def measure(n: int = 200) -> Outcome:
    """Mass and rank in the red ink, of at most n pictures."""
    found = Outcome()
    train, test = scenes("train", 4000, seed=0), scenes("test", n + n // 5, seed=1)
    net = trained(dense(48, 3), train.images, train.labels, 8, 2e-3)
    right = predicted(net, test.images) == test.labels
    found.knows("accuracy", share(right), 0.8)
    shown = test.where(right.nonzero().flatten()[:n])
    found.facts["the red ink's share of the picture"] = share(shown.truth)
    localised(found, net, shown, shown.labels)
    for column in ("mass", "rank"):
        found.beat_the_controls(column, *(name for name in METHODS if name != "SmoothGrad"))
    found.falls("mass", EPSILON, GUIDED, SENSITIVITY)
    found.falls("mass", INPUT_X_GRADIENT, SENSITIVITY)
    found.falls("mass", GUIDED, GRAD_CAM)
    return found
