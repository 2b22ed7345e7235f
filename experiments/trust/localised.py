"""Whether the relevance lies where the evidence is."""

from torch import Tensor, nn

import whybox
from experiments.trust.findings import Findings
from experiments.trust.methods import CONTROLS, EVERYTHING
from experiments.trust.pictures import Pictures


def localised(found: Findings, net: nn.Module, pictures: Pictures, target: Tensor | int, label: str = "") -> None:
    """Take down mass and rank in the truth, of all methods and controls; the label goes behind the names."""
    for name, method in EVERYTHING.items():
        relevance = method(net, pictures.images, target)
        for column, metric in (("mass", whybox.RelevanceMass()), ("rank", whybox.RelevanceRank())):
            scores = metric(net, pictures.images, target, relevance, truth=pictures.truth)
            found.add(name, f"{column}{label}", scores)


def beats_the_controls(found: Findings, column: str, *methods: str) -> None:
    """Expect each of the methods to score higher than each of the controls."""
    for method in methods:
        for control in CONTROLS:
            found.falls(column, method, control)
