"""The results on the terminal: for each picture its classes, what is explained, and how the checks went."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from whybox.cli.methods import written
from whybox.cli.terminal import columns, wrap

if TYPE_CHECKING:
    from whybox.core.explanation import Explanation
    from whybox.report import Findings

_BAR = 20


def show(findings: "Sequence[Findings]", names: Sequence[str], *, err: bool = False) -> None:
    """Print everything, model by model and picture by picture."""
    for found in findings:
        for sample, name in enumerate(names):
            head = f"{name}, by {found.model}" if len(findings) > 1 else name
            for line in (head, *_predictions(found.explanations[0], sample), "", *_methods(found, sample), ""):
                typer.echo(line, err=err)


def _predictions(explanation: "Explanation", sample: int) -> list[str]:
    """The five most probable classes, each with its probability and a bar."""
    rows = [
        (p.label, f"{p.probability:6.1%}", "█" * round(p.probability * _BAR)) for p in explanation.predictions(sample)
    ]
    return columns(rows, "  ") if rows else []


def _methods(found: "Findings", sample: int) -> list[str]:
    """What is explained, and for each method how many checks it passes and which it does not."""
    rows = [
        (_called(result.method), _checks(result, sample) if hasattr(result, "checks") else f"left out: {result.message}")
        for result in found.results
    ]
    return [wrap(f"Explained: {found.explanations[0].target[sample]}", "  "), *columns(rows, "  ")]


def _called(config: dict[str, Any]) -> str:
    from whybox.core.registry import method

    return written(method(**config))


def _checks(explanation: "Explanation", sample: int) -> str:
    failed = [check for check in explanation.checks if not bool(check.passed[sample])]
    passed = len(explanation.checks) - len(failed)
    said = f"{passed} of {len(explanation.checks)} checks pass"
    worries = ", ".join(f"{c.name} {float(c.values[sample]):.2g} > {c.limit:g}" for c in failed)
    return f"{said}; warns: {worries}" if failed else said
