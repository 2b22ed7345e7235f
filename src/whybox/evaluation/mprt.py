"""The tests of randomised parameters: MPRT, its smooth form, and the one that compares complexity instead of maps."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy
import torch
from torch import Tensor

from whybox.attribution.smooth import SmoothGrad
from whybox.core.block import Block, mix
from whybox.core.errors import InputError
from whybox.core.model import Model
from whybox.core.task import Task
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.likeness import Likeness, Reading, likeness, read, unlike
from whybox.evaluation.metric import Limit, Metric, Scores
from whybox.evaluation.places import all_places
from whybox.evaluation.randomisation import Weights, layers_that_differ, randomised
from whybox.evaluation.similarity import Similarity

# So many random copies are tried for a sample until one gives a map that is not the same everywhere.
ATTEMPTS = 4

_DEAD = "with random weights, a map with no order to compare, however they were drawn"


@dataclass(frozen=True)
class _ByLayers(Metric):
    """What the tests have in common that randomise one layer after the other."""

    order: Literal["top_down", "bottom_up", "independent"] = "top_down"
    steps: int = 10
    compares: Reading = "signed"
    similarity: Similarity = "spearman"
    weights: Weights = "shuffled"

    family = "randomisation"
    higher_is_better = False

    @property
    def limit(self) -> Limit | None:  # type: ignore[override]
        """Of signed maps: the strengths of maps that are multiplied by the input stay alike whatever the weights."""
        return Limit(0.5, "it ignores the weights") if self.compares == "signed" else None

    explains_again = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"the model is randomised in at least one step, not {self.steps}")

    def _scores(self, case: Case) -> Scores:
        layers = case.samples.once(_Layers(self.weights))
        groups = self._groups(layers)
        first = read(case.samples, all_places(case.relevance, case.task.inputs), self.similarity)
        each_step = []
        for k, group in enumerate(groups):
            gone = group if self.order == "independent" else [name for part in groups[: k + 1] for name in part]
            chosen = tuple(name for name in layers if name in gone)  # in one order, so that equal ones are equal
            again = case.once(_Again(chosen, self.weights))
            each_step.append(likeness(first, read(case.samples, again, self.similarity)))
        found = Likeness(*(torch.stack(column, 1) for column in zip(*each_step, strict=True)))
        values = found.of(self.compares)
        details = {**found._asdict(), "layers": tuple(", ".join(name or "(the model)" for name in g) for g in groups)}
        return Scores(values.nanmean(1), details, unlike(case, first.blank, torch.isnan(values).any(1), _DEAD))

    def _groups(self, layers: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The layers in the order in which they are randomised, those of one step together."""
        ordered = {"top_down": layers[::-1], "bottom_up": layers, "independent": layers}[self.order]
        steps = min(self.steps, len(layers))
        ends = [round(len(layers) * k / steps) for k in range(steps + 1)]
        return [ordered[a:b] for a, b in pairwise(ends)]


@dataclass(frozen=True)
class MPRT(_ByLayers):
    """Mean over the steps l of ρ(R, R_l), R_l the map with layers 1 … l randomised: low where the weights matter.

    The model parameter randomisation test. The original itself is none of the steps. A layer is a module with
    parameters of its own; one whose parameters are the same once randomised is left out.
    Details: the `signed`, `absolute` and `foreground` likeness after each step, (n, steps), and the `layers` that went.
    Cost: `steps` times that of the method; up to four times as much for samples whose map comes out blank.
    Limits: noise in the map alone lowers ρ, and so does a random map drawn anew, so a low value proves nothing without
    faithfulness; a layer that the model does not use counts as one that does not matter; |R| of methods that multiply
    by the input stays alike.
    Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, arXiv 1810.03292.

    Args:
        order: randomise from the output on, from the input on, or each step's layers alone.
        steps: how often the map is made anew, consecutive layers going together where there are more.
        compares: which likeness is the score; all are in the details.
        similarity: ρ, over the positions, the channels summed.
        weights: "shuffled" within each parameter, or as they are "initial", before training.
    """

    def measure(self, case: Case) -> Scores:
        return self._scores(case)


@dataclass(frozen=True)
class SmoothMPRT(_ByLayers):
    """Mean over the steps l of ρ(S, S_l), S = mean over k of R(x + n_k): MPRT of maps without their noise.

    All the maps are the method's own averaged over noise, n_k ~ N(0, (noise · (max x − min x))²), that of the original
    model too; the relevance given is not used, but where it is constant or not finite it is reported.
    Details: the `signed`, `absolute` and `foreground` likeness after each step, (n, steps), and the `layers` that went.
    Cost: (`steps` + 1) · `samples` times that of the method.
    Limits: as for `MPRT`; what is tested is the smoothed method.
    Source: Hedström, Weber, Lapuschkin & Höhne 2023, arXiv 2401.06465.

    Args:
        order: randomise from the output on, from the input on, or each step's layers alone.
        steps: how often the map is made anew, consecutive layers going together where there are more.
        compares: which likeness is the score; all are in the details.
        similarity: ρ, over the positions, the channels summed.
        weights: "shuffled" within each parameter, or as they are "initial", before training.
        samples: number of noisy copies.
        noise: standard deviation of the noise, as a share of each sample's own range of values.
    """

    samples: int = 50
    noise: float = 0.1

    def measure(self, case: Case) -> Scores:
        return self._scores(case.once(_Smoothed(self.samples, self.noise)))


@dataclass(frozen=True)
class EfficientMPRT(Metric):
    """Rise (H(R′) − H(R)) / H(R) of the entropy of the map's histogram when all weights are random: high is good.

    A map that shows what was learned becomes more complex when that is lost; nothing is compared place by place.
    Details: the entropies `before` and `after`, (n,), in nats.
    Cost: that of the method once; up to four times as much for samples whose map comes out blank.
    Limits: says how much more complex the map becomes, not that it was right; a noisy map cannot rise.
    Source: Hedström, Weber, Lapuschkin & Höhne 2023, arXiv 2401.06465.

    Args:
        bins: of the histogram, equal steps from the map's lowest to its highest value.
        weights: "shuffled" within each parameter, or as they are "initial", before training.
    """

    bins: int = 100
    weights: Weights = "shuffled"

    family = "randomisation"
    higher_is_better = True
    explains_again = True

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise InputError(f"a histogram needs at least two bins, not {self.bins}")

    def measure(self, case: Case) -> Scores:
        layers = case.samples.once(_Layers(self.weights))
        maps = all_places(case.relevance, case.task.inputs), case.once(_Again(layers, self.weights))
        before, after = (_entropy(map, self.bins) for map in maps)
        rise = (after - before) / before
        skipped = unlike(case, torch.isnan(before), torch.isnan(after), _DEAD)
        return Scores(rise, {"before": before, "after": after}, skipped)


@dataclass(frozen=True)
class _Layers:
    """The names of the layers that randomising changes, as they are declared."""

    weights: Weights

    def measure(self, samples: Samples) -> tuple[str, ...]:
        model = samples.task.model
        changed = layers_that_differ(model.module, _copy(samples.task, None, self.weights).module)
        if not changed:
            raise InputError(f"{model.name} has no parameters that randomising would change")
        return tuple(changed)


@dataclass(frozen=True)
class _Again:
    """The maps (n, places) for a copy of the model in which these layers are random.

    A copy may be dead, or have nothing to say for a class: where its map is the same everywhere, which would be like no
    other and so pass any test, another copy is tried. What is blank at last, the caller must not count.
    """

    layers: tuple[str, ...]
    weights: Weights

    def measure(self, case: Case) -> Tensor:
        task = replace(case.task, model=_copy(case.task, self.layers, self.weights))
        maps = all_places(case.explain_in(task), task.inputs)
        for attempt in range(1, ATTEMPTS):
            blank = (maps == maps[:, :1]).all(1).nonzero().flatten()
            if not len(blank):
                break
            task = replace(case.task, model=_copy(case.task, self.layers, self.weights, attempt))
            block = Block(task, blank, torch.full_like(blank, attempt))
            variants = task.on(block.inputs, block)
            maps[blank] = all_places(case.explain_in(variants), variants.inputs)
        return maps


@dataclass(frozen=True)
class _Smoothed:
    """The same samples with the same method, averaged over noise."""

    samples: int
    noise: float

    def measure(self, case: Case) -> Case:
        if case.method is None:
            raise InputError("SmoothMPRT explains again: give method=, what the relevance comes from")
        smoothed = replace(case, method=SmoothGrad(case.method, self.samples, self.noise), known={})
        return replace(smoothed, relevance=smoothed.explain_in(smoothed.task))


def _copy(task: Task, layers: tuple[str, ...] | None, weights: Weights, attempt: int = 0) -> Model:
    """The copy of the run's model; its seed is the same for all samples, so that one copy serves them all."""
    return randomised(task.model, mix(task.keys[0], attempt), layers, weights)


def _entropy(maps: Tensor, bins: int) -> Tensor:
    """−Σ p log p over the histogram of each row (n,), in nats; NaN for a row that is the same everywhere."""
    low, high = maps.amin(1), maps.amax(1)
    varied = (low < high) & torch.isfinite(maps).all(1)
    found = torch.full_like(low, torch.nan)
    if bool(varied.any()):
        edges = numpy.linspace(low[varied].numpy(), high[varied].numpy(), bins + 1, axis=1)
        inner = torch.as_tensor(edges[:, 1:-1]).contiguous()  # the highest value belongs to the last bin
        place = torch.searchsorted(inner, maps[varied], right=True)
        share = torch.zeros(len(edges), bins, dtype=torch.float64)
        share.scatter_add_(1, place, torch.ones_like(place, dtype=torch.float64))
        found[varied] = -torch.xlogy(share / maps.shape[1], share / maps.shape[1]).sum(1)
    return found
