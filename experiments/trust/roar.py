"""ROAR: accuracy of nets that are trained again without the most relevant pixels. Reported, nothing is expected."""

from experiments.trust.methods import (
    EPSILON,
    GRADIENT,
    GUIDED,
    INPUT_X_GRADIENT,
    INTEGRATED,
    METHODS,
    RANDOM,
    SENSITIVITY,
)
from experiments.trust.nets import mlp, trained
from experiments.trust.outcome import Outcome
from torch import Tensor, nn

from whybox import (
    ROAR,
    EdgeDetector,
    Gradient,
    InputMagnitude,
    RandomMap,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
    datasets,
)

TITLE = "Remove and retrain"
TEXT = """A net of two hidden layers of 64 on the digits of 8 × 8 pixels, trained again after the most relevant share of
each picture's pixels was replaced by their mean (ROAR): its accuracy, the mean of three trainings. The lower, the more
was lost. Hooker, Erhan, Kindermans & Kim (2019, arXiv 1806.10758) find for a ResNet-50 on ImageNet, Birdsnap and
Food-101 that gradients, guided backprop, integrated gradients and SmoothGrad of them are no better than random pixels,
and that only VarGrad and SmoothGrad² are. Nothing is expected here: 1,797 digits are another thing, and for such small
pictures the shape of what was removed tells the class. The map of a class is much the same for all its pictures, so
what is left of the pictures still says which class was explained, and a random map, whose shape says nothing, wins."""

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
PUT_TO_THE_TEST = {
    GRADIENT: Gradient(),
    SENSITIVITY: METHODS[SENSITIVITY],
    INPUT_X_GRADIENT: METHODS[INPUT_X_GRADIENT],
    INTEGRATED: METHODS[INTEGRATED],
    EPSILON: METHODS[EPSILON],
    GUIDED: METHODS[GUIDED],
    "SmoothGrad": SmoothGrad(),
    "SmoothGrad²": SmoothGradSquared(),
    "VarGrad": VarGrad(),
    "edge detector": EdgeDetector(),
    "input magnitude": InputMagnitude(),
    RANDOM: RandomMap(),
}


def measure(repeats: int = 3) -> Outcome:
    """The accuracies, each of so many trainings."""
    found = Outcome()
    train, test = (datasets.load("digits", split=split) for split in ("train", "test"))
    answer = ROAR(fractions=FRACTIONS, repeats=repeats).run(_fit, train, test, list(PUT_TO_THE_TEST.values()))
    for row, accuracies in zip(PUT_TO_THE_TEST, answer.details["accuracies"].values(), strict=True):
        for share, values in zip(FRACTIONS, accuracies, strict=True):
            found.add(row, f"{share:.0%} removed", values)
    found.facts["accuracy with nothing removed"] = float(answer.details["nothing removed"].mean())
    return found


def _fit(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    return trained(mlp(), images, labels, 20, 3e-3, seed)
