"""Card: what a method's docstring says of it, in parts: summary, cost, limits, source, fields."""

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(r"(Cost|Limits|Source|Args|Raises|Errors):\s*(.*)")
_FIELD = re.compile(r"(\w+):\s+(.*)")


@dataclass(frozen=True)
class Card:
    """What is to know of a method, as plain sentences; a part that the docstring does not have is empty.

    Attributes:
        summary: what it computes, with the formula: the first paragraph.
        body: what else there is to say before the sections.
        cost: in forward and backward passes.
        limits: what it cannot show.
        source: who introduced it, and where.
        fields: what each field means, by name.
    """

    summary: str
    body: str = ""
    cost: str = ""
    limits: str = ""
    source: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def card(cls: type) -> Card:
    """The parts of a class's docstring.

    A section begins with `Cost:`, `Limits:`, `Source:` or `Args:` at the beginning of a line and ends where the next
    begins, or with its paragraph (`Args:` with the docstring). A class without a docstring of its own has an empty
    card.
    """
    text = cls.__dict__.get("__doc__") or ""
    if text.startswith(f"{cls.__name__}("):  # what dataclass writes where there is none
        text = ""
    paragraphs: list[list[str]] = [[]]
    sections: dict[str, list[str]] = {}
    inside: list[str] | None = None
    for line in inspect.cleandoc(text).splitlines():
        found = _SECTION.match(line)
        if found:
            inside = sections.setdefault(found[1], [])
            inside.append(found[2])
        elif not line.strip():
            inside = inside if inside is sections.get("Args") else None
            paragraphs.append([])
        else:
            (paragraphs[-1] if inside is None else inside).append(line)
    written = [_joined(lines) for lines in paragraphs if lines]
    return Card(
        summary=written[0] if written else "",
        body=" ".join(written[1:]),
        cost=_joined(sections.get("Cost", [])),
        limits=_joined(sections.get("Limits", [])),
        source=_joined(sections.get("Source", [])),
        fields=_fields(sections.get("Args", [])),
    )


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def _fields(lines: list[str]) -> dict[str, str]:
    """The entries of `Args:`; a line that is indented further continues the entry above it."""
    entries: dict[str, list[str]] = {}
    written = [line for line in lines if line.strip()]
    indent = min((len(line) - len(line.lstrip()) for line in written), default=0)
    last: list[str] = []
    for line in written:
        found = _FIELD.match(line[indent:])
        if found:
            last = entries.setdefault(found[1], [])
            last.append(found[2])
        else:
            last.append(line)
    return {name: _joined(parts) for name, parts in entries.items()}
