"""PatternNet and PatternAttribution: back through a net along what its weights detect, not along the weights."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from whybox.attribution.backprop.patterns import Backward, Patterns, learned
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.model import Model
from whybox.core.task import Task, leaf
from whybox.core.tree import Inputs, as_tuple, like

Estimator = Literal["relu", "linear"]


@dataclass(frozen=True)
class PatternNet(Method):
    """Relevance R = y · gradient with patterns a in the place of weights w: the signal in the input, layer by layer.

    A weight filters: it must cancel what distracts, so that it shows the signal as little as a lock shows the key. The
    pattern says where in a layer's input the signal lies that makes y = wᵀx vary; `fit(model, loader)` learns it for
    each neuron: a = cov[x, y] / var[y], and where a ReLU follows a₊ = (E₊[xy] − E₊[x] E[y]) / wᵀ(the same), E₊ over the
    samples, and positions of a convolution, at which the ReLU is open; y without the bias; wᵀa = 1. Batch norm is
    folded into the layer before it, or inverted where it stands alone; a sum of two branches has a pattern as well, one
    for each channel; pooling and activations keep their gradient. A layer that runs twice has a pattern for each run. A
    contrast of scores has the difference of their patterns. Signed, in the shape of the input.
    Details: `without a pattern`, the outputs that never varied when it was fitted, through which nothing passes.
    Cost: one forward and one backward pass, in which every layer runs once more. To fit, for each input a forward pass,
    and a forward and two weight gradients of every layer.
    Limits: explains the model that it was fitted to, by data like those of the fit, and refuses another one. Shows what
    co-varies with a neuron, be it used or not. Made for linear and convolutional layers with ReLUs: attention, products
    of two signals, layer norm and recurrence are refused. The pattern is the same for all inputs, but for which ReLUs
    are open.
    Source: Kindermans, Schütt, Alber, Müller, Erhan, Kim & Dähne 2017, arXiv 1705.05598.

    Args:
        estimator: "relu", or "linear" for a = cov[x, y] / var[y] in all layers.
    """

    estimator: Estimator = "relu"

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition", trains=True)

    def __post_init__(self) -> None:
        _check(self.estimator)

    def learn(self, model: Model, data: Any, *, seed: int, progress: bool) -> dict[str, Tensor]:
        """The pattern of every neuron; the same as PatternAttribution learns."""
        return learned(model, data, linear=self.estimator == "linear", progress=progress)

    def attribute(self, task: Task) -> Attribution:
        return _explained(task, type(self).__name__, attribution=False)


@dataclass(frozen=True)
class PatternAttribution(Method):
    """Relevance R = y · gradient with w ⊙ a in the place of weights w: what the signal in the input adds to y.

    a is the pattern of a neuron, which `fit(model, loader)` learns as for PatternNet: what of a layer's input makes the
    neuron vary. The rule is that of a Taylor expansion of each neuron, as in DeepTaylor, at the root x − a wᵀx, where
    the signal is gone and the distractor is left. As wᵀa = 1 a layer hands on all of the relevance that arrives; what
    then falls on closed ReLUs or on padding is lost. Signed, in the shape of the input.
    Details: `without a pattern`, the outputs that never varied when it was fitted, through which nothing passes.
    Cost: as PatternNet's: one forward and one backward pass, in which every layer runs once more; to fit, for each
    input a forward pass, and a forward and two weight gradients of every layer.
    Limits: those of PatternNet. Of the input it knows only which ReLUs are open: where the input lacks what the neuron
    detects, the pattern is drawn all the same. On ResNet-20 its maps were hardly better than random ones when the most
    relevant patches were replaced (docs/experiments/patterns.md).
    Source: Kindermans, Schütt, Alber, Müller, Erhan, Kim & Dähne 2017, arXiv 1705.05598.

    Args:
        estimator: "relu", or "linear" for a = cov[x, y] / var[y] in all layers.
    """

    estimator: Estimator = "relu"

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition", trains=True)

    def __post_init__(self) -> None:
        _check(self.estimator)

    def learn(self, model: Model, data: Any, *, seed: int, progress: bool) -> dict[str, Tensor]:
        """The pattern of every neuron; the same as PatternNet learns."""
        return learned(model, data, linear=self.estimator == "linear", progress=progress)

    def attribute(self, task: Task) -> Attribution:
        return _explained(task, type(self).__name__, attribution=True)


def _check(estimator: str) -> None:
    if estimator not in ("relu", "linear"):
        raise InputError(f"estimator is 'relu' or 'linear', not {estimator!r}")


def _explained(task: Task, name: str, *, attribution: bool) -> Attribution:
    """The score times its gradient with the patterns that were learned in the place of weights."""
    if task.state is None:
        raise InputError(
            f"{name} learns before it explains: fitted = {name}().fit(model, loader), then fitted(model, inputs)"
        )
    patterns = Patterns(task.state, attribution=attribution)

    def explain(inputs: Inputs, sample: Tensor) -> Inputs:
        leaves = tuple(map(leaf, as_tuple(inputs)))
        maps = Backward(task.model.module, patterns)
        with maps:
            score = maps.current(task.forward(like(inputs, tuple(map(maps.explain, leaves))), sample))
        back = task.backward(score, leaves)
        return like(inputs, tuple(score.detach().view(-1, *(1,) * (x.ndim - 1)) * x for x in back))

    relevance = task.map(explain, task.inputs, gradient=True)
    unknown = patterns.unknown()
    worst = max((without / of for without, of in unknown.values()), default=0.0)
    check = Check(
        "outputs without a pattern",
        torch.full((task.size,), worst, dtype=torch.float64),
        0.5,
        "The share of a layer's outputs, in the worst layer, that never varied when the patterns were fitted: dead "
        "neurons, or too few data. Nothing passes through them.",
    )
    lacking = tuple(f"{without} of {of} in {name!r}" for name, (without, of) in unknown.items())
    return Attribution(relevance, {"without a pattern": lacking}, (check,))
