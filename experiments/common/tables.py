"""Numbers as text, and the part of a page that is generated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def interval(value: list[float]) -> str:
    """The mean and its interval."""
    digits = 3 if max(map(abs, value)) < 2 else 2
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]".replace("-", "−")


def marked(value: list[float], *, with_interval: bool = True, lower_is_better: bool = False) -> str:
    """A difference and its interval, bold where it is better than none at all (above zero) and italic where worse."""
    digits = 3 if max(map(abs, value)) < 2 else 2
    mark = {1: "**", -1: "*", 0: ""}[sign(value) * (-1 if lower_is_better else 1)]
    head = f"{mark}{value[0]:+.{digits}f}{mark}".replace("-", "−")
    return f"{head} [{value[1]:+.{digits}f}, {value[2]:+.{digits}f}]".replace("-", "−") if with_interval else head


def sign(value: list[float]) -> int:
    """1 or −1 where the interval lies wholly above or below zero, else 0."""
    return int(value[1] > 0) - int(value[2] < 0)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).strip() for cell in line)} |" for line in lines)


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put the text between two marks of the page, if it is there."""
    if page.is_file():
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
        page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")
