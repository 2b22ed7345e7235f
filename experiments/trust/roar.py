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
from experiments.trust.nets import mlp, predicted, trained
from experiments.trust.outcome import Outcome
from torch import Tensor, nn

from whybox import (
    ROAR,
    EdgeDetector,
    Gradient,
    InputMagnitude,
    Method,
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
pictures the shape of what was removed tells the class. The last column shows it: a net that sees no picture, but only
which nine tenths of it were removed. So a random map, whose shape says nothing, wins."""

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
SHAPE = "shape of 90% alone"
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
    net = _fit(*train, 0)
    for row, method in PUT_TO_THE_TEST.items():
        (shapes, labels), (others, true) = ((_removed(method, net, x), y) for x, y in (train, test))
        found.add(row, SHAPE, (predicted(_fit(shapes, labels, 0), others) == true).double().mean()[None])
    found.facts["accuracy with nothing removed"] = float(answer.details["nothing removed"].mean())
    return found


def _removed(method: Method, net: nn.Module, images: Tensor) -> Tensor:
    """Which nine tenths of the pixels have the highest relevance (n, 1, 8, 8)."""
    rank = method(net, images).sum(1).flatten(1).argsort(1, descending=True).argsort(1)
    return (rank < round(FRACTIONS[-1] * rank.shape[1])).float().view(-1, 1, *images.shape[2:])


def _fit(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    return trained(mlp(), images, labels, 20, 3e-3, seed)
