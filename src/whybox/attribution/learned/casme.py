"""CASME: a net that masks what any classifier would need."""

import copy
import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whybox.attribution.learned.adversaries import Training, train
from whybox.attribution.learned.masker import Masker
from whybox.attribution.learned.training import moments, read
from whybox.core.errors import InputError, ModelError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.model import Model, unwrap
from whybox.core.start import check_inputs
from whybox.core.target import Logit
from whybox.core.task import Task

logger = logging.getLogger(__name__)

# A mask of which a smaller share, or a larger one, is above ½ has collapsed: it points to nothing.
EMPTY, FULL = 0.005, 0.75
# On so many of the training pictures it is looked at after the training whether masks have collapsed.
LOOKED_AT = 512
# Masks that lose a smaller share of the pictures at the end of the training hide nothing, whatever their area.
LOST = 0.1


@dataclass(frozen=True)
class CASME(Method):
    """Relevance R = m(x) in [0, 1]: a mask of all that classifiers could tell the class by, made by a trained net.

    `fit(model, loader)` trains a masker against a classifier. The classifier starts as a copy of the model and learns
    from pictures x and from masked-out ones x(1 − m). The masker, a U-Net that sees the picture alone, minimises
    −λ·relu(1[masked-out is lost] − mean m) − entropy of f(x(1 − m)), averaged over the pictures that the classifier
    gets right; it meets the classifier as it is or, half the time, as it was (a pool of `pool` states).
    The mask is of the picture: it depends neither on the model that is explained, which may be another than the one of
    the fit, nor on the target, which only names the scores in the details. Size 1 on the channel axis. Details: `area`
    (share of m > ½), `kept_score` and `hidden_score` (the target's, of x·m and of x(1 − m)). `fitted.state["history"]`
    has for each step the masker's loss, the classifier's, mean m, and the shares of pictures that the classifier gets
    right and of these that it loses.
    The loader gives pictures (n, channels, h, w) of one size and their classes (n,), as a DataLoader does; what it
    gives is read once and kept in memory.
    Cost: one pass of the masker and five forward passes of the model; the fit takes four forward and three backward
    passes of the model for each picture of each step, and memory for the pictures and `pool` copies of the model.
    Limits: a map of what may be used by some classifier, not of what this one uses: it is the same for a model with
    random weights, as `whybox.explain` then reports; nothing asks that x·m keeps the class, so that with a large λ, or
    after a long training, masks shrink to the least that hides it; hidden is 0 in the model's units;
    evidence found by no classifier of the training is missing, and so is what the pictures of the fit do not show; a
    model that `copy.deepcopy` cannot copy, or with no parameters to train, is refused. Differs from the paper: the
    masker has an encoder of its own instead of the classifier's, so that it serves any architecture; Adam; the copy
    stays in eval mode, with the batch statistics that the model has. Where the paper is silent: clean and masked-out
    pictures weigh the same for the classifier, which joins the pool every 100 steps or, in a short training, twice as
    often as fills it; one by chance leaves a full pool.
    Source: Zolna, Geras & Cho 2018, arXiv 1805.08249.

    Args:
        area: the weight λ of the area; at 0 most of every picture is hidden.
        steps: of the training.
        batch: pictures a step.
        pool: how many past classifiers are kept.
        rate: Adam's, for the masker.
        classifier_rate: Adam's, for the classifier.
        width: channels of the masker at full size.
    """

    area: float = 10.0
    steps: int = 1000
    batch: int = 32
    pool: int = 30
    rate: float = 1e-3
    classifier_rate: float = 1e-4
    width: int = 16

    taxonomy = Taxonomy(shows="mask", needs="gradients", relation="dependence", trains=True)
    supervised = True

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch, self.pool, self.width)
        if not all(isinstance(count, int) and count >= 1 for count in counts):
            raise InputError(f"steps, batch, pool and width are whole numbers of at least 1, not {counts}")
        if not (0 <= self.area < math.inf and 0 < self.rate < math.inf and 0 < self.classifier_rate < math.inf):
            raise InputError(
                "area is not negative and the rates are positive, all finite, not "
                f"{self.area}, {self.rate}, {self.classifier_rate}"
            )

    def learn(self, model: Model, data: Any, *, seed: int, progress: bool) -> dict[str, Tensor]:
        """The masker, the history of its training, and how many of the training pictures' masks have collapsed."""
        images, labels = _pictures(model, data)
        shape = (images.shape[1], images.shape[2], images.shape[3])
        with torch.inference_mode(False), torch.enable_grad():
            classifier = _copied(model.module)
            torch.default_generator.manual_seed(seed % 2**63)  # a loader may have drawn from it
            masker = Masker(shape, self.width)
            masker.mean, masker.spread = moments(images)
            masker.to(next(classifier.parameters()).device)
            rates = (self.rate, self.classifier_rate)
            training = train(
                masker,
                classifier,
                images,
                labels,
                area=self.area,
                pool=self.pool,
                rates=rates,
                batch=self.batch,
                steps=self.steps,
                seed=seed,
                progress=progress,
            )
        return _state(masker, training, images, self.batch)

    def attribute(self, task: Task) -> Attribution:
        x, state = _one_picture(task), task.state
        assert state is not None
        shape = tuple(state["shape"].tolist())
        if tuple(x.shape[1:]) != shape:
            raise InputError(f"fitted to pictures of shape {shape}, but asked to explain {tuple(x.shape[1:])}")
        weights = {name.removeprefix("masker."): v for name, v in state.items() if name.startswith("masker.")}
        masker = Masker.of(weights, shape, self.width, x.device)

        def ask(x: Any, sample: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                mask = masker(x.float()).to(x.dtype)
                kept, hidden = x * mask, x * (1 - mask)
                classes = [_predicted(task.output(variant, sample)) for variant in (x, kept, hidden)]
                scores = [task.forward(variant, sample) for variant in (kept, hidden)]
            return mask, *scores, classes[1] != classes[0], classes[2] == classes[0]

        mask, kept, hidden, lost, left = task.map(ask, x, gradient=False)
        area = _area(mask)
        details = {"area": area, "kept_score": kept.cpu().double(), "hidden_score": hidden.cpu().double()}
        return Attribution(mask, details, _checks(area, lost, left, state))


def _pictures(model: Model, data: Any) -> tuple[Tensor, Tensor]:
    """The pictures and classes of a loader, of which the model can learn."""
    images, labels = read(data)
    if labels is None:
        raise InputError("CASME learns from classes: give a loader of pairs of tensors (pictures, classes)")
    reference = model.reference_tensor()
    first = images[:2].to(images.device if reference is None else reference.device, copy=True)
    check_inputs(first, model, differentiable=True)
    if images.ndim != 4 or min(images.shape[2:]) < 2:
        raise InputError(f"CASME is for pictures (n, channels, h, w) of at least 2 × 2, not {tuple(images.shape)}")
    if not bool(torch.isfinite(images).all()):
        raise InputError("some of the pictures hold NaN or infinity; clean them before the fit")
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"classes are integers, one for each picture, not {labels.dtype} of {tuple(labels.shape)}")
    with torch.no_grad():
        output = unwrap(model.module(first))
    if output.ndim != 2 or output.shape[1] < 2:
        raise ModelError(
            f"the model's output for two pictures has shape {tuple(output.shape)}, but CASME needs a score for each of "
            "at least two classes; put a model with a single output z into a module that gives the pair (0, z)"
        )
    wrong = labels[(labels < 0) | (labels >= output.shape[1])]
    if len(wrong):
        raise InputError(f"class {int(wrong[0])} is out of range: the model's go from 0 to {output.shape[1] - 1}")
    if int(labels.min()) == int(labels.max()):
        raise InputError(f"all pictures are of class {int(labels[0])}; what tells classes apart takes two of them")
    return images, labels.long()


def _copied(module: nn.Module) -> nn.Module:
    """A copy of the model that can be trained without changing it; in float32 where the model has 16 bits."""
    try:
        classifier = copy.deepcopy(module)
    except Exception as error:  # whatever a module's own way of copying raises
        raise ModelError(
            f"CASME trains a copy of the model, and copy.deepcopy cannot make one: {error}; rebuild the model so that "
            "it can (with torch's parametrizations in place of the old weight_norm, without open files or locks)"
        ) from error
    own = {tensor.data_ptr() for tensor in module.parameters()} - {0}  # that of an empty one
    parameters = list(classifier.parameters())
    if any(tensor.data_ptr() in own for tensor in parameters):
        raise ModelError("a deep copy of the model shares its parameters, so that training it would change the model")
    if not any(tensor.is_floating_point() for tensor in parameters):
        raise ModelError("the model has no parameters; CASME needs a classifier that can be trained")
    for tensor in parameters:
        tensor.requires_grad_(tensor.is_floating_point())
    # The steps of a training are lost in 16 bits, or become NaN.
    short = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in parameters)
    return classifier.float() if short else classifier


def _state(masker: Masker, training: Training, images: Tensor, batch: int) -> dict[str, Tensor]:
    """What is kept of the training; says so where it came to nothing."""
    device = masker.mean.device
    with torch.no_grad():
        some = images[torch.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).long()]
        area = torch.cat([_area(masker(part.to(device).float())) for part in some.split(batch)])
    empty, full = (area < EMPTY).double().mean(), (area > FULL).double().mean()
    lost = training.history[-max(1, len(training.history) // 10) :, -1].mean()
    if float(empty) > 0.5 or float(lost) < LOST:
        logger.warning("CASME has collapsed: its masks hide nothing; give a smaller area weight, or more steps")
    elif float(full) > 0.5:
        logger.warning("CASME has collapsed: most of its masks hide everything; give a larger area weight")
    return {
        **{f"masker.{name}": value.detach().cpu().clone() for name, value in masker.state_dict().items()},
        "shape": torch.tensor(images.shape[1:]),
        "history": training.history,
        "diverged": torch.tensor(training.diverged),
        "masks_collapsed": empty + full,
        "classes_lost": lost,
    }


def _one_picture(task: Task) -> Tensor:
    """The input, where it is what a masker masks."""
    if task.state is None:
        raise InputError("CASME explains after it was fitted: whybox.CASME().fit(model, loader)")
    if task.at is not None or isinstance(task.inputs, tuple) or task.inputs.ndim != 4:
        raise InputError("CASME masks the pictures (n, channels, h, w) of a model with a single input; explain these")
    return task.inputs


def _predicted(output: Tensor) -> Tensor:
    return torch.as_tensor(Logit().pin(len(output), output).index)


def _area(mask: Tensor) -> Tensor:
    """The share of the mask that is above ½ (n,)."""
    return (mask > 0.5).flatten(1).cpu().double().mean(1)


def _checks(area: Tensor, lost: Tensor, left: Tensor, state: Any) -> tuple[Check, ...]:
    everywhere = torch.ones(len(area), dtype=torch.float64)
    return (
        Check(
            "collapsed mask",
            ((area < EMPTY) | (area > FULL)).double(),
            0.0,
            f"Whether less than {EMPTY:.1%} of the mask is above ½, or more than {FULL:.0%}: it points to nothing.",
        ),
        Check(
            "masks collapsed in the training",
            state["masks_collapsed"] * everywhere,
            0.5,
            "The share of the training pictures whose masks were empty or full when the training ended. Where most "
            "are, the masker has learned nothing: choose another area weight.",
        ),
        Check(
            "classes left in the training",
            (1 - state["classes_lost"]) * everywhere,
            1 - LOST,
            "The share of the training pictures whose class was found in spite of the mask, when the training ended. "
            "Masks that hide next to no class hide nothing that matters: choose a smaller area weight, or more steps.",
        ),
        Check(
            "training that diverged",
            (state["diverged"] >= 0) * everywhere,
            0.0,
            "Whether a loss of the training became NaN or infinite, which ended it; the masker is that of some steps "
            "before.",
        ),
        Check(
            "class lost under the mask",
            lost.double(),
            0.0,
            "Whether the model predicts another class where the mask hides the rest. Then the mask does not hold what "
            "this model needs.",
        ),
        Check(
            "class left without the mask",
            left.double(),
            0.0,
            "Whether the model still predicts the class of the picture where what the mask shows is hidden. Then this "
            "model goes by something else.",
        ),
    )
