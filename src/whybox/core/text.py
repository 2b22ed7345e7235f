"""Text in lines and columns that fit the terminal."""

import shutil
import textwrap
from collections.abc import Sequence

_NARROWEST = 30  # columns of text


def width() -> int:
    """The columns to fill: those of the terminal, within reason."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)


def wrap(text: str, indent: str = "") -> str:
    """The text in lines that fit the terminal, each indented."""
    return textwrap.fill(" ".join(text.split()), width(), initial_indent=indent, subsequent_indent=indent)


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Each row as text, the columns as wide as their widest entry; the last one goes on in further lines if it must."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    left = max(width() - len(indent) - sum(widths) - 2 * len(widths), _NARROWEST)
    texts = []
    for row in rows:
        head = indent + "".join(f"{entry:<{wide}}  " for entry, wide in zip(row, widths, strict=False))
        texts.append(f"\n{' ' * len(head)}".join(textwrap.wrap(row[-1], left)) or "")
        texts[-1] = (head + texts[-1]).rstrip()
    return texts
