"""Input invariance: the same function of inputs that are measured from another zero."""

from experiments.trust.methods import EPSILON, GRADIENT, GUIDED, INPUT_X_GRADIENT, INTEGRATED
from experiments.trust.outcome import Outcome

from whybox import (
    LRP,
    Gradient,
    GuidedBackprop,
    InputInvariance,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    datasets,
    models,
)

TITLE = "Input invariance"
TEXT = """The embedded digits model, and the same function of pictures shifted by a constant c, which it subtracts first
(Kindermans et al. 2017, arXiv 1711.00867): f₂(x + c) = f(x). How far the map moves, ‖R₂ − R‖ / ‖R‖. What follows the
gradient stays as it was; what multiplies by the input, or starts from a baseline of zero, does not."""

STAYS = {GRADIENT: Gradient(), "SmoothGrad": SmoothGrad(), GUIDED: GuidedBackprop()}
MOVES = {
    INPUT_X_GRADIENT: InputXGradient(),
    INTEGRATED: IntegratedGradients(),
    EPSILON: LRP(composite="epsilon", epsilon=0.25),
}
TOLERANCE = 0.01


def measure(n: int = 100) -> Outcome:
    """The change of the maps of n pictures."""
    found = Outcome()
    model = models.load("digits")
    images = datasets.load("digits", split="test")[0][:n]
    for row, method in (STAYS | MOVES).items():
        relevance = method(model, images)
        found.add(row, "change", InputInvariance()(model, images, None, relevance, method=method))
    found.within("change", TOLERANCE, *STAYS)
    found.above("change", 0.1, *MOVES)
    return found
