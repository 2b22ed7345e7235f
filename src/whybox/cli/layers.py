"""`whybox layers MODEL`: the names that --layer and methods such as grad_cam understand."""

from functools import partial
from typing import TYPE_CHECKING

import typer

from whybox.cli import asked
from whybox.cli.terminal import warn
from whybox.core.errors import WhyboxError
from whybox.core.text import columns

if TYPE_CHECKING:
    from torch import Tensor

    from whybox.core.model import Model


def list_layers(spec: str, weights: str | None) -> None:
    """Print the dotted name, the type and the output shape of every layer."""
    [(spec, weights)] = asked.models((spec,), (weights,) if weights else ())
    from whybox.models import load

    # A name does not need weights: nothing is downloaded for it. A file's factory makes its own.
    model = load(spec, weights or (None if spec.rpartition(":")[0].endswith(".py") else "random"))
    probe = model.noise()
    if probe is None:
        warn("output shapes are not known, because this model does not say what size its input has")
    shapes, chosen = ({}, None) if probe is None else (_shapes(model, probe), _of_grad_cam(model, probe))
    types = {name: type(module).__name__ for name, module in model.module.named_modules()}
    rows = [
        (name, types[name], shapes.get(name, "-" if shapes else ""), "grad_cam" if name == chosen else "")
        for name in model.layers()
    ]
    for line in columns([("LAYER", "TYPE", "OUTPUT" if shapes else "", "USED BY" if chosen else ""), *rows]):
        typer.echo(line)


def _shapes(model: "Model", probe: "Tensor") -> dict[str, str]:
    """The output shape of each layer that runs, from one forward pass; empty where the pass fails."""
    import torch

    from whybox.core.guard import guard
    from whybox.core.taps import tap

    shapes: dict[str, str] = {}

    def note(name: str, output: "Tensor") -> None:
        shapes.setdefault(name, " × ".join(map(str, output.shape[1:])) or "1")

    try:
        with (
            guard(model.module),
            torch.no_grad(),
            tap(model.module, {name: partial(note, name) for name in model.layers()}),
        ):
            model(probe)
    except Exception as error:  # whatever the user's model raises
        warn(f"output shapes are not known: the model fails on an input of shape {tuple(probe.shape)}: {error}")
        return {}
    return shapes


def _of_grad_cam(model: "Model", probe: "Tensor") -> str | None:
    """The layer that grad_cam finds by itself; None where there is none."""
    import torch

    from whybox.attribution.last_layer import last_spatial_layer
    from whybox.core.guard import guard
    from whybox.core.start import start

    try:
        with guard(model.module), torch.enable_grad():
            return last_spatial_layer(start(model, probe, None, {}, 0, False, None))
    except (WhyboxError, RuntimeError):  # also what the user's model raises
        return None
