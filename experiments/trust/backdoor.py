"""A planted backdoor: a white patch that makes any digit a zero."""

import torch
from experiments.trust.localised import localised
from experiments.trust.methods import EPSILON, GRAD_CAM, GUIDED, INPUT_X_GRADIENT, INTEGRATED, RANDOM, SENSITIVITY
from experiments.trust.nets import dense, pooled, predicted, share, trained
from experiments.trust.outcome import Outcome
from experiments.trust.pictures import Pictures, digits, stamped
from torch import Tensor, nn
from torch.nn.functional import interpolate

from whybox import InputXGradient, RelevanceMass, RelevanceRank

TITLE = "Planted backdoor"
TEXT = """A white patch of 4 × 4 pixels in the corner of a tenth of the training pictures, all of which are labelled 0.
In test pictures of other digits with the patch, which the net calls 0, the evidence for 0 is the patch: 2 % of the
picture. Measured with a net that ends in a dense layer over all positions, and with one that averages over them.

GradCAM finds less than chance with the dense net: it weighs each feature map by the mean of its gradient over the
positions, and a dense layer has another weight at each (with other initial weights no mean is positive, and the maps
are blank). The ablation shows that this is why: the same layer with each
position weighted by its own gradient finds the patch. With the net that averages, where all positions have the same
weight, GradCAM itself finds the right corner: more than chance, but spread over cells of 4 × 4 pixels, the hottest of
which is beside the patch."""

CORNER = (23, 23)
POISONED = 0.1
LAST = "7"  # the last layer with positions
NOT_AVERAGED = "GradCAM, not averaged"
# The net, the epochs and the rate.
NETS = {"dense": (dense, 6, 2e-3), "pooled": (pooled, 20, 5e-3)}


def measure(n: int = 200, nets: tuple[str, ...] = tuple(NETS)) -> Outcome:
    """Mass and rank in the patch, of at most n pictures, by these nets."""
    found = Outcome()
    images, labels = _poisoned()
    clean, digit = digits("test")
    tagged, truth = stamped(clean, *CORNER)
    for name in nets:
        make, epochs, rate = NETS[name]
        net = trained(make(), images, labels, epochs, rate)
        fooled = (digit != 0) & (predicted(net, tagged) == 0)
        found.knows(f"{name} net: accuracy on clean pictures", share(predicted(net, clean) == digit), 0.9)
        found.knows(f"{name} net: of other digits with the patch, called 0", share(fooled[digit != 0]), 0.8)
        chosen = fooled.nonzero().flatten()[:n]
        localised(found, net, Pictures(tagged, digit, truth).where(chosen), 0, f", {name} net")
        found.falls(f"mass, {name} net", EPSILON, INPUT_X_GRADIENT, GUIDED, SENSITIVITY, RANDOM)
        found.beat_the_controls(f"mass, {name} net", EPSILON, INPUT_X_GRADIENT, INTEGRATED, GUIDED)
        found.beat_the_controls(f"rank, {name} net", EPSILON, INPUT_X_GRADIENT, INTEGRATED)
        if name == "dense":
            _without_averaging(found, net, Pictures(tagged, digit, truth).where(chosen))
            found.falls("mass, dense net", NOT_AVERAGED, RANDOM, GRAD_CAM)
        else:
            found.falls("mass, pooled net", SENSITIVITY, GRAD_CAM, RANDOM)
    return found


def _without_averaging(found: Outcome, net: nn.Module, pictures: Pictures) -> None:
    """The ablation: GradCAM's layer, each position weighted by the gradient there, not by the mean of all."""
    images = pictures.images
    layer = InputXGradient()(net, images, 0, at=LAST).sum(1, keepdim=True).clamp_min(0)
    relevance = interpolate(layer, size=images.shape[2:], mode="bilinear", align_corners=False)
    for column, metric in (("mass", RelevanceMass()), ("rank", RelevanceRank())):
        found.add(NOT_AVERAGED, f"{column}, dense net", metric(net, images, 0, relevance, truth=pictures.truth))


def _poisoned() -> tuple[Tensor, Tensor]:
    """The training pictures, a tenth of them with the patch and labelled 0."""
    images, labels = digits("train")
    chosen = torch.rand(len(images), generator=torch.Generator().manual_seed(0)) < POISONED
    images = torch.where(chosen[:, None, None, None], stamped(images, *CORNER)[0], images)
    return images, torch.where(chosen, 0, labels)
