"""Options that several commands have."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

Report = Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The report to write.")]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="A local .safetensors or .pt file, 'random', a name that the library knows, or 'default'. With two "
        "models once for each, in their order.",
    ),
]


def command_line() -> str:
    """The command as it was given, to be written into the report."""
    return shlex.join(["whybox", *sys.argv[1:]])
