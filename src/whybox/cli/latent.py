"""`whybox latent train`: a latent model for contrast, from data by name."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from whybox.cli import asked
from whybox.cli.terminal import Work, one_thread, progress, reported

group = typer.Typer(help="Latent models: what a contrast moves in.", no_args_is_help=True, rich_markup_mode=None)


@group.callback()
def _group() -> None:
    """Latent models: what a contrast moves in instead of the pixels."""


@group.command()
def train(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="digits, MNIST, FashionMNIST, CIFAR10 or folder:PATH: its training part."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The latent model to write.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="wgan-gp, wgan (by clipping) or vae.")] = "wgan-gp",
    size: Annotated[
        int | None, typer.Option(metavar="N", help="Dimensions of the latent space.  [default: 100, vae: 32]")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps of the generator.  [default: 10000]")] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or mps.")] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of weights, order and noise.")] = 0,
) -> None:
    """Train a latent model on the data that a classifier was trained on.

    A training that was stopped goes on where it was when the same command is given again: until it is done, its state
    is in FILE.training.

    Example: whybox latent train digits --kind vae --output digits.latent
    """
    with reported() as work:
        _train(work, data, output, kind, {"size": size, "steps": steps}, device, seed)


def _train(
    work: Work, data: str, output: Path, name: str, settings: dict[str, int | None], device: str, seed: int
) -> None:
    work.doing = "checking what was asked"
    device = asked.device(device)
    asked.seed(seed)

    from whybox.contrast.latent.training import checkpoint_of, kind_of, train

    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    kind = replace(kind_of(name), **given)
    work.doing = "training"
    try:
        with one_thread():
            latent = train(data, kind, output, seed=seed, device=device, progress=progress())
    except KeyboardInterrupt:
        if checkpoint_of(output).exists():
            work.written.append(f"{checkpoint_of(output)}, from which the same command goes on")
        raise
    typer.echo(f"{latent}\n{output}")
