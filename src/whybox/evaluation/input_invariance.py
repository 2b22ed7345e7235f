"""Input invariance: whether the map depends on where the zero of the input's scale is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whybox.core.errors import InputError
from whybox.core.model import Domain, Model
from whybox.core.tree import as_tuple, like
from whybox.evaluation.case import Case
from whybox.evaluation.distance import flat_maps, length
from whybox.evaluation.metric import Metric, Scores, unless


@dataclass(frozen=True)
class InputInvariance(Metric):
    """‖R₂(x + c) − R(x)‖ / ‖R(x)‖, R₂ of the model f₂(x + c) = f(x): how much the map depends on the scale's zero.

    f₂ subtracts the constant c before the model begins, for any model exactly: it is f(x) of inputs measured from
    another zero. (Putting c into the first layer's bias is the same only where no padding is added before it.) The
    domain moves along, so that a baseline that is a shade, such as black, stays that shade, and zero becomes another.
    Details: whether the change is within the tolerance, `passed`, (n,).
    Cost: one explanation per sample.
    Limits: a map may depend on the zero for a good reason, where zero means "nothing there". LRP's composites that
    hand relevance through a model's own rescaling of its input (all named ones but `epsilon`) take the shift for one.
    A method that draws random numbers must have drawn them from this metric's seed. In half precision the rounding of
    x + c alone can be more than the tolerance.
    Source: Kindermans, Hooker, Adebayo, Alber, Schütt, Dähne, Erhan & Kim 2017, arXiv 1711.00867.

    Args:
        shift: c, as a share of the width of the input's domain (of its widest channel).
        tolerance: the largest change that passes.
    """

    shift: float = -1.0
    tolerance: float = 0.01

    family = "axioms"
    higher_is_better = False
    explains_again = True

    def __post_init__(self) -> None:
        if self.shift == 0 or not abs(self.shift) < torch.inf or not self.tolerance >= 0:
            raise InputError(
                f"the shift is a number other than 0 and the tolerance at least 0, not {self.shift}, {self.tolerance}"
            )

    def measure(self, case: Case) -> Scores:
        task = case.task
        parts = as_tuple(task.inputs)
        if not all(x.is_floating_point() for x in parts):
            raise InputError("an input of integers has no scale that could be shifted; give the model's embeddings")
        by = [self.shift * _width(domain) for domain in task.domains()]
        if not all(by):
            raise InputError("all values of the batch are equal, so that its domain has no width; give Model(domain=…)")
        inputs = like(task.inputs, tuple(x + c for x, c in zip(parts, by, strict=True)))
        with _shifted(task.model, by, self.shift) as model:
            again = case.explain_in(replace(task, model=model, inputs=inputs))
        before, after = flat_maps(case.relevance, again)
        size = length(before, "l2").cpu()
        change = length(after - before, "l2").cpu() / size
        skipped = {
            "no relevance anywhere": size == 0,
            "relevance of the shifted input is not finite": case.finite() & ~torch.isfinite(after).all(1).cpu(),
        }
        values = unless(skipped, change)
        return Scores(values, {"passed": values <= self.tolerance}, skipped)


@contextmanager
def _shifted(model: Model, by: list[float], share: float) -> Iterator[Model]:
    """While the context lasts: the same model, for inputs from which it subtracts a constant (in this thread)."""
    owner = threading.get_ident()

    def subtract(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return tuple(x - c for x, c in zip(inputs, by, strict=True)) if threading.get_ident() == owner else None

    handle = model.module.register_forward_pre_hook(subtract)
    try:
        yield Model(
            model.module,
            name=f"{model.name}, its input shifted",
            domain=model.domain and _moved(model.domain, share * _width(model.domain)),
            labels=model.labels,
            chunk=model.chunk,
        )
    finally:
        handle.remove()


def _width(domain: Domain) -> float:
    """That of the widest channel: one constant for all, which leaves each sample's range of values as it is."""
    return max(high - low for low, high in zip(domain.low, domain.high, strict=True))


def _moved(domain: Domain, by: float) -> Domain:
    low, high = (tuple(bound + by for bound in bounds) for bounds in (domain.low, domain.high))
    return Domain(low, high, domain.source)
