"""`whybox fit`: check what was asked, load, let a method learn from the data, write what it has learned."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whybox.cli import asked, data
from whybox.cli.methods import written
from whybox.cli.terminal import Work, progress, threads_for
from whybox.core.errors import InputError
from whybox.core.text import wrap

if TYPE_CHECKING:
    from whybox.core.method import Fitted, Method
    from whybox.core.model import Model


@dataclass(frozen=True)
class Request:
    """What was asked for, as it was written."""

    method: str
    model: str
    weights: str | None
    data: str
    split: str
    device: str
    seed: int
    output: Path


def fit(request: Request, work: Work) -> None:
    """Do what was asked. All that can be checked without a model is checked before one is loaded."""
    work.doing = "checking what was asked"
    method = asked.learner(request.method)
    [(spec, weights)] = asked.models((request.model,), () if request.weights is None else (request.weights,))
    asked.fitted_file(request.output, weights)
    seed = asked.seed(request.seed)
    device = asked.device(request.device)

    from whybox.models import load

    work.doing = f"loading {spec}"
    model = load(spec, weights, device)
    work.doing = f"reading {request.data}"
    given, count = _data(request, method, model)
    work.doing = f"fitting {written(method)}"
    began = time.perf_counter()
    with threads_for(model):
        fitted = method.fit(model, given, seed=seed, progress=progress())
    seconds = time.perf_counter() - began
    work.doing = "writing what was learned"
    fitted.save(request.output)
    typer.echo(
        wrap(
            f"{written(method)} has learned from {count} pictures for {model.name} in {seconds:.0f} s"
            f"{_measured(fitted)}. Digest: {fitted.digest}."
        )
    )
    typer.echo("Explain with it:")
    typer.echo(f"  {asked.command_with(request.output, request.model, request.weights)}")
    typer.echo(str(request.output))


def _data(request: Request, method: "Method", model: "Model") -> tuple[Any, int]:
    """What the method learns from, with the classes where it wants them, and how many pictures that are."""
    inputs, labels = data.read(request.data, request.split, model, request.model)
    if not method.supervised:
        return inputs, len(inputs)
    if labels is None:
        raise InputError(
            f"{written(method)} learns from the classes of the pictures, and {request.data} has none; put the pictures "
            "into one folder for each class"
        )
    why = data.misfit(request.data, labels, model) if model.labels is not None else ""
    if why:
        raise InputError(f"{why}; {written(method)} learns from pictures of the model's classes, a folder for each")
    return (inputs, labels), len(inputs)


def _measured(fitted: "Fitted") -> str:
    """The shares that were measured while it learned, in words."""
    from whybox.report.names import percent

    shares = {name: value for name, value in fitted.state.items() if value.ndim == 0 and value.is_floating_point()}
    told = ", ".join(f"{name.replace('_', ' ')} {percent(float(value))}" for name, value in shares.items())
    return f"; {told}" if told else ""
