"""Trials: explanations of the same samples put to the test one sample at a time, beside maps that know nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whybox.core.block import mix
from whybox.core.configs import config_title
from whybox.core.method import Check, Method
from whybox.core.model import Model
from whybox.core.reference import Infill, Shuffled, UniformNoise, Zero
from whybox.core.start import started
from whybox.core.tree import Inputs, as_tuple
from whybox.evaluation.case import Samples
from whybox.evaluation.controls import RandomMap, controls_for
from whybox.evaluation.metric import Metric
from whybox.evaluation.metric import case as as_case
from whybox.evaluation.mosaic import TILES, Mosaic
from whybox.evaluation.region_perturbation import RegionPerturbation
from whybox.evaluation.suite import of_size
from whybox.evaluation.token_deletion import TokenDeletion

# Beside each explanation so many random maps are tried. All of them have to be beaten, which a further random map does
# with probability 1/5.
RANDOM_MAPS = 4
# How often the model is asked on the way: enough to tell maps apart in one sample.
LEVELS = 5
# Where no map's places cost more than this share of the answer, the trial cannot tell one map from another.
LEAST = 0.01
RANDOM = f"the best of {RANDOM_MAPS} random maps"


@dataclass(frozen=True, eq=False)
class Trial:
    """One metric of all explanations: how much more it costs to lose what they call most relevant than least relevant.

    Attributes:
        metric: its configuration; a map that knows nothing has a score of 0 on average, and higher is better.
        scores: by explanation, the score of each sample (n,); NaN where there is none.
        controls: by the name of what knows nothing of the model, the score of each sample (n,).
        telling: whether the trial can tell maps of the sample apart (n,): the answer depends on what is taken away.
    """

    metric: dict[str, Any]
    scores: tuple[Tensor, ...]
    controls: dict[str, Tensor]
    telling: Tensor

    @property
    def infill(self) -> str:
        """What replaced what was taken away, as text."""
        return config_title(self.metric["infill"])

    def ahead(self, explanation: int, sample: int) -> tuple[str, ...]:
        """The controls that do as well as the explanation of this sample, or better."""
        score = float(self.scores[explanation][sample])
        return tuple(name for name, values in self.controls.items() if float(values[sample]) >= score)


def trials(
    model: Model | nn.Module,
    inputs: Inputs,
    target: Any,
    relevances: Sequence[Inputs],
    *,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Trial, ...]:
    """Take away what each explanation calls most relevant, and what it calls least, and compare the losses.

    With two infills. The metric is the area between the two curves: RegionPerturbation(order="both") where there are
    positions, as in Samek et al. 2017, TokenDeletion(order="both") on tables and tokens; with 5 levels. What replaces
    the values harms the model in itself; that cancels, so that a map that knows nothing scores 0 on average.

    Args:
        model, inputs, target, seed, progress: as in `Metric.run`.
        relevances: the explanations, each of the inputs' rank.

    Cost: 20 forwards per sample for every explanation and control (of these up to seven), and one more.
    """
    with started(model, inputs, target, seed=seed, progress=progress, differentiable=False) as task:
        samples = Samples(task)
        cases = [as_case(samples, relevance) for relevance in relevances]
        random = [
            as_case(samples, RandomMap().attribute(replace(task, keys=tuple(mix(key, draw) for key in task.keys))))
            for draw in range(RANDOM_MAPS)
        ]
        others = [method for method in controls_for(task.inputs) if not isinstance(method, RandomMap)]
        knowing_nothing = {config_title(one.config()): as_case(samples, one.attribute(task)) for one in others}
        found = []
        for metric in _metrics(samples):
            answer = getattr(samples.originals, metric.follows)  # type: ignore[attr-defined]
            scores = tuple(metric.score(one).values for one in cases)
            controls = {
                RANDOM: torch.stack([metric.score(one).values for one in random]).amax(0),
                **{name: metric.score(one).values for name, one in knowing_nothing.items()},
            }
            largest = torch.stack((*scores, *controls.values())).abs().nan_to_num(0.0).amax(0)
            found.append(Trial(metric.config(), scores, controls, largest > LEAST * answer.abs()))
        return tuple(found)


def outside_the_tile(
    model: Model | nn.Module,
    inputs: Inputs,
    target: Any,
    relevances: Sequence[Inputs],
    methods: Sequence[Method],
    *,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Check, ...]:
    """How much of each method's relevance falls on the other pictures of a mosaic; nothing where none can be made.

    Args:
        model, inputs, target, seed, progress: as in `Metric.run`.
        relevances, methods: the explanations, and what they come from.

    Cost: that of every method once, on pictures of up to four times the size; nothing with fewer than four pictures.
    """
    if isinstance(inputs, tuple) or inputs.ndim != 4 or len(inputs) < TILES:
        return ()
    with started(model, inputs, target, seed=seed, progress=progress, differentiable=False) as task:
        samples = Samples(task)
        explained = zip(relevances, methods, strict=True)
        shares = [Mosaic().score(as_case(samples, relevance, method)).values for relevance, method in explained]
    if all(bool(share.isnan().all()) for share in shares):
        return ()
    return tuple(
        Check(
            "relevance on the wrong pictures of a mosaic",
            1 - share,
            1 - 1 / TILES,
            "In a mosaic of this picture and three of other classes, the share of the relevance above zero that falls "
            "outside this one. A map that cannot tell where the class is seen has 0.75.",
        )
        for share in shares
    )


def _metrics(samples: Samples) -> list[Metric]:
    """The metric that suits the inputs, once for each infill."""
    inputs = as_tuple(samples.task.inputs)
    no_class = bool(samples.originals.probability.isnan().all())
    follows: Literal["score", "probability"] = "score" if no_class else "probability"
    infills: tuple[Infill, ...] = (UniformNoise(), Zero())
    if not all(x.is_floating_point() for x in inputs):
        infills = (Shuffled(), Zero())
    metric: Metric = TokenDeletion(tokens=LEVELS, order="both", follows=follows)
    if all(x.ndim > 2 for x in inputs):
        metric = of_size(RegionPerturbation(levels=LEVELS, order="both", follows=follows), samples.task.inputs)
    return [replace(metric, infill=infill) for infill in infills]  # type: ignore[type-var]
