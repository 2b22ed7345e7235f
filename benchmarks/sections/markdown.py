"""Tables and numbers as they stand on the page."""

from collections.abc import Iterable, Sequence


def rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seconds(value: float) -> str:
    """Three digits, in s or ms."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def percent(value: float) -> str:
    """Two digits of a share."""
    return f"{100 * value:.2g} %"


def met(yes: bool) -> str:
    """Whether a goal is."""
    return "yes" if yes else "no"
