"""One engine for every method that changes what backward means: a table from operations to rules."""

from typing import Any

__all__ = ["handles", "trust"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from whybox.attribution.backprop import kinds, table  # the own table first: what is registered later replaces it

    assert kinds
    return getattr(table, name)
