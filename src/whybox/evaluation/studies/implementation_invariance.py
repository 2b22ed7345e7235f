"""ImplementationInvariance: two models that are the same function should have the same explanation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core.errors import InputError
from whybox.core.method import Method
from whybox.core.model import Model
from whybox.core.start import started
from whybox.core.target import Target
from whybox.core.tree import Inputs, as_tuple
from whybox.evaluation.controls import controls_for
from whybox.evaluation.similarity import as_rows
from whybox.evaluation.studies.study import Findings, Study, with_controls


@dataclass(frozen=True)
class ImplementationInvariance(Study):
    """Gap max |R − R′| / max |R| between the maps for two models that are the same function: 0 for invariant methods.

    First it is checked that the models give the same outputs for these inputs.
    Rows: of each method, and of the controls, the mean and largest `gap` over the samples, and the share of samples
    for which it is within the tolerance, `invariant`.
    Details: the gap of each sample, by method.
    Cost: each method twice, and 2 n forwards.
    Limits: that the outputs agree here does not prove that the functions are the same everywhere.
    Source: Sundararajan, Taly & Yan 2017, arXiv 1703.01365.

    Args:
        tolerance: how far outputs and maps may differ, as a share of their largest value.
    """

    tolerance: float = 1e-4

    def run(
        self,
        first: nn.Module | Model,
        second: nn.Module | Model,
        inputs: Inputs,
        methods: Sequence[Method | str],
        target: Any = None,
        *,
        seed: int = 0,
    ) -> Findings:
        """Answer for these methods and the controls.

        Args:
            first, second: the models; they are left as they were.
            inputs: what is explained, batch first.
            methods: methods or their names.
            target: what is explained; None for the class predicted by the first.
            seed: of the methods.

        Raises:
            InputError: the outputs differ: the models are not the same function.
        """
        outputs, pinned = _outputs(first, inputs, target)
        others, _ = _outputs(second, inputs, pinned)
        if outputs.shape != others.shape or not bool((_gap(outputs, others) <= self.tolerance).all()):
            apart = f"by {float(_gap(outputs, others).max()):.2g}" if outputs.shape == others.shape else "in shape"
            raise InputError(f"the models are not the same function: their outputs differ {apart}")
        rows, gaps = [], {}
        for title, method in with_controls(methods, controls_for(inputs)).items():
            maps = [_whole(method(model, inputs, pinned, seed=seed)) for model in (first, second)]
            gap = gaps[title] = _gap(*maps)
            invariant = float((gap <= self.tolerance).double().mean())
            rows.append(
                {"method": title, "gap": float(gap.mean()), "largest_gap": float(gap.max()), "invariant": invariant}
            )
        return Findings(rows, {"gap": gaps})


def _outputs(model: nn.Module | Model, inputs: Inputs, target: Any) -> tuple[Tensor, Target]:
    with started(model, inputs, target, differentiable=False) as task, torch.no_grad():
        return as_rows(task.map(task.output, task.inputs, gradient=False)), task.target


def _whole(relevance: Inputs) -> Tensor:
    """All the relevance of each sample in a row."""
    return torch.cat([as_rows(part) for part in as_tuple(relevance)], 1)


def _gap(one: Tensor, other: Tensor) -> Tensor:
    """The largest difference of each row from another's, as a share of the row's largest size; 0 for equal rows."""
    difference = (one - other).abs().amax(1)
    return torch.where(difference == 0, 0.0, difference / one.abs().amax(1))
