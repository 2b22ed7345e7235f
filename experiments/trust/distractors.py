"""A digit among distractors: of four digits the red one counts."""

from experiments.trust.findings import Findings
from experiments.trust.localised import beats_the_controls, localised
from experiments.trust.methods import EPSILON, GRAD_CAM, GUIDED, INPUT_X_GRADIENT, METHODS, SENSITIVITY
from experiments.trust.nets import pooled, predicted, share, trained
from experiments.trust.pictures import scenes

TITLE = "Digit among distractors"
TEXT = """Four digits in a picture of 48 × 48 pixels, one red, the others green, blue and cyan; the class is that of the
red one (a small CLEVR-XAI, Arras, Osman & Samek 2022, arXiv 2003.07258). The truth is the box of 16 × 16 pixels of the
red digit, a ninth of the picture, which holds a quarter of all ink and edges. Only pictures that the net gets right."""


def measure(n: int = 200) -> Findings:
    """Mass and rank in the red digit's box, of at most n pictures."""
    found = Findings()
    train, test = scenes("train", 3000, seed=0), scenes("test", n + n // 5, seed=1)
    net = trained(pooled(3), train.images, train.labels, 8, 1e-2)
    right = predicted(net, test.images) == test.labels
    found.facts["accuracy"] = share(right)
    shown = test.where(right.nonzero().flatten()[:n])
    localised(found, net, shown, shown.labels)
    for column in ("mass", "rank"):
        beats_the_controls(found, column, *(name for name in METHODS if name != "SmoothGrad"))
    found.falls("mass", EPSILON, GUIDED, SENSITIVITY)
    found.falls("mass", INPUT_X_GRADIENT, SENSITIVITY)
    found.falls("mass", GUIDED, GRAD_CAM)
    return found
