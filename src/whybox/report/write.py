"""write: the report as one HTML file; check_writable: find out beforehand whether that will work."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from whybox.core.errors import InputError
from whybox.core.files import write_whole
from whybox.report.findings import Findings
from whybox.report.templates import asset, templates
from whybox.report.view import view

STYLES = ("tokens.css", "page.css", "maps.css", "change.css", "trust.css", "print.css")
SCRIPTS = ("page.js", "maps.js", "change.js")


def write(path: str | Path, findings: Sequence[Findings], names: Sequence[str], command: str = "") -> Path:
    """Write the report: one file, complete in itself, that asks nothing of any network.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Args:
        path: where to; an existing file is replaced.
        findings: what `collect` has found, one for each model, all about the same pictures.
        names: what to call the pictures.
        command: the command that led here, to be shown; "" for none.

    Returns:
        the path.

    Raises:
        InputError: the path cannot be written to, or findings and names do not fit each other.
    """
    check_writable(path)
    return write_page(path, html(findings, names, command))


def write_page(path: str | Path, text: str) -> Path:
    """Write a text file, whole or not at all.

    Raises:
        InputError: the path cannot be written to.
    """
    check_writable(path)
    try:
        write_whole(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"the page cannot be written to {str(path)!r}: {error.strerror or error}") from error
    return Path(path)


def html(findings: Sequence[Findings], names: Sequence[str], command: str = "") -> str:
    """The report as text."""
    page = view(findings, names, command)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            page=page,
            styles="\n".join(asset(name) for name in STYLES),
            scripts="\n".join(asset(name) for name in SCRIPTS),
        )
    )


def check_writable(path: str | Path) -> None:
    """Raise InputError, saying what to do, unless a file can be written at `path`; nothing is left there."""
    shown, place = str(path), Path(path)
    try:
        _check(place.resolve(), shown)
    except OSError as error:
        raise InputError(
            f"nothing can be written to {shown!r}: {error.strerror or error}; give a place where you may write"
        ) from error


def _check(place: Path, shown: str) -> None:
    folder = place.parent
    if not folder.exists():
        raise InputError(f"the folder {str(folder)!r} does not exist; make it first, or write somewhere else")
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder, so nothing can be written into it; write somewhere else")
    if place.is_dir():
        raise InputError(
            f"{shown!r} is a folder; give the name of a file in it, such as {str(place / 'report.html')!r}"
        )
    if place.exists() and not place.is_file():
        raise InputError(f"{shown!r} is not an ordinary file; give another name")
    if place.exists() and not os.access(place, os.W_OK):
        raise InputError(f"{shown!r} is there already and must not be changed; remove it, or give another name")
    trial = place.with_name(f".{secrets.token_hex(8)}.tmp")
    trial.touch(exist_ok=False)
    trial.unlink()
