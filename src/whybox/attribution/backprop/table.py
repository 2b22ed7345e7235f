"""The public table of operations: which handler answers which torch function."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Handler = Callable[..., Any]
KINDS: dict[Any, Handler] = {}
"""torch function → handler(engine, function, arguments, keywords) → output."""

TRUSTED: set[str] = set()
"""Names of autograd nodes that no torch function call announces and whose own backward counts as their rule."""

_SPACES = (Tensor, torch, F, torch.special, torch.linalg)
_AUGMENTED = {"add": "__iadd__", "sub": "__isub__", "mul": "__imul__", "div": "__itruediv__", "pow": "__ipow__"}
_inplace: dict[Any, Any] = {}  # function that works in place → the same out of place
_places: dict[Any, int] = {}  # function of torch.nn.functional → the position of its argument `inplace`


def handles(*functions: Any) -> Callable[[Handler], Handler]:
    """Register a handler: `@handles(torch.relu, F.relu)`, or by name, `@handles("relu")`: all that torch calls so.

    The handler computes the operation out of place; what works in place (`relu_`, `inplace=True`, `+=`) is derived.
    """

    def register(handler: Handler) -> Handler:
        for given in functions:
            found = named(given) if isinstance(given, str) else [given]
            if not found:
                raise LookupError(f"torch has no function {given!r}")
            for function in found:
                KINDS[function] = handler
                _derive(function, given if isinstance(given, str) else getattr(function, "__name__", ""))
        return handler

    return register


def trust(node: str) -> None:
    """Let the backward of an autograd node that cannot be seen, as "MyFunctionBackward", count as its rule."""
    TRUSTED.add(node)


def named(name: str) -> list[Any]:
    """The functions of this name in torch's namespaces."""
    found = [getattr(space, name) for space in _SPACES if callable(getattr(space, name, None))]
    return [function for function in found if not inspect.isclass(function)]


def getter(attribute: str, way: str = "__get__") -> Any:
    """The function that torch calls when a tensor's attribute is read (or, by `way="__set__"`, assigned)."""
    return getattr(getattr(Tensor, attribute), way)


def out_of_place(function: Any) -> Any | None:
    """The out-of-place operation of a function that works in place, or None if it does not."""
    known = _inplace.get(function)
    if known is not None:
        return known
    name = getattr(function, "__name__", "")
    if not name.endswith("_") or name.endswith("__"):
        return None
    plain = getattr(Tensor, name[:-1], None) or getattr(torch, name[:-1], None)
    if plain is not None:
        _inplace[function] = plain
    return plain


def strip_inplace(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any, Any]:
    """Whether `inplace=True` is asked for, and the arguments without it."""
    place = _places.get(function)
    if place is None:
        return False, args, kwargs
    asked = kwargs.get("inplace", False) or (len(args) > place and args[place])
    if not asked:
        return False, args, kwargs
    kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
    return True, (*args[:place], False, *args[place + 1 :]) if len(args) > place else args, kwargs


def _derive(function: Any, name: str) -> None:
    """Note the forms of this function that work in place."""
    for space in _SPACES:
        twin = getattr(space, f"{name}_", None)
        if twin is not None and not name.startswith("_"):
            _inplace.setdefault(twin, function)
    if name in _AUGMENTED:
        _inplace[getattr(Tensor, _AUGMENTED[name])] = getattr(torch, name)
    if inspect.isfunction(function) and function.__module__ == F.__name__:
        names = list(inspect.signature(function).parameters)
        if "inplace" in names:
            _places[function] = names.index("inplace")
