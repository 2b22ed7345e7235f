"""`whybox compare`: check what was asked, load, compare, say the results, write the page."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whybox.cli import asked
from whybox.cli.terminal import Work, one_thread, progress, warn
from whybox.core.configs import config_title
from whybox.core.errors import InputError, WhyboxError

if TYPE_CHECKING:
    from torch import Tensor

    from whybox.core.model import Model
    from whybox.evaluation.comparison import Comparison

_SMALL = 1_000_000  # parameters


@dataclass(frozen=True)
class Request:
    """What was asked for, as it was written."""

    model: str
    weights: str | None
    data: str
    split: str
    methods: str | None
    metrics: str | None
    n: int
    device: str
    seed: int
    output: Path
    json: str | None
    command: str


def compare(request: Request, work: Work) -> None:
    """Do what was asked. All that can be checked without a model is checked before one is loaded."""
    work.doing = "checking what was asked"
    [(spec, weights)] = asked.models((request.model,), () if request.weights is None else (request.weights,))
    json_path = None if request.json in (None, "-") else Path(str(request.json))
    asked.outputs(request.output, json_path, [])
    options: dict[str, Any] = {"n": request.n, "seed": asked.seed(request.seed), "progress": progress()}
    if request.methods is not None:
        options["methods"] = asked.methods(request.methods)
    if request.metrics is not None:
        options["metrics"] = asked.metrics(request.metrics)
    device = asked.device(request.device)

    from whybox.evaluation import comparing
    from whybox.models import load

    work.doing = f"loading {spec}"
    model = load(spec, weights, device)
    work.doing = f"reading {request.data}"
    data = _data(request, model)
    work.doing = "comparing"
    try:
        with one_thread() if _is_small(model) else nullcontext():
            comparison = comparing.compare(model, data, **options)
    except comparing.ComparisonInterrupted as interrupt:
        if interrupt.comparison.cells:
            _write(interrupt.comparison, request, json_path, work)
        raise
    _write(comparison, request, json_path, work)
    to_stdout = request.json == "-"
    if to_stdout:
        typer.echo(json.dumps(comparison.as_json(), indent=1))
    typer.echo(f"{comparison}\n\n{request.output}", err=to_stdout)
    if request.methods is not None:
        _complain(comparison)


def _is_small(model: "Model") -> bool:
    """Whether threads would wait for each other longer than they work."""
    return sum(parameter.numel() for parameter in model.module.parameters()) < _SMALL


def _data(request: Request, model: "Model") -> "tuple[Tensor, Tensor | None]":
    """The inputs as the model wants them, and their classes; None where these are not the model's."""
    from torch import Tensor

    from whybox.datasets import load

    name = request.data
    preprocess = None if name.lower() == request.model == "digits" else model.preprocess
    if name.lower() == "20newsgroups":
        raise InputError("the command compares on pictures; for texts use whybox.compare in Python")
    inputs, labels = load(name, split=request.split, preprocess=preprocess)
    assert isinstance(inputs, Tensor)
    reference = model.reference_tensor()
    inputs = inputs if reference is None else inputs.to(reference)
    if name.lower().startswith("folder:") and labels is not None:
        classes, known = int(labels.max()) + 1, len(model.labels or ())
        if classes != known:
            warn(f"the folder holds {classes} classes, the model knows {known}: explained are the classes it predicts")
            labels = None
    return inputs, labels


def _write(comparison: "Comparison", request: Request, json_path: Path | None, work: Work) -> None:
    work.doing = "writing the page"
    comparison.save(request.output, request.command)
    work.written.append(str(request.output))
    if json_path is not None:
        json_path.write_text(json.dumps(comparison.as_json(), indent=1), encoding="utf-8")
        work.written.append(str(json_path))


def _complain(comparison: "Comparison") -> None:
    """Fail if a method that was asked for by name could not explain the model."""
    missing = [config_title(failure.method) for failure in comparison.failures if failure.metric is None]
    if missing:
        raise WhyboxError(
            f"{', '.join(missing)} cannot explain {comparison.model}. The page shows the others, says why"
        )
