"""The results on the terminal: for each picture the verdict, its classes, and how far each method can be trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whybox.cli.methods import written
from whybox.cli.terminal import Work
from whybox.core.errors import InputError, WhyboxError
from whybox.core.text import columns, wrap

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
            for line in (*_prediction(found, sample, title), *_methods(found, sample), ""):
                typer.echo(line, err=err)


def _prediction(found: "Findings", sample: int, model: str) -> list[str]:
    """The verdict, what is explained, and the most probable classes with their bars."""
    from whybox.report.verdict import verdict

    this = None if found.contrasts is None else found.contrasts.this
    said = verdict(found.explanations[0], sample, model, this, found.versus)
    bars = [(bar.label, bar.percent, "█" * round(bar.share * _BAR)) for bar in said.bars]
    sentence = f"{said.model} {said.verb} {said.thing}{said.rest}"
    return [wrap(sentence, "  "), *(columns(bars, "    ") if bars else []), wrap(said.question, "  ")]


def _methods(found: "Findings", sample: int) -> list[str]:
    """For each method how many checks it passes and which it does not, or why it is left out."""
    from whybox.core.explanation import Explanation

    rows = [
        (
            _called(result.method),
            _checks(result, sample) if isinstance(result, Explanation) else f"left out: {result.message}",
        )
        for result in found.results
    ]
    return [*columns(rows, "    "), *_agreement(found, sample)]


def _agreement(found: "Findings", sample: int) -> list[str]:
    """Whether the methods point at the same places."""
    from whybox.core.configs import config_titles
    from whybox.report.trust import trust

    titles = config_titles([explanation.method for explanation in found.explanations])
    agreement = trust(found.explanations, titles, sample).agreement
    if agreement is None:
        return []
    return [wrap(f"The methods {agreement.verdict} (median rank correlation {agreement.median:.2g}).", "  ")]


def _called(config: dict[str, Any]) -> str:
    from whybox.core.registry import method

    return written(method(**config))


def _checks(explanation: "Explanation", sample: int) -> str:
    """In brief; a check without a value (NaN) is neither passed nor failed."""
    values = [(check, float(check.values[sample])) for check in explanation.checks]
    measured = [(check, value) for check, value in values if value == value]
    failed = [f"{check.name} {value:.3g} > {check.limit:g}" for check, value in measured if not value <= check.limit]
    if not measured:
        return "no checks"
    passed = f"{len(measured) - len(failed)} of {len(measured)} checks pass"
    return f"{passed}; warning: {', '.join(failed)}" if failed else passed
