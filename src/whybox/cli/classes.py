"""Classes as people write them: an index, a label, or a part of a label."""

from collections.abc import Sequence

from whybox.core.errors import InputError, TargetError, UnknownNameError

_SHOWN = 10


def class_index(text: str, labels: Sequence[str] | None, count: int) -> int:
    """The index of the class that the text names, among `count` classes.

    A whole number is an index. Anything else is a label: exactly, or regardless of case and underscores, or a part
    that only one label has.

    Raises:
        TargetError: the index is out of range.
        UnknownNameError: no label is like this; the nearest are offered.
        InputError: several labels fit; they are listed with their indices.
    """
    if _is_integer(text):
        if not 0 <= int(text) < count:
            raise TargetError(f"class {int(text)} is out of range: the classes go from 0 to {count - 1}")
        return int(text)
    if labels is None:
        raise InputError(f"this model has no labels: give the class's index, from 0 to {count - 1}, not {text!r}")
    found = _matches(text, labels)
    if not found:
        hint = f"Labels are matched in part too, or give an index from 0 to {count - 1}."
        raise UnknownNameError("class", text, labels, hint)
    if len(found) > 1:
        listed = ", ".join(f"{index} {labels[index]!r}" for index in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InputError(f"{text!r} fits {len(found)} classes: {listed}{more}; give the index of one")
    return found[0]


def _matches(text: str, labels: Sequence[str]) -> list[int]:
    """The labels that fit, by the strictest reading under which any fits."""
    wanted = _plain(text)
    readings = (
        lambda label: label == text,
        lambda label: _plain(label) == wanted,
        lambda label: f" {wanted} " in f" {_plain(label)} ",
        lambda label: wanted in _plain(label),
    )
    found: list[int] = []
    for fits in readings if wanted else ():
        found = found or [index for index, label in enumerate(labels) if fits(label)]
    return found


def _plain(label: str) -> str:
    return " ".join(label.replace("_", " ").casefold().split())


def _is_integer(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()
