"""`whybox demo`: three held-out digits, explained."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from whybox.cli import asked
from whybox.cli.contrast import filmed
from whybox.cli.results import show, write_report
from whybox.cli.terminal import Work, one_thread, progress

if TYPE_CHECKING:
    from torch import Tensor


def demo(work: Work, output: Path, methods: tuple[str, ...], command: str) -> None:
    """Explain a 4 that might have been a 9, the narrowest of all digits, and the one that is mistaken most surely."""
    asked.outputs(output, None, [])
    work.doing = "loading the digits"
    import torch

    from whybox import models, report

    model = models.load("digits")
    inputs, truth = held_out_digits()
    with torch.no_grad():
        outputs = model(inputs)
    chosen = _interesting(outputs, truth)
    names = [f"a handwritten {int(truth[i])} (held-out picture {i})" for i in chosen]

    work.doing = "explaining the digits"
    with one_thread():
        findings = report.collect(
            model, inputs[chosen], asked.methods(",".join((*methods, filmed("c_deep_ex")))), progress=progress()
        )
    write_report(output, [findings], names, command, work)
    right = float((outputs.argmax(1) == truth).float().mean())
    typer.echo(f"The model `digits` recognises {right:.1%} of {len(truth)} held-out digits. Some of them:\n")
    show([findings], names)
    typer.echo("The report, to be opened in a browser:")
    typer.echo(str(output))


def held_out_digits() -> "tuple[Tensor, Tensor]":
    """The digits that the embedded model has not seen in training, and which they are."""
    from torch import Tensor

    from whybox.datasets import load

    inputs, truth = load("digits", split="test")
    assert isinstance(inputs, Tensor)
    assert truth is not None
    return inputs, truth


def _interesting(outputs: "Tensor", truth: "Tensor") -> list[int]:
    """A 4 with 9 as its closest runner-up, the right one with the closest, the wrong one with the highest probability.

    None of the three where there is no such sample; each once.
    """
    import torch

    probabilities, order = outputs.softmax(1).sort(1, descending=True)
    right = order[:, 0] == truth
    margin = (probabilities[:, 0] - probabilities[:, 1]).where(right, torch.inf)
    surest = probabilities[:, 0].where(~right, -torch.inf)
    four = margin.where((order[:, 0] == 4) & (order[:, 1] == 9), torch.inf)
    chosen = [(four, four.isfinite()), (margin, right), (-surest, ~right)]
    return list(dict.fromkeys(int(values.argmin()) for values, some in chosen if bool(some.any())))
