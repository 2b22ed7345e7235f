"""Value: what methods and metrics are: a frozen dataclass of plain values, to be written down and built again."""

from dataclasses import fields, is_dataclass
from typing import Any

from whybox.core import registry


class Value:
    """A frozen dataclass of plain values that the registry knows by name."""

    def config(self) -> dict[str, Any]:
        """This value as plain ones for YAML and JSON; `whybox.method(**config)` or `metric` builds it again."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]
        return {"name": registry.name_of(type(self)), **values}


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return value.config()
    if is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    return list(map(_plain, value)) if isinstance(value, tuple) else value
