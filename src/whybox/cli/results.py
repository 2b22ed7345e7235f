"""The results on the terminal: for each picture the verdict, its classes, and how far each method can be trusted."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whybox.cli.methods import written
from whybox.cli.terminal import Work
from whybox.core.errors import InputError, WhyboxError
from whybox.core.text import columns, width, wrap

if TYPE_CHECKING:
    from whybox.core.explanation import Explanation
    from whybox.report import Findings

_BAR = 20


def write_report(path: Path, findings: "Sequence[Findings]", names: Sequence[str], command: str, work: Work) -> None:
    """Write the report. Its path has been checked before: what goes wrong now is no mistake of the user's."""
    from whybox import report

    work.doing = "writing the report"
    try:
        report.write(path, findings, names=names, command=command)
    except InputError as error:
        raise WhyboxError(str(error)) from error
    work.written.append(str(path))


def show(findings: "Sequence[Findings]", names: Sequence[str], *, err: bool = False) -> None:
    """Print everything, picture by picture and model by model."""
    from whybox.report.names import model_titles

    titles = model_titles([found.model for found in findings])
    for sample, name in enumerate(names):
        typer.echo(name, err=err)
        for found, title in zip(findings, titles, strict=True):
            for line in (*_prediction(found, sample, title), *_methods(found, sample, err), ""):
                typer.echo(line, err=err)


def _prediction(found: "Findings", sample: int, model: str) -> list[str]:
    """The verdict, what is explained, and the most probable classes with their bars."""
    from whybox.plot.words import printable
    from whybox.report.verdict import verdict

    said = verdict(found.explanations[0], sample, model, found.this, found.versus)
    bars = [(printable(bar.label), bar.percent, "█" * round(bar.share * _BAR)) for bar in said.bars]
    sentence = f"{said.model} {said.verb} {said.thing}{said.rest}"
    return [wrap(printable(sentence), "  "), *(columns(bars, "    ") if bars else []), wrap(said.question, "  ")]


def _methods(found: "Findings", sample: int, err: bool) -> list[str]:
    """For each method whether its map can be relied on, or why it is left out; and whether the methods agree."""
    from whybox.core.configs import config_titles
    from whybox.core.explanation import Explanation
    from whybox.plot import is_change
    from whybox.report.change import change_lines, change_question
    from whybox.report.facts import facts_text
    from whybox.report.trust import trust

    titles = config_titles([explanation.method for explanation in found.explanations])
    panel = trust(found.explanations, titles, sample, found.trials)
    lights = iter(panel.lights)
    lines = []
    for result in found.results:
        if isinstance(result, Explanation):
            light = next(lights)
            said, beside = f"{light.says}: {light.reason}", facts_text(result, sample)
        else:
            said, beside = f"left out: {result.message}", ""
        told = [said, *([beside] if beside else [])]
        if isinstance(result, Explanation) and is_change(result):
            told = [change_question(result, sample), *change_lines(result, sample), said]
        lines += [f"    {_called(result.method)}", *(wrap(text, "        ") for text in told)]
        if isinstance(result, Explanation) and result.passages is not None:
            lines += _text(result, sample, err)
    if panel.agreement is not None:
        median = f"median rank correlation {panel.agreement.median:.2g}"
        lines.append(wrap(f"The methods {panel.agreement.verdict} ({median}).", "  "))
    return lines


def _text(result: "Explanation", sample: int, err: bool) -> list[str]:
    """The text in colour, and what the colours mean."""
    from whybox.plot import words
    from whybox.plot.terminal import coloured_text, legend, takes_colour

    colour = takes_colour(sys.stderr if err else sys.stdout)
    found, scale = words(result, sample)
    lines = coloured_text(found, scale, colour=colour, width=width(), indent=" " * 8)
    return [*lines, wrap(f"{legend(scale, colour=colour)}.", "        ")]


def _called(config: dict[str, Any]) -> str:
    from whybox.core.registry import method

    return str(config["file"]) if "file" in config else written(method(**config))
