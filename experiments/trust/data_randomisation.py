"""Data randomisation: a net that learned shuffled labels by heart must be explained otherwise."""

from experiments.trust.methods import EDGES, EVERYTHING, GRAD_CAM, GRADIENT, GUIDED
from experiments.trust.nets import trained
from experiments.trust.outcome import Outcome
from torch import Tensor, nn

from whybox import DataRandomisation, Gradient, datasets
from whybox.models.digits import digits_net

TITLE = "Data randomisation"
TEXT = """Two nets of the kind of the embedded digits model, one trained on the labels of 500 digits, the other on the
same labels shuffled, both until they knew them by heart (Adebayo et al. 2018, arXiv 1810.03292): the rank correlation
of the two maps of the same test picture for the same class, with their sign, of their size, and of their size where
there is ink. GradCAM is blank for some: no feature map speaks for the class."""

TRAINED_ON = 500
EPOCHS = 100
READINGS = {"signed": "signed", "size": "absolute", "size on ink": "foreground"}


def measure(n: int = 100) -> Outcome:
    """How alike the maps of n pictures are."""
    found = Outcome()
    images, labels = datasets.load("digits", split="train")
    test, _ = datasets.load("digits", split="test")
    explained = {GRADIENT: Gradient(), **EVERYTHING}
    answer = DataRandomisation().run(
        _fit, (images[:TRAINED_ON], labels[:TRAINED_ON]), test[:n], list(explained.values())
    )
    for row, likeness in zip(explained, answer.details["likeness"].values(), strict=True):
        for column, reading in READINGS.items():
            found.add(row, column, likeness.of(reading))
    found.knows("labels learned", answer.details["accuracy"], 0.95)
    found.knows("shuffled labels learned", answer.details["accuracy_shuffled"], 0.95)
    for column in READINGS:
        for row in (GRADIENT, GRAD_CAM):
            found.falls(column, EDGES, GUIDED, row)
    return found


def _fit(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    return trained(digits_net(), images, labels, EPOCHS, 5e-3, seed)
