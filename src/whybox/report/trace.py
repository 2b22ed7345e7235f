"""Trace: where the score went, for the methods that share it out operation by operation."""

import math
from dataclasses import dataclass
from typing import Any

from whybox.attribution.backprop.trace import CAUSES
from whybox.core.explanation import Explanation
from whybox.core.tree import as_tuple

# More operations than this are not listed: they would make the page heavy, and nobody reads on.
MOST_ROWS = 1000


@dataclass(frozen=True)
class TraceRow:
    """One operation; `numbers` are what arrives, what is handed on, and what each cause absorbs, "" for nothing."""

    name: str
    module: str
    kind: str
    rule: str
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class TraceView:
    """Where one sample's score went.

    Attributes:
        title: what to call the method.
        says: the score as a sum, in words.
        causes: the columns of what is absorbed.
        rows: the operations in the order in which they run.
        omitted: how many operations are left out.
    """

    title: str
    says: str
    causes: tuple[str, ...]
    rows: tuple[TraceRow, ...]
    omitted: int


def trace_view(explanation: Explanation, sample: int, title: str) -> TraceView | None:
    """The trace in an explanation's details, or None where there is none.

    All numbers have the same decimals, four digits for the largest; what rounds to zero is left out.
    """
    trace = explanation.details.get("trace")
    if not isinstance(trace, dict):
        return None
    arrives, handed_on = trace["at_output"][sample].tolist(), trace["at_input"][sample].tolist()
    absorbed = {cause: amount[sample].tolist() for cause, amount in trace["absorbed"].items()}
    decimals = _decimals([*arrives, *handed_on, float(explanation.scores[sample])])
    causes = [cause for cause, amounts in absorbed.items() if any(_text(amount, decimals) for amount in amounts)]
    columns = [arrives, handed_on, *(absorbed[cause] for cause in causes)]
    rows = tuple(
        TraceRow(
            step["name"].removeprefix("torch.").removeprefix("nn.functional."),
            step["module"],
            step["kind"],
            step["rule"],
            tuple(_text(number, decimals) for number in numbers),
        )
        for step, *numbers in zip(trace["steps"][:MOST_ROWS], *columns, strict=False)
    )
    return TraceView(
        title,
        _sentence(explanation, sample),
        tuple(CAUSES.get(cause, cause) for cause in causes),
        rows,
        len(trace["steps"]) - len(rows),
    )


def conservation(explanation: Explanation, sample: int) -> dict[str, float] | None:
    """The parts of one sample's score: the relevance, what each cause absorbed, and what is not accounted for."""
    absorbed = explanation.details.get("absorbed")
    if not isinstance(absorbed, dict):
        return None
    parts = {"relevance": float(sum(r[sample].double().sum() for r in as_tuple(explanation.relevance)))}
    parts |= {cause: float(amount[sample]) for cause, amount in absorbed.items()}
    return {**parts, "unaccounted": float(explanation.scores[sample]) - sum(parts.values())}


def _sentence(explanation: Explanation, sample: int) -> str:
    """The score as a sum: score 12.3 = relevance 10.1 + biases 2.2."""
    score, parts = float(explanation.scores[sample]), conservation(explanation, sample) or {}
    relevance = parts.pop("relevance", 0.0)
    decimals = _decimals([score, relevance, *parts.values()])
    text = f"score {_text(score, decimals) or '0'} = relevance {_text(relevance, decimals) or '0'}"
    names: dict[str, Any] = {**CAUSES, "unaccounted": "not accounted for"}
    for cause, amount in parts.items():
        shown = _text(abs(amount), decimals)
        if shown:
            text += f" {'−' if amount < 0 else '+'} {names.get(cause, cause)} {shown}"
    return text


def _decimals(numbers: list[float]) -> int:
    """The decimals that give the largest of these numbers four digits."""
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    return max(0, 3 - math.floor(math.log10(largest))) if largest else 0


def _text(number: float, decimals: int) -> str:
    """The number with these decimals; "" where they are all zero."""
    text = f"{number:,.{decimals}f}".replace(",", "\u202f").replace("-", "−")
    return "" if text.strip("−0.") == "" else text
