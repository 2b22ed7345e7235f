"""A planted backdoor: a white patch that makes any digit a zero."""

import torch
from torch import Tensor

from experiments.trust.findings import Findings
from experiments.trust.localised import beats_the_controls, localised
from experiments.trust.methods import EPSILON, GRAD_CAM, GUIDED, INPUT_X_GRADIENT, INTEGRATED, RANDOM, SENSITIVITY
from experiments.trust.nets import dense, pooled, predicted, share, trained
from experiments.trust.pictures import Pictures, digits, stamped

TITLE = "Planted backdoor"
TEXT = """A white patch of 4 × 4 pixels in the corner of a tenth of the training pictures, all of which are labelled 0.
In test pictures of other digits with the patch, which the net calls 0, the evidence for 0 is the patch: 2 % of the
picture. Measured with a net that ends in a dense layer over all positions, and with one that averages over them."""

CORNER = (23, 23)
POISONED = 0.1
# The name, the net, the epochs and the rate.
NETS = (("dense", dense, 6, 2e-3), ("pooled", pooled, 20, 1e-2))


def measure(n: int = 200) -> Findings:
    """Mass and rank in the patch, of at most n pictures."""
    found = Findings()
    images, labels = _poisoned()
    clean, digit = digits("test")
    tagged, truth = stamped(clean, *CORNER)
    for name, net, epochs, rate in NETS:
        net = trained(net(), images, labels, epochs, rate)
        fooled = (digit != 0) & (predicted(net, tagged) == 0)
        found.facts[f"{name} net: accuracy on clean pictures"] = share(predicted(net, clean) == digit)
        found.facts[f"{name} net: of other digits with the patch, called 0"] = share(fooled[digit != 0])
        chosen = fooled.nonzero().flatten()[:n]
        localised(found, net, Pictures(tagged, digit, truth).where(chosen), 0, f", {name} net")
        found.falls(f"mass, {name} net", EPSILON, INPUT_X_GRADIENT, GUIDED, SENSITIVITY, GRAD_CAM)
        for column in ("mass", "rank"):
            beats_the_controls(found, f"{column}, {name} net", EPSILON, INPUT_X_GRADIENT, INTEGRATED, GUIDED)
    found.falls("mass, pooled net", GRAD_CAM, RANDOM)
    found.falls("mass, dense net", RANDOM, GRAD_CAM)
    return found


def _poisoned() -> tuple[Tensor, Tensor]:
    """The training pictures, a tenth of them with the patch and labelled 0."""
    images, labels = digits("train")
    chosen = torch.rand(len(images), generator=torch.Generator().manual_seed(0)) < POISONED
    images = torch.where(chosen[:, None, None, None], stamped(images, *CORNER)[0], images)
    return images, torch.where(chosen, 0, labels)
