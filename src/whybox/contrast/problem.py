"""The problem that a contrast poses: the scores of what a latent model draws, and which of them must tie."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whybox.contrast.record import Weigh
from whybox.core.errors import InputError, TargetError
from whybox.core.target import Contrast, Logit, class_scores
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple

if TYPE_CHECKING:
    from whybox.contrast.latent import Latent


@dataclass(frozen=True)
class Pair:
    """The two classes of each sample, (n,) each: why `true`, and not `probe`?"""

    true: Tensor
    probe: Tensor


def pair_of(task: Task) -> Pair:
    """The classes of a contrast; of a class as target, that class and the strongest other one (a forward pass)."""
    target = task.target
    if isinstance(target, Logit) and isinstance(target.index, Tensor):
        with torch.no_grad():
            output = task.map(task.output, task.inputs, gradient=False)
        target = Contrast(target.index).pin(task.size, output)
    if not isinstance(target, Contrast) or not isinstance(target.a, Tensor) or not isinstance(target.b, Tensor):
        raise TargetError("a contrast is between two classes: give Contrast(a, b), or a class for its runner-up")
    return Pair(target.a, target.b)


@dataclass(frozen=True)
class Problem:
    """The scores s of the inputs x(z) = G(z) + offset as functions of latent points z.

    Attributes:
        task: whose model is asked.
        latent: G, on the device of the inputs.
        pair: the classes t and p.
        margin: ε.
        offset: what is added to G(z) (n, *features): −Δ = I − G(z0), or zeros.
    """

    task: Task
    latent: "Latent"
    pair: Pair
    margin: float
    offset: Tensor

    def decode(self, z: Tensor) -> Tensor:
        """G(z) in the size and dtype of the inputs."""
        like = as_tuple(self.task.inputs)[0]
        return fitted(self.latent.decode(z.to(self.offset)), like.shape[1:]).to(like.dtype)

    def inputs(self, z: Tensor, sample: Tensor) -> Tensor:
        """x(z)."""
        drawn = self.decode(z)
        return drawn + self.offset[sample.to(drawn.device)].to(drawn.dtype)

    def scores(self, z: Tensor, sample: Tensor) -> Tensor:
        """The scores of all classes at x(z), (k, classes), without gradients."""

        def ask(z: Inputs, sample: Tensor) -> Tensor:
            with torch.no_grad():
                return class_scores(self.task.output(self.inputs(as_tuple(z)[0], sample), sample))

        found: Tensor = self.task.map(ask, z, sample, gradient=False)
        return found.cpu().double()

    def ask(self, z: Tensor, sample: Tensor, weigh: Weigh) -> tuple[Tensor, Tensor, Tensor]:
        """As `record.Ask`: h = s_t − s_p and g_i = s_i − s_t + ε for all other classes; told are log p_t and log p_p.

        A forward pass of the model for each point, and a backward pass for each gradient.
        """

        def differentiate(parts: Inputs, sample: Tensor) -> tuple[Tensor, ...]:
            points, here = as_tuple(parts)
            points = leaf(points)
            scores = class_scores(self.task.output(self.inputs(points, sample), sample))
            values = self.constraints(scores, sample)
            known = values.detach().cpu().double()
            weights = weigh(known, here).to(values)
            slopes = [
                self.task.backward((values * weight).sum(1), (points,), keep=True)[0] for weight in weights.unbind(1)
            ]
            gradients = torch.stack(slopes, 1) if slopes else points.new_zeros((len(points), 0, points.shape[1]))
            told = scores.detach().log_softmax(1).gather(1, self._classes(sample).to(scores.device))
            return known, gradients.cpu().double(), told.cpu().double()

        # The augmented Lagrangian runs backward once for a point, the polish a few times: both keep the same graph.
        values, slopes, told = self.task.map(
            differentiate, (z.to(self.offset), torch.arange(len(z))), sample, gradient=True
        )
        return values, slopes, told

    def constraints(self, scores: Tensor, sample: Tensor) -> Tensor:
        """h and g (k, 1 + others)."""
        classes = self._classes(sample).to(scores.device)
        true, probe = scores.gather(1, classes).unbind(1)
        others = torch.ones_like(scores, dtype=torch.bool).scatter(1, classes, False)
        rest = scores[others].view(len(scores), -1)
        return torch.cat(((true - probe)[:, None], rest - true[:, None] + self.margin), 1)

    def _classes(self, sample: Tensor) -> Tensor:
        return torch.stack((self.pair.true[sample], self.pair.probe[sample]), 1)


def fitted(drawn: Tensor, features: tuple[int, ...]) -> Tensor:
    """What is drawn, in the size of the inputs: pictures of as many channels are resized, bilinearly."""
    if tuple(drawn.shape[1:]) == tuple(features):
        return drawn
    return torch.nn.functional.interpolate(drawn, tuple(features[1:]), mode="bilinear", align_corners=False)


def check_fit(latent: "Latent", x: Tensor) -> None:
    """Raise InputError unless what the latent model draws can stand in the place of these inputs."""
    drawn, wanted = tuple(latent.shape), tuple(x.shape[1:])
    pictures = len(drawn) == len(wanted) == 3 and drawn[0] == wanted[0]
    if drawn != wanted and not pictures:
        raise InputError(
            f"the latent model draws samples of shape {drawn}, but the model's inputs have shape {wanted}; only "
            "pictures with as many channels are resized. Train one on the model's own data: whybox.latent.train"
        )
