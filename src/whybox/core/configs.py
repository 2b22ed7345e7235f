"""What to call methods, metrics and the like, given as their configurations: for people, and for the registry."""

from collections.abc import Sequence
from typing import Any

from whybox.core.errors import UnknownNameError
from whybox.core.registry import method_class, metric_class


def config_class(config: dict[str, Any]) -> type | None:
    """The class of a configured method or metric; None where it is not registered: the user's own, or External."""
    for find in (method_class, metric_class):
        try:
            return find(config["name"])
        except UnknownNameError:
            continue
    return None


def config_shows(config: dict[str, Any]) -> str:
    """What the relevance of a configured method is made of, as in `Taxonomy`; "features" where it is not registered."""
    taxonomy = getattr(config_class(config), "taxonomy", None)
    return "features" if taxonomy is None else str(taxonomy.shows)


def config_title(config: dict[str, Any]) -> str:
    """A method's or a metric's class name; a wrapper says what it wraps."""
    cls = config_class(config)
    title = str(config["name"]) if cls is None else cls.__name__
    inner = config.get("of")
    return f"{title} of {config_title(inner)}" if isinstance(inner, dict) and "name" in inner else title


def config_text(config: Any) -> str:
    """A configuration as `whybox.method` and `whybox.metric` read it: name(field=value, …)."""
    if isinstance(config, dict) and "name" in config:
        fields = ", ".join(f"{key}={config_text(value)}" for key, value in config.items() if key != "name")
        return f"{config['name']}({fields})" if fields else str(config["name"])
    if isinstance(config, (list, tuple)):
        return f"({', '.join(map(config_text, config))}{',' if len(config) == 1 else ''})"
    return repr(config)


def config_titles(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Titles that tell them apart: with the fields that differ where two are the same, numbered if they still are."""
    short = [config_title(config) for config in configs]
    titles = [_apart(title, config, short, configs) for title, config in zip(short, configs, strict=True)]
    return [
        f"{title} ({titles[: place + 1].count(title)})" if titles.count(title) > 1 else title
        for place, title in enumerate(titles)
    ]


def _apart(title: str, config: dict[str, Any], titles: Sequence[str], configs: Sequence[dict[str, Any]]) -> str:
    """The title with the fields in which this one differs from others of the same title."""
    others = [other for other, theirs in zip(configs, titles, strict=True) if theirs == title]
    fields = [
        f"{key}={config_text(value)}"
        for key, value in config.items()
        if key != "fitted" and any(one.get(key) != value for one in others)
    ]
    return f"{title} ({', '.join(fields)})" if fields else title
