"""The problem that a contrast poses: the scores of what a latent model draws, and which of them must tie."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whybox.contrast.latent import Latent
from whybox.contrast.record import Weigh
from whybox.core.errors import InputError, TargetError
from whybox.core.target import Contrast, Logit, class_scores
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple


@dataclass(frozen=True)
class Problem:
    """The scores s of x(z) as functions of latent points z, and the classes t and p that must tie.

    Attributes:
        task: whose model is asked.
        latent: G, on the device of the inputs.
        image: the inputs I (n, *features).
        pair: t and p of each sample (n, 2).
        origin: z0, where G is nearest to I (n, size); double precision, on the CPU, as are all latent points here.
        drawn: G(z0) (n, *features).
        residual: whether x(z) = I + G(z) − G(z0), so that x(z0) = I; else x(z) = G(z).
        margin: ε; None where no other class is kept away.
    """

    task: Task
    latent: Latent
    image: Tensor
    pair: Tensor
    origin: Tensor
    drawn: Tensor
    residual: bool
    margin: float | None

    @classmethod
    def of(cls, task: Task, latent: Latent, *, residual: bool, margin: float | None) -> "Problem":
        """The problem of explaining the task's inputs, with z0 found; errors before any work.

        A class as target is contrasted with the strongest other one, which costs a forward pass.
        """
        x = task.inputs
        if isinstance(x, tuple) or task.at is not None or not x.is_floating_point():
            raise InputError("a latent model stands in for the model's one input, of numbers; leave `at` out")
        _check_fit(latent.shape, tuple(x.shape[1:]))
        pair = pair_of(task)
        nowhere = x.new_zeros((len(x), latent.size), dtype=torch.float64, device="cpu")
        problem = cls(task, latent, x, pair, nowhere, x, residual, margin)
        latent = latent.to(x.device, problem.precision)
        z = latent.invert(_resized(x.to(problem.precision), latent.shape), seed=task.keys[0])
        problem = replace(problem, latent=latent, origin=z.cpu().double())
        with torch.no_grad():
            return replace(problem, drawn=problem.decode(problem.origin))

    @property
    def precision(self) -> torch.dtype:
        """In which the latent points are decoded: single at least, for small steps are lost in half precision."""
        return torch.promote_types(self.image.dtype, torch.float32)

    def decode(self, z: Tensor) -> Tensor:
        """G(z) in the size and dtype of the inputs."""
        drawn = self.latent.decode(z.to(self.image.device, self.precision))
        return _resized(drawn, self.image.shape[1:]).to(self.image.dtype)

    def inputs(self, z: Tensor, sample: Tensor) -> Tensor:
        """x(z) (k, *features)."""
        drawn, here = self.decode(z), sample.to(self.image.device)
        return self.image[here] + (drawn - self.drawn[here]) if self.residual else drawn

    def reconstruction(self) -> Tensor:
        """The distance of G(z0) from each input, as the latent model measures it, in its own size (n,)."""
        x = _resized(self.image.to(self.precision), self.latent.shape)
        distance: Tensor = self.latent.distance(x, self.origin.to(x))
        return distance.cpu().double()

    def scores(self, z: Tensor) -> Tensor:
        """The scores of all classes at x(z) for a point of each sample, (n, classes), without gradients."""

        def ask(z: Inputs, sample: Tensor) -> Tensor:
            with torch.no_grad():
                return class_scores(self.task.output(self.inputs(as_tuple(z)[0], sample), sample))

        found: Tensor = self.task.map(ask, z, gradient=False)
        return found.cpu().double()

    def ask(self, z: Tensor, sample: Tensor, weigh: Weigh) -> tuple[Tensor, Tensor, Tensor]:
        """As `record.Ask`: h = s_t − s_p, g_i = s_i − s_t + ε for all other classes; told are log p_t and log p_p.

        A forward pass of the model for each point, and a backward pass for each gradient that is wanted.
        """

        def differentiate(parts: Inputs, sample: Tensor) -> tuple[Tensor, ...]:
            points, places = as_tuple(parts)
            points = leaf(points)
            scores = class_scores(self.task.output(self.inputs(points, sample), sample))
            values = self.constraints(scores, sample)
            known = values.detach().cpu().double()
            weights = weigh(known, places).to(values)
            gradients = points.new_zeros((*weights.shape[:2], points.shape[1]))
            for column, weight in enumerate(weights.unbind(1)):
                wanted = weight.any(1).nonzero()[:, 0]
                if len(wanted):
                    score = (values * weight)[wanted].sum(1)
                    (gradients[:, column],) = self.task.backward(score, (points,), again=True)
            told = scores.detach().log_softmax(1).gather(1, self.pair[sample].to(scores.device))
            return known, gradients.cpu().double(), told.cpu().double()

        values, slopes, told = self.task.map(differentiate, (z, torch.arange(len(z))), sample, gradient=True)
        return values, slopes, told

    def likely(self, z: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """log p_t and log p_p at x(z) (k, 2), and x(z) − I, in one chunk and as part of the autograd graph."""
        x = self.inputs(z, sample)
        scores = class_scores(self.task.output(x, sample))
        pair = self.pair[sample].to(scores.device)
        return scores.log_softmax(1).gather(1, pair), x - self.image[sample.to(x.device)]

    def constraints(self, scores: Tensor, sample: Tensor, margin: float | None = None) -> Tensor:
        """h and g (k, 1 + others) of scores (k, classes); h alone where there is no margin."""
        margin = self.margin if margin is None else margin
        classes = self.pair[sample].to(scores.device)
        true, probe = scores.gather(1, classes).unbind(1)
        if margin is None:
            return (true - probe)[:, None]
        others = torch.ones_like(scores, dtype=torch.bool).scatter(1, classes, False)
        rest = scores[others].view(len(scores), -1)
        return torch.cat(((true - probe)[:, None], rest - true[:, None] + margin), 1)


def pair_of(task: Task) -> Tensor:
    """The classes of a contrast (n, 2); of a class as target, that class and the strongest other one."""
    target = task.target
    if isinstance(target, Logit) and isinstance(target.index, Tensor):
        with torch.no_grad():
            output = task.map(task.output, task.inputs, gradient=False)
        target = Contrast(target.index).pin(task.size, output)
    if not isinstance(target, Contrast) or not isinstance(target.a, Tensor) or not isinstance(target.b, Tensor):
        raise TargetError("this asks why one class and not another: give Contrast(a, b), or a class for its runner-up")
    return torch.stack((target.a, target.b), 1)


def _check_fit(drawn: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise InputError unless what is drawn can stand in the place of an input."""
    if drawn != wanted and not (len(drawn) == len(wanted) == 3 and drawn[0] == wanted[0]):
        raise InputError(
            f"the latent model draws samples of shape {drawn}, but the model's inputs have shape {wanted}; only "
            "pictures of as many channels are resized. Train one on the model's own data: whybox.latent.train"
        )


def _resized(x: Tensor, features: tuple[int, ...]) -> Tensor:
    """Samples in another size: pictures only, bilinearly."""
    if tuple(x.shape[1:]) == tuple(features):
        return x
    resized: Tensor = torch.nn.functional.interpolate(
        x, tuple(features[1:]), mode="bilinear", align_corners=False, antialias=True
    )
    return resized
