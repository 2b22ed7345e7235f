"""What to call methods, models, classes and probabilities in front of people."""

import re
from collections.abc import Sequence
from typing import Any

from whybox.core.configs import config_text
from whybox.core.errors import UnknownNameError
from whybox.core.registry import method_class

_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][A-Za-z' -]*[a-z]")


def settings(config: dict[str, Any]) -> str:
    """The fields of a method that differ from its defaults, in a line: "samples 64, noise 0.2"."""
    try:
        usual = method_class(config["name"])().config()
    except (UnknownNameError, TypeError):  # not registered, or with a field that must be given
        usual = {}
    return ", ".join(
        f"{key} {_short(key, value)}"
        for key, value in config.items()
        if key not in ("name", "of") and value != usual.get(key)
    )


def _short(field: str, value: Any) -> str:
    """A value as text; of a digest its beginning, which is enough to tell two apart."""
    if field == "fitted":
        return f"{value[:8]}…"
    return value if isinstance(value, str) else config_text(value)


def model_titles(models: Sequence[str]) -> list[str]:
    """The models' names without library and weights, as long as that tells them apart; numbered if not even
    the full names do.
    """
    short = [re.sub(r"^\w+:(?=\S)|\s+\(.*\)$", "", model) or model for model in models]
    if len(set(short)) == len(short):
        return short
    if len(set(models)) == len(models):
        return list(models)
    return [f"{model} ({number})" if models.count(model) > 1 else model for number, model in enumerate(models, 1)]


def thing(label: str) -> str:
    """A class as the object of a sentence: "a tench", "an axolotl", "sunglasses"; “7” where it is not a word."""
    if not _WORD.fullmatch(label) or label.isupper():
        return f"“{label}”"
    if label.endswith("s") and not label.endswith("ss"):
        return label
    return f"an {label}" if _VOWEL.match(label) else f"a {label}"


def percent(share: float) -> str:
    """A probability as people read it, with narrow spaces that do not break: 94 %, 3.1 %, < 0.1 %, > 99.9 %."""
    if share != share:
        return "—"
    if share < 0.001:
        return "<\u202f0.1\u202f%"
    if share > 0.999:
        return ">\u202f99.9\u202f%"
    digits = 1 if share < 0.1 or share > 0.99 else 0
    return f"{100 * share:.{digits}f}\u202f%"
