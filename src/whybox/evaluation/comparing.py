"""compare: several methods, scored by several metrics on the same samples, beside maps that know nothing."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core import registry
from whybox.core.configs import config_title
from whybox.core.errors import InputError, WhyboxError
from whybox.core.explanation import versions
from whybox.core.method import Method
from whybox.core.model import Model
from whybox.core.reference import Infill
from whybox.core.start import check_inputs, started
from whybox.core.target import Target, as_target
from whybox.core.tree import Inputs, as_tuple, each
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.comparison import Comparison
from whybox.evaluation.controls import controls_for
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.metric import case as as_case
from whybox.evaluation.parts import Cell, Criterion, Explained, Failure
from whybox.evaluation.suite import METHODS, metrics_for, with_infills

logger = logging.getLogger(__name__)


class ComparisonInterrupted(KeyboardInterrupt):
    """Ctrl-C while comparing; `comparison` holds what was measured until then."""

    def __init__(self, comparison: Comparison, planned: int) -> None:
        super().__init__()
        self.comparison = comparison
        self.add_note(f"{len(comparison.cells)} of {planned} scores were measured")


def compare(
    model: Model | nn.Module,
    data: Any,
    methods: Iterable[Method | str] = METHODS,
    metrics: Iterable[Metric | str] | None = None,
    *,
    n: int | None = 64,
    controls: bool = True,
    infills: Iterable[Infill] | None = None,
    truth: Tensor | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Score the explanations of several methods by several metrics, and say which to use for this model.

    Every method explains the samples once. All metrics work on the same samples, and share what they measure of the
    same explanation; where a metric removes something, it is run with two infills, because another infill can reverse
    the order of methods. A method beats another one where the 95 % bootstrap interval of the mean difference, sample by
    sample, excludes 0.

    Args:
        model: any `nn.Module`, or a Model around one.
        data: `(inputs, target)`, as `whybox.datasets.load` gives them. The target is what is explained, as in
            `Method.run`: the right classes, for example; None for the classes predicted.
        methods: methods, their names, or text such as "smooth_grad(samples=64)"; `External` ones too.
        metrics: metrics, their names, or text such as "deletion(steps=20)". None for the suite, `suite.METRICS`, as far
            as it suits the inputs; RegionPerturbation at the share of the picture that its paper replaces.
        n: how many samples are drawn at random from the data; None for all.
        controls: whether maps that know nothing of the model are scored too. Without them it is not known whether any
            score means something.
        infills: what replaces what is removed, for all metrics that have an infill. None for each metric's own and a
            second one; empty for its own alone.
        truth: where the evidence lies, one row for each row of the data, for metrics of localisation.
        forward_kwargs: keyword arguments of the model; tensors with one row per sample follow the samples.
        seed: of the samples drawn, of all noise and of the bootstrap.
        progress: show a bar on anything over two seconds.

    Returns:
        the comparison: `.table`, `.recommendation`, `.plot()`, `.save("x.html")`, `.save("x.json")`; print it to read
        it. A method that cannot explain this model, or that a metric cannot score, is among its `failures`.

    Raises:
        InputError, TargetError, UnknownNameError: what is asked is wrong; before any long work.
        WhyboxError: no method could explain the model; the first one's error.
        ComparisonInterrupted: Ctrl-C; a KeyboardInterrupt that holds what was measured.

    Cost: with the suite and two infills, some 220 forwards per sample and method, and 15 times that of every method:
        once to explain, 8 times nearby, 5 times with other weights and once on a mosaic.
    """
    model = Model.wrap(model)
    if n is not None and n < 1:
        raise InputError(f"n is the number of samples to compare on, at least 1, not {n}")
    samples = _drawn(model, data, n, truth, forward_kwargs or {}, seed)
    asked = [_method(method) for method in methods]
    known = list(controls_for(samples.inputs)) if controls else []
    asked = [method for method in dict.fromkeys(asked) if method not in known]
    if not asked:
        raise InputError("there is no method to compare; `whybox methods` lists them")
    criteria = _criteria(metrics, infills, samples)
    with started(
        model,
        samples.inputs,
        samples.target,
        forward_kwargs=samples.kwargs,
        seed=seed,
        progress=progress,
        differentiable=False,
    ) as task:
        run = _Run(Samples(task), criteria, samples.truth, seed)
        right = (run.samples.originals.right != 0).tolist()  # NaN where the target is no class
        complete = True
        try:
            run.measure([(method, False) for method in asked] + [(control, True) for control in known])
        except KeyboardInterrupt:
            complete = False
        found = Comparison(
            model=model.name,
            samples=samples.rows,
            wrong=tuple(row for row, fine in zip(samples.rows, right, strict=True) if not fine),
            explained=tuple(run.explained),
            criteria=tuple(map(_criterion, criteria)),
            cells=run.cells,
            failures=tuple(run.failures),
            seed=seed,
            complete=complete,
            seconds=time.perf_counter() - run.began,
            forwards=task.cost.forwards + sum(one.forwards for one in run.explained),
            backwards=task.cost.backwards + sum(one.backwards for one in run.explained),
            versions=versions(),
        )
    if not complete:
        raise ComparisonInterrupted(found, (len(asked) + len(known)) * len(criteria)) from None
    if not any(not one.control for one in found.explained):
        raise run.errors[0]
    return found


@dataclass(frozen=True)
class _Drawn:
    """The samples that are compared on, and which rows of the data they are."""

    rows: tuple[int, ...]
    inputs: Inputs
    target: Target
    truth: Tensor | None
    kwargs: dict[str, Any]


def _drawn(
    model: Model, data: Any, n: int | None, truth: Tensor | None, kwargs: Mapping[str, Any], seed: int
) -> _Drawn:
    """n samples at random, in the order of the data, with all that belongs to them."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise InputError("data is a pair, (inputs, target): the target may be None, to explain the class predicted")
    inputs, target = data[0], as_target(data[1])
    check_inputs(inputs, model, differentiable=False)
    total = len(as_tuple(inputs)[0])
    beside = {f"the target's {name}": value for name, value in vars(target).items() if isinstance(value, Tensor)}
    for name, value in {**beside, "truth": truth}.items():
        if isinstance(value, Tensor) and value.ndim and len(value) != total:
            raise InputError(f"{name} has {len(value)} rows for {total} samples; give one for each")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(total, generator=generator)[:n].sort().values

    def of_rows(x: Tensor) -> Tensor:
        return x[rows.to(x.device)]

    return _Drawn(
        tuple(rows.tolist()),
        each(of_rows, inputs),
        target.rows(rows) if all(value.ndim for value in beside.values()) else target,
        None if truth is None else of_rows(truth),
        {
            name: of_rows(value) if isinstance(value, Tensor) and value.ndim and len(value) == total else value
            for name, value in kwargs.items()
        },
    )


def _method(method: Any) -> Method:
    found = registry.method(method) if isinstance(method, str) else method
    if not isinstance(found, Method):
        raise InputError(f"a method is a whybox.Method or its name, not {found!r}; wrap a callable in whybox.External")
    return found


def _criteria(
    metrics: Iterable[Metric | str] | None, infills: Iterable[Infill] | None, samples: _Drawn
) -> list[Metric]:
    """The metrics, each with its infills."""
    if metrics is None:
        chosen = metrics_for(samples.inputs, truth=samples.truth is not None)
    else:
        chosen = [registry.metric(metric) if isinstance(metric, str) else metric for metric in metrics]
    for metric in chosen:
        if not isinstance(metric, Metric):
            raise InputError(f"a metric is a whybox.Metric or its name, not {metric!r}")
        if metric.needs_truth and samples.truth is None:
            raise InputError(f"{type(metric).__name__} compares with the truth: give truth=, masks or boxes")
    given = None if infills is None else tuple(infills)
    found = list(dict.fromkeys(one for metric in chosen for one in with_infills(metric, given, samples.inputs)))
    if not found:
        raise InputError("there is no metric to compare by; `whybox metrics` lists them")
    return found


def _criterion(metric: Metric) -> Criterion:
    limit = (metric.limit.value, metric.limit.says) if metric.limit is not None else (None, "")
    return Criterion(metric.config(), metric.family, metric.higher_is_better, *limit)


@dataclass
class _Run:
    """What is measured, as it is measured."""

    samples: Samples
    metrics: Sequence[Metric]
    truth: Tensor | None
    seed: int
    explained: list[Explained] = field(default_factory=list)
    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def measure(self, methods: Sequence[tuple[Method, bool]]) -> None:
        """Explain with every method, and score what it gives by every metric."""
        with self.samples.task.bar(len(methods) * (len(self.metrics) + 1)) as bar:
            for method, control in methods:
                case = self._explain(method, control)
                bar.update(1)
                for column, metric in enumerate(self.metrics):
                    if case is not None:
                        self._score(case, column, metric)
                    bar.update(1)

    def _explain(self, method: Method, control: bool) -> Case | None:
        """The method's relevance as a case; None, and a failure, where it has none to give."""
        task = self.samples.task
        try:
            answer = method.run(task.model, task.inputs, task.target, forward_kwargs=task.kwargs, seed=self.seed)
            case = as_case(self.samples, answer.relevance, method, self.truth)
        except Exception as error:  # also what a callable of another library, or the user's model, raises
            self._fail(method, None, error)
            self.errors += [error] * (not control)
            return None
        self.explained.append(Explained(method.config(), control, answer.seconds, answer.forwards, answer.backwards))
        return case

    def _score(self, case: Case, column: int, metric: Metric) -> None:
        assert case.method is not None
        try:
            scores = metric.score(case)
        except Exception as error:
            self._fail(case.method, metric, error)
            return
        self.cells[len(self.explained) - 1, column] = _cell(scores)

    def _fail(self, method: Method, metric: Metric | None, error: Exception) -> None:
        message = str(error) if isinstance(error, WhyboxError) else f"{type(error).__name__}: {error}"
        self.failures.append(Failure(method.config(), None if metric is None else metric.config(), message))
        logger.info("%s: %s", config_title(method.config()), message)


def _cell(scores: Scores) -> Cell:
    values = torch.where(torch.isfinite(scores.values), scores.values, math.nan)
    skipped = {reason: tuple(rows.nonzero().flatten().tolist()) for reason, rows in scores.skipped.items()}
    return Cell(
        tuple(values.tolist()),
        {reason: rows for reason, rows in skipped.items() if rows},
        scores.seconds,
        scores.forwards,
        scores.backwards,
    )
