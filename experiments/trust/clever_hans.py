"""Clever Hans: a tag that gives the class away in training, and a net of the same kind for which it says nothing."""

import torch
from experiments.trust.methods import CONTROLS, EPSILON, EVERYTHING, GRAD_CAM, METHODS, SENSITIVITY
from experiments.trust.nets import pooled, predicted, share, trained
from experiments.trust.outcome import Outcome
from experiments.trust.pictures import digits, stamped

from whybox import RelevanceMass

TITLE = "Clever Hans"
TEXT = """Two nets of the same kind, both trained on digits of which some carry a tag, a white square of 4 × 4 pixels.
For the one (Hans) nine in ten of the threes carry it and nothing else does; for the other (fair) as many pictures of
any class. Of the same tagged threes a method must find more relevance for 3 in the tag with the one net than with the
other; what does not look at the model finds the same."""

CORNER = (1, 1)
CLASS = 3
TAGGED = 0.9


def measure(n: int = 200) -> Outcome:
    """Mass in the tag by both nets, of at most n pictures."""
    found = Outcome()
    images, labels = digits("train")
    tagged = stamped(images, *CORNER)[0]
    chance = torch.rand(len(images), generator=torch.Generator().manual_seed(0))
    hans = (labels == CLASS) & (chance < TAGGED)
    carries = {"Hans": hans, "fair": chance < hans.double().mean()}
    nets = {
        name: trained(pooled(), torch.where(tag[:, None, None, None], tagged, images), labels, 20, 5e-3)
        for name, tag in carries.items()
    }
    test, digit = digits("test")
    shown, truth = stamped(test, *CORNER)
    for name, net in nets.items():
        found.knows(f"{name}: accuracy without tags", share(predicted(net, test) == digit), 0.9)
        found.facts[f"{name}: of other digits with a tag, called 3"] = share(
            predicted(net, shown)[digit != CLASS] == CLASS
        )
    three = (digit == CLASS).nonzero().flatten()[:n]
    x = shown[three]
    for row, method in EVERYTHING.items():
        mass = {
            name: RelevanceMass()(net, x, CLASS, method(net, x, CLASS), truth=truth[three])
            for name, net in nets.items()
        }
        for name, values in mass.items():
            found.add(row, f"mass, {name}", values)
        found.add(row, "Hans − fair", mass["Hans"] - mass["fair"])
    found.above("Hans − fair", 0.0, *METHODS)
    found.within("Hans − fair", 0.0, *CONTROLS)
    found.falls("Hans − fair", EPSILON, SENSITIVITY)
    found.falls("Hans − fair", EPSILON, GRAD_CAM)
    return found
