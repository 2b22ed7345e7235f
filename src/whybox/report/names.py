"""What to call methods, models, classes and probabilities in front of people."""

import re
from collections.abc import Sequence
from typing import Any

from whybox.core.errors import UnknownNameError
from whybox.core.registry import method_class

_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][A-Za-z' -]*[a-z]")


def method_title(config: dict[str, Any]) -> str:
    """A method's class name; a wrapper says what it wraps."""
    try:
        title = method_class(config["name"]).__name__
    except UnknownNameError:  # a method of the user's own, or another library's
        title = str(config["name"])
    inner = config.get("of")
    return f"{title} of {method_title(inner)}" if isinstance(inner, dict) and "name" in inner else title


def method_text(config: Any) -> str:
    """A method's configuration as `whybox.method` reads it: name(field=value, …)."""
    if isinstance(config, dict) and "name" in config:
        fields = ", ".join(f"{key}={method_text(value)}" for key, value in config.items() if key != "name")
        return f"{config['name']}({fields})" if fields else str(config["name"])
    if isinstance(config, (list, tuple)):
        return f"({', '.join(map(method_text, config))}{',' if len(config) == 1 else ''})"
    return repr(config)


def method_titles(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Titles that tell the methods apart: with the whole configuration where two have the same."""
    titles = [method_title(config) for config in configs]
    return [
        method_text(config) if titles.count(title) > 1 else title for title, config in zip(titles, configs, strict=True)
    ]


def settings(config: dict[str, Any]) -> str:
    """The fields of a method that differ from its defaults, in a line: "samples 64, noise 0.2"."""
    try:
        usual = method_class(config["name"])().config()
    except (UnknownNameError, TypeError):  # not registered, or with a field that must be given
        usual = {}
    return ", ".join(
        f"{key} {value if isinstance(value, str) else method_text(value)}"
        for key, value in config.items()
        if key not in ("name", "of") and value != usual.get(key)
    )


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
