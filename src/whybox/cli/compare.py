"""`whybox compare`: check what was asked, load, compare, say the results, write the page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whybox.cli import asked, data
from whybox.cli.terminal import Work, progress, threads_for, warn
from whybox.core.configs import config_title
from whybox.core.errors import WhyboxError

if TYPE_CHECKING:
    from whybox.evaluation.comparison import Comparison


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
        options["methods"] = asked.methods(request.methods, request.model)
    if request.metrics is not None:
        options["metrics"] = asked.metrics(request.metrics)
    device = asked.device(request.device)

    from whybox.evaluation import comparing
    from whybox.models import load

    work.doing = f"loading {spec}"
    model = load(spec, weights, device)
    work.doing = f"reading {request.data}"
    inputs, labels = data.read(request.data, request.split, model, request.model)
    why = data.misfit(request.data, labels, model)
    if why:
        warn(f"{why}: explained are the classes it predicts")
        labels = None
    work.doing = "comparing"
    try:
        with threads_for(model):
            comparison = comparing.compare(model, (inputs, labels), **options)
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
