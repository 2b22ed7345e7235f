"""`whybox contrast`: why one class and not another, in the space of a latent model."""

from pathlib import Path
from typing import Annotated

import typer

from whybox.cli.options import Report, Weights, command_line
from whybox.cli.terminal import reported

# How many pictures the slider of a report leads through.
FRAMES = 17


def contrast(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Pictures, folders of pictures, or patterns such as '*.png'.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="MODEL", help="As for `explain`. Twice: compare two models."),
    ] = None,
    weights: Weights = None,
    versus: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Why not this class: its index, its label or a part.  [default: runner-up]"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--true", "--target", metavar="CLASS", help="Why this class.  [default: predicted]"),
    ] = None,
    latent: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A latent model of the classifier's data.  [default: of the embedded digits]"
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or mps.")] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of all noise.")] = 0,
    output: Report = Path("whybox-contrast.html"),
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON too; '-' for the output.")
    ] = None,
) -> None:
    """Find what would have to change in a picture for two classes to tie, and write a report.

    The least change is sought among what a latent model draws: with the other classes kept away (c_deep_ex), and
    without (xgem). Train a latent model on the data of your classifier with `whybox latent train`.

    Example: whybox contrast four.png --model digits --versus 9
    """
    with reported() as work:
        from whybox.cli.explain import Request, explain

        if latent is not None:
            work.doing = "reading the latent model"
            from whybox.contrast.latent import Latent

            Latent.load(latent)
        request = Request(
            images=tuple(images),
            models=tuple(model or ()),
            weights=tuple(weights or ()),
            methods=f"{filmed('c_deep_ex', latent)},{filmed('xgem', latent)}",
            optional_methods=False,
            target=target,
            versus=versus,
            layer=None,
            device=device,
            seed=seed,
            output=output,
            json=json,
            command=command_line(),
            contrast=True,
        )
        explain(request, work)


def filmed(name: str, latent: Path | None = None) -> str:
    """A method of contrast that keeps its way for the slider."""
    own = "" if latent is None else f"latent={str(latent)!r}, "
    return f"{name}({own}film={FRAMES})"
