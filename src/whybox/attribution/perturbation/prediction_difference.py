"""Prediction difference analysis: what the prediction is without knowing a part of the input."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.perturbation.conditional import Conditional, fit_patches, patch_sizes
from whybox.attribution.perturbation.engine import Engine, ask
from whybox.attribution.perturbation.windows import Windows
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.model import Model
from whybox.core.reference import Infill, Shuffled
from whybox.core.start import check_inputs
from whybox.core.target import Logit, LogProbability, Probability, Target
from whybox.core.task import Task, noise_keys
from whybox.core.tree import Inputs

# The number of training samples N of the Laplace correction (pN + 1) / (N + K), as in the authors' code.
TRAINING_SAMPLES = 1e5


@dataclass(frozen=True)
class PredictionDifference(Method):
    """Relevance R(p) = mean over windows i ∋ p of log₂ odds(c|x) − log₂ odds(c|x∖i): the evidence for a class, in bits.

    p(c|x∖i) is the mean probability of the class c over `samples` draws of what the window may hold. After
    `fit(model, data)` they are from the Gaussian that the data's patches have in each channel, given what lies around
    the window: mean μ₁ + Σ₁₂Σ₂₂⁻¹(x₂ − μ₂), covariance Σ₁₁ − Σ₁₂Σ₂₂⁻¹Σ₂₁, clipped to the data's range; a column of a
    table is drawn given all others. Otherwise they are from `infill`, whatever lies around: `Sample()` for values of
    other samples. Odds are q/(1 − q) of q = (pN + 1)/(N + K), N = 1e5, K classes.
    A class (by number, `Logit`, `Probability`) is explained by its probability: with a single output the sigmoid, in a
    dense output the mean over positions. Any other target (`Neuron`, `Contrast`, `LogProbability`, a function) has the
    raw difference f(x) − mean f(x∖i); for a contrast of scores that is the evidence for one class against the other, in
    nats. Signed, size 1 on the channel axis. What the model ignores gets 0, exactly where it answers alike in chunks of
    all sizes.
    Cost: `samples` forward passes for each window, one with a fixed infill, and one more; some 475,000 for a picture of
    227 × 227, 5,300 for one of 32 × 32; memory does not grow with `samples`.
    Limits: a window whose content follows from what is around it gets little, and so does evidence that stands twice
    in the input; a Gaussian knows textures, not things; noisy, with an error that falls as 1/√samples. The odds are
    capped at N/(K − 1), 6.6 bits for 1,000 classes, so a prediction close to certain shows little: explain a contrast.
    Source: Zintgraf, Cohen, Adel & Welling 2017, arXiv 1702.04595; Robnik-Šikonja & Kononenko 2008,
    doi 10.1109/TKDE.2007.190734.

    Args:
        window: width of a window in positions, for all axes or for each; None for 10, or a third of a shorter axis, and
            for single columns and tokens.
        stride: from one window to the next, at most the window; None for half of it.
        samples: draws for each window.
        margin: places around a window given which it is drawn, once fitted: 2 for the paper's patches of 14.
        infill: where draws come from, unless fitted.
    """

    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = 1
    samples: int = 10
    margin: int = 2
    infill: Infill = field(default_factory=Shuffled)

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="dependence")

    def __post_init__(self) -> None:
        whole = isinstance(self.samples, int) and isinstance(self.margin, int)
        if not whole or self.samples < 1 or self.margin < 0:
            raise InputError(
                f"PredictionDifference needs whole samples ≥ 1 and margin ≥ 0, not {self.samples}, {self.margin}"
            )

    def learn(self, model: Model, data: Any, *, seed: int, progress: bool) -> dict[str, Tensor]:
        """The Gaussian of the patches in `data`: (n, channels, *positions), or a table (n, columns)."""
        check_inputs(data, model, differentiable=False)
        if isinstance(data, tuple) or data.ndim < 2 or not data.is_floating_point():
            raise InputError(
                "a Gaussian is fitted to one tensor of numbers (n, channels, …) or (n, columns); without fit, tokens "
                "and several inputs are replaced by an infill, such as Sample()"
            )
        windows = self._windows(Task(model, data, Logit(0), noise_keys(seed, len(data))))
        return fit_patches(data, patch_sizes(windows, self.margin), seed)

    def attribute(self, task: Task) -> Attribution:
        task = replace(task, target=_probability(task.target))
        windows = self._windows(task)
        count = sum(windows.counts)
        draws = 1 if task.state is None and self.infill.fixed else self.samples
        variants = 1 + count * draws  # number 0 is the original
        if task.state is None:
            engine = Engine(task, self.infill)
            chunks = engine.scores(variants, lambda _, number: windows.kept((number - 1) // draws))
        else:
            patches = Conditional(task, windows, patch_sizes(windows, self.margin), task.state)

            def make(sample: Tensor, number: Tensor) -> tuple[Inputs, None]:
                return patches.hide(sample, (number - 1) // draws, number), None

            chunks = ask(task, variants, make)
        original = torch.zeros(task.size, 1, dtype=torch.float64)
        falls = torch.zeros(task.size, count, dtype=torch.float64)
        for chunk in chunks:
            first = chunk.number == 0
            original[chunk.sample[first], 0] = chunk.score[first]
            # Differences are averaged, not scores, so that what changes nothing has exactly 0.
            fall = original[chunk.sample, 0] - chunk.score
            place = chunk.sample * count + (chunk.number - 1).clamp_min(0) // draws
            falls.view(-1).index_add_(0, place, fall / draws)
        values = falls
        if isinstance(task.target, _Corrected):
            values = _log_odds(original) - _log_odds(original - falls)
        grids = windows.grids(values)
        return Attribution(windows.average(values), {"differences": grids if len(grids) > 1 else grids[0]})

    def _windows(self, task: Task) -> Windows:
        return Windows.of(task, self.window, self.stride, lambda size: min(10, -(-size // 3)))


@dataclass(frozen=True, eq=False)
class _Corrected(Probability):
    """The probability of a class after the Laplace correction, which commutes with the mean over draws."""

    def score(self, output: Tensor) -> Tensor:
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        columns = output.shape[1] if output.ndim > 1 else 1
        positions = 1 if isinstance(self.index, tuple) else output[0].numel() // columns
        p = super().score(output) / positions
        return (p * TRAINING_SAMPLES + 1) / (TRAINING_SAMPLES + max(columns, 2))


def _probability(target: Target) -> Target:
    """The corrected probability of a class that is named; any other target as it is."""
    if isinstance(target, Logit) and not isinstance(target, LogProbability):
        return _Corrected(target.index)
    return target


def _log_odds(p: Tensor) -> Tensor:
    return (p / (1 - p)).log2()
