"""Data randomisation: a net that learned shuffled labels by heart must be explained otherwise."""

from experiments.trust.methods import EDGES, EVERYTHING, GRAD_CAM, GRADIENT, GUIDED
from experiments.trust.nets import dense, trained
from experiments.trust.outcome import Outcome
from experiments.trust.pictures import digits
from torch import Tensor, nn

from whybox import DataRandomisation, Gradient

TITLE = "Data randomisation"
TEXT = """Two nets of the same kind, the one trained on the digits' labels, the other on the same labels shuffled, which
it learned by heart (Adebayo et al. 2018, arXiv 1810.03292): the rank correlation of the two maps of the same test
picture for the same class, with their sign, of their size, and of their size where there is ink."""

TRAINED_ON = 500
EPOCHS = 60
READINGS = {"signed": "signed", "size": "absolute", "size on ink": "foreground"}


def measure(n: int = 100) -> Outcome:
    """How alike the maps of n pictures are."""
    found = Outcome()
    images, labels = digits("train")
    explained = {GRADIENT: Gradient(), **EVERYTHING}
    answer = DataRandomisation().run(
        _fit, (images[:TRAINED_ON], labels[:TRAINED_ON]), digits("test")[0][:n], list(explained.values())
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
    return trained(dense(), images, labels, EPOCHS, 2e-3, seed)
