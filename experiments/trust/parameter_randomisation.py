"""Parameter randomisation: what is left of a map when the weights go, layer after layer from the output on."""

from experiments.trust.methods import EDGES, EVERYTHING, GRAD_CAM, GRADIENT, GUIDED
from experiments.trust.outcome import Outcome

from whybox import MPRT, Gradient, datasets, models

TITLE = "Parameter randomisation"
TEXT = """The embedded digits model, its layers shuffled one after the other from the output on (Adebayo et al. 2018,
arXiv 1810.03292): the mean rank correlation of the map with what it was, with its sign, of its size, and of its size
where there is ink. Gradient and GradCAM lose nearly all of it, guided backprop keeps most, and an edge detector, which
never looked at the model, keeps all. Sizes of whatever is multiplied by the input stay alike, for it is zero where the
input is."""

READINGS = {"signed": "signed", "size": "absolute", "size on ink": "foreground"}


EXPLAINED = {GRADIENT: Gradient(), **EVERYTHING}


def measure(n: int = 100, rows: tuple[str, ...] = tuple(EXPLAINED)) -> Outcome:
    """What is left of the maps of n pictures, by these methods; those of which something is expected among them."""
    found = Outcome()
    model = models.load("digits")
    images = datasets.load("digits", split="test")[0][:n]
    for row in rows:
        method = EXPLAINED[row]
        relevance = method(model, images)
        steps = MPRT().run(model, images, None, relevance, method=method).details
        for column, reading in READINGS.items():
            found.add(row, column, steps[reading].nanmean(1))
    for column in READINGS:
        for row in (GRADIENT, GRAD_CAM):
            found.falls(column, EDGES, GUIDED, row)
    return found
