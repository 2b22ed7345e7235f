"""Whether the relevance lies where the evidence is."""

from experiments.trust.methods import EVERYTHING
from experiments.trust.outcome import Outcome
from experiments.trust.pictures import Pictures
from torch import Tensor, nn

import whybox


def localised(found: Outcome, net: nn.Module, pictures: Pictures, target: Tensor | int, label: str = "") -> None:
    """Take down mass and rank in the truth, of all methods and controls; the label goes behind the names."""
    for name, method in EVERYTHING.items():
        relevance = method(net, pictures.images, target)
        for column, metric in (("mass", whybox.RelevanceMass()), ("rank", whybox.RelevanceRank())):
            scores = metric(net, pictures.images, target, relevance, truth=pictures.truth)
            found.add(name, f"{column}{label}", scores)
