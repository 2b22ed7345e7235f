"""The few exceptions of whybox. Each message says what is wrong and what to do about it."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class WhyboxError(Exception):
    """Base of all errors that whybox raises on purpose; its text is meant for the user."""


class InputError(WhyboxError, ValueError):
    """The input cannot be explained as given: wrong type, shape, size or values."""


class TargetError(WhyboxError, ValueError):
    """The target does not name a scalar of this model's output."""


class ModelError(WhyboxError, ValueError):
    """The model cannot be loaded, run or explained in the way that was asked for."""


class CheckpointError(WhyboxError, ValueError):
    """A file of weights or results is damaged, does not fit, or would run code when read."""


class UnknownNameError(WhyboxError, LookupError):
    """A name that is not among the known ones; the message offers the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        near = nearest(name, known)
        text = f"there is no {kind} {name!r}"
        text += f"; did you mean {', '.join(map(repr, near))}?" if near else "."
        super().__init__(f"{text} {hint}".rstrip())


class MissingExtraError(WhyboxError, ImportError):
    """An optional dependency is not installed; the message gives the line that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package!r}: pip install 'whybox[{extra}]'")


def nearest(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """The known names that are closest to `name` in spelling, best first, at most `count`."""
    lowered: dict[str, str] = {}
    for candidate in known:
        lowered.setdefault(candidate.lower(), candidate)
    matches = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)
    inside = [key for key in lowered if name.lower() in key and key not in matches] if name else []
    return [lowered[key] for key in (matches + inside)[:count]]


def optional_import(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or raise MissingExtraError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(module.partition(".")[0], extra) from error
