"""CASME's training: a masker that confuses classifiers, and a classifier that learns not to be confused by its masks.

    masker      minimises  mean over the pictures that the classifier gets right of
                           −λ relu(1[it is wrong on x(1 − m)] − mean m) − entropy of f(x(1 − m))
    classifier  minimises  ½ CE(y, f(x)) + ½ CE(y, f(x(1 − m)))

so that a mask is worth what hides the class, and costs its area from there on only. The masker meets the classifier as
it is, or as it was (`pool`), so that it cannot play with the weakness of the moment.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whybox.attribution.learned.masker import Masker
from whybox.attribution.learned.pool import Pool
from whybox.attribution.learned.training import minibatches
from whybox.core.errors import ModelError
from whybox.core.model import unwrap

logger = logging.getLogger(__name__)

# The classifier joins the pool every so many steps, as in the paper's best variant; or more often in a short training.
EVERY = 100


@dataclass(frozen=True)
class Training:
    """How it went.

    Attributes:
        history: of each step (steps, 5) the masker's loss, the classifier's on both kinds of pictures, the mean of the
            masks, and the shares of pictures that the masker's opponent gets right and of these that it loses.
        diverged: the step in which a loss or the masker was no longer finite, from 1; −1 where all went well.
    """

    history: Tensor
    diverged: int


def train(
    masker: Masker,
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    area: float,
    pool: int,
    rates: tuple[float, float],
    batch: int,
    steps: int,
    seed: int,
    progress: bool,
) -> Training:
    """Train both, in place.

    Where a loss is not finite the training ends, and the masker is as it was when the pool last grew.

    Raises:
        ModelError: that was so before they had learned anything, or the classifier has no gradient.
    """
    device = next(classifier.parameters()).device
    precision = torch.promote_types(images.dtype, torch.float32)
    past = Pool(classifier, pool, torch.Generator().manual_seed(seed % 2**63))
    optimisers = [
        torch.optim.Adam(module.parameters(), lr=rate) for module, rate in zip((masker, classifier), rates, strict=True)
    ]
    every = max(1, min(EVERY, steps // (2 * pool)))
    history: list[Tensor] = []
    good, learned = _values(masker), 0
    try:
        for step, rows in minibatches(len(images), batch=batch, steps=steps, seed=seed, progress=progress):
            x, y = images[rows].to(device, precision), labels[rows].to(device)
            if step % every == 0:
                past.add()
            mask = masker(x.float())
            loss, right, lost = masker_loss(past.draw(), x, y, mask, area)
            both = torch.cat((x, x * (1 - mask.detach()).to(x.dtype)))
            resisted = F.cross_entropy(unwrap(classifier(both)).float(), torch.cat((y, y)))
            if not resisted.requires_grad:
                raise ModelError("the model's output has no gradient (a no_grad, a detach?); CASME trains a copy of it")
            history.append(torch.stack((loss.detach(), resisted.detach(), mask.detach().mean(), right, lost)).cpu())
            if not bool(torch.isfinite(history[-1]).all()):
                break
            if step % every == 0:
                good, learned = _values(masker), step
            for optimiser, value in zip(optimisers, (loss, resisted), strict=True):
                _descend(optimiser, value)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"CASME stopped after {len(history)} of {steps} steps; nothing is kept of them")
        raise
    finite = bool(torch.isfinite(history[-1]).all()) and all(bool(v.isfinite().all()) for v in masker.parameters())
    if not finite and not learned:
        raise ModelError(f"CASME's training diverged in step {len(history)}, before it learned much; give lower rates")
    if not finite:
        logger.warning("CASME's training diverged in step %d; the masker is that of step %d", len(history), learned)
        masker.load_state_dict(good)
    return Training(torch.stack(history), -1 if finite else len(history))


def _values(masker: Masker) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in masker.state_dict().items()}


def masker_loss(
    classifier: nn.Module, x: Tensor, labels: Tensor, mask: Tensor, area: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The masker's loss; and the shares of pictures that the classifier gets right, and of these that it loses."""
    with torch.no_grad():
        right = unwrap(classifier(x.clone())).argmax(1) == labels  # which may work in place
    scores = unwrap(classifier(x * (1 - mask).to(x.dtype))).float()
    lost = right & (scores.argmax(1) != labels)
    entropy = torch.special.entr(scores.softmax(1)).sum(1)
    gain = area * F.relu(lost.to(mask.dtype) - mask.flatten(1).mean(1)) + entropy
    count = right.sum().clamp_min(1)
    return -(gain * right).sum() / count, right.float().mean(), lost.sum() / count


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step, with the gradient of what this optimiser moves alone."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimiser.step()
