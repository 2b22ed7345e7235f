"""Numbers as text, and the part of a page that is generated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def interval(value: list[float]) -> str:
    """The mean and its interval."""
    digits = 3 if max(map(abs, value)) < 2 else 2
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def marked(value: list[float], *, with_interval: bool = True) -> str:
    """A difference and its interval, bold where it lies above zero and italic where below."""
    digits = 3 if max(map(abs, value)) < 2 else 2
    mark = "**" if value[1] > 0 else "*" if value[2] < 0 else ""
    head = f"{mark}{value[0]:+.{digits}f}{mark}".replace("-", "−")
    return f"{head} [{value[1]:+.{digits}f}, {value[2]:+.{digits}f}]".replace("-", "−") if with_interval else head


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).strip() for cell in line)} |" for line in lines)


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put the text between two marks of the page, if it is there."""
    if page.is_file():
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
        page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")
