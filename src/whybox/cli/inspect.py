"""`whybox inspect MODEL`: what the model is made of, and which methods are exact on it."""

import json as json_format

import typer

from whybox.cli import asked
from whybox.cli.explain import check_pictures, inputs_of, predict
from whybox.cli.terminal import Work


def inspect_model(
    work: Work, spec: str, images: list[str], weights: str | None, composite: str | None, json: bool
) -> None:
    """Print what is found, as text or as JSON."""
    work.doing = "checking what was asked"
    paths = asked.pictures(images)
    [(spec, weights)] = asked.models((spec,), (weights,) if weights else ())
    from whybox import LRP

    LRP(composite)
    check_pictures(paths, work)

    work.doing = f"loading {spec}"
    from whybox.inspection import inspect
    from whybox.models import load

    model = load(spec, weights)
    inputs = inputs_of(model, paths) if paths else model.noise()
    if inputs is not None:
        predict(model, inputs[:1])

    work.doing = f"inspecting {model.name}"
    found = inspect(model, inputs if paths else None, composite=composite)
    typer.echo(json_format.dumps(found.as_json(), indent=2, allow_nan=False) if json else str(found))
