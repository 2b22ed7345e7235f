"""The commands and their options; each command's work is in a module of its own."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from whybox._version import __version__
from whybox.cli import latent
from whybox.cli.asked import TEXT_METHODS
from whybox.cli.contrast import contrast
from whybox.cli.options import Report, Weights, command_line
from whybox.cli.terminal import reported
from whybox.evaluation.suite import METHODS as COMPARED
from whybox.evaluation.suite import METRICS as MEASURED

DEFAULT_METHODS = ("input_x_gradient", "integrated_gradients", "smooth_grad", "grad_cam")

app = typer.Typer(
    name="whybox",
    help="Why does a model predict this, and should you believe the explanation?",
    epilog="Begin with `whybox demo`. Exit codes: 0 done, 1 it failed, 2 it was asked wrongly, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.add_typer(latent.group, name="latent")

Data = Annotated[
    str, typer.Option("--data", "-d", metavar="DATA", help="digits, MNIST, FashionMNIST, CIFAR10 or folder:PATH.")
]


def main() -> None:
    """Run the command `whybox` and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show ∂ shows ? instead of failing
    app(prog_name="whybox")


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"whybox {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Nothing is done before the command itself."""


@app.command()
def demo(output: Report = Path("whybox-demo.html")) -> None:
    """Explain three handwritten digits, in a few seconds.

    The model and the digits come with whybox: nothing is downloaded.
    """
    with reported() as work:
        from whybox.cli.demo import demo

        demo(work, output, DEFAULT_METHODS, command_line())


@app.command()
def explain(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders of pictures, or patterns such as '*.png'; for a model of texts the text itself, or "
            "a .txt file.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="digits, torchvision:NAME, timm:NAME, hf:ID or path/to/file.py:FACTORY. Twice: compare two models.",
        ),
    ] = None,
    weights: Weights = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Methods and their fields, as in 'gradient,smooth_grad(samples=64)', or files that `whybox fit` has "
            "written; see `whybox methods`.  "
            f"[default: {', '.join(DEFAULT_METHODS)}; for texts {', '.join(TEXT_METHODS)}]",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="The class to explain: its index, its label or a part of it.  [default: predicted]"
        ),
    ] = None,
    versus: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Explain why the target and not this class.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Explain in terms of this layer's output; see `layers`.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or mps.")] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of all noise.")] = 0,
    output: Report = Path("whybox-report.html"),
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON too; '-' for the output.")
    ] = None,
) -> None:
    """Explain predictions for pictures or texts, and write a report.

    Example: whybox explain cat.jpg --model torchvision:resnet50 --versus dog
    """
    with reported() as work:
        from whybox.cli.explain import Request, explain

        request = Request(
            images=tuple(images),
            models=tuple(model or ()),
            weights=tuple(weights or ()),
            methods=",".join(DEFAULT_METHODS) if methods is None else methods,
            optional_methods=methods is None,
            target=target,
            versus=versus,
            layer=layer,
            device=device,
            seed=seed,
            output=output,
            json=json,
            command=command_line(),
        )
        explain(request, work)


app.command()(contrast)


@app.command()
def fit(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="One that learns from data, as in 'l2x(k=8)'.")],
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="As for `explain`.")],
    data: Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.safetensors", help="The file to write, for --methods.")
    ],
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="As for `explain`.")] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which part of the data: test or train.")] = "train",
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or mps.")] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of all noise.")] = 0,
) -> None:
    """Let a method learn from a data set, and write it into a file that explains.

    Example: whybox fit l2x --model digits --data digits -o l2x.safetensors
    """
    with reported() as work:
        from whybox.cli.fit import Request, fit

        fit(Request(method, model, weights, data, split, device, seed, output), work)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method: all that is to know of it.")] = None,
) -> None:
    """List the methods, or describe one."""
    with reported():
        from whybox.cli.methods import describe, list_methods

        if name is None:
            list_methods()
        else:
            describe(name)


@app.command()
def compare(
    data: Data,
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="As for `explain`.")],
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="As for `explain`.")] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which part of the data: test or train.")] = "test",
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help=f"As for `explain`.  [default: {', '.join(COMPARED)}]"),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Metrics and their fields, as in 'deletion(steps=20)'; see `whybox metrics`.  "
            f"[default: {', '.join(MEASURED)}]",
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", metavar="N", min=1, help="How many samples, drawn at random.")] = 64,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or mps.")] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of the samples, of all noise and intervals.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")] = Path(
        "whybox-comparison.html"
    ),
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON too; '-' for the output.")
    ] = None,
) -> None:
    """Compare methods on a data set: which one to use for this model, and which not to rely on.

    Maps that know nothing of the model are scored beside them.

    Example: whybox compare --model digits --data digits
    """
    with reported() as work:
        from whybox.cli.compare import Request, compare

        request = Request(model, weights, data, split, methods, metrics, n, device, seed, output, json, command_line())
        compare(request, work)


@app.command()
def metrics(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One metric: all that is to know of it.")] = None,
) -> None:
    """List the metrics, by which `compare` scores explanations, or describe one."""
    with reported():
        from whybox.cli.methods import describe_metric, list_metrics

        if name is None:
            list_metrics()
        else:
            describe_metric(name)


@app.command()
def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for `explain`; weights are not needed.")],
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="As for `explain`.  [default: random where possible]")
    ] = None,
) -> None:
    """List a model's layers with their output shapes.

    These are the names that --layer understands, and methods such as grad_cam(layer='...').
    """
    with reported():
        from whybox.cli.layers import list_layers

        list_layers(model, weights)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for `explain`.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Pictures to try it on.  [default: random values]"),
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="As for `explain`.")] = None,
    composite: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The rules of LRP; see `whybox methods lrp`.  [default: by the model]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write everything as JSON.")] = False,
) -> None:
    """Look into a model: its operations, and which methods are exact, approximate or refused on it.

    Also where LRP by modules, as in zennit and Captum, would go wrong, and why.

    Example: whybox inspect torchvision:resnet18 cat.jpg
    """
    with reported() as work:
        from whybox.cli.inspect import inspect_model

        inspect_model(work, model, images or [], weights, composite, json)


@app.command()
def doctor() -> None:
    """Check the installation.

    Versions, optional packages, devices, memory, and a small explanation of which the answer is known.
    """
    with reported():
        from whybox.cli.doctor import examine

        if not examine():
            raise typer.Exit(1)
