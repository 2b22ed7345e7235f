"""The registry: methods and metrics by name, readable without importing torch; other packages add theirs.

A package adds a method with an entry point in the group "whybox.methods", `name = "module:Class"`, and a metric with
one in "whybox.metrics".
"""

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, get_type_hints

from whybox.core.annotations import fits, written
from whybox.core.errors import CheckpointError, InputError, UnknownNameError
from whybox.core.names import CONTROLS, MAKERS, METHODS, METRICS, VALUES

if TYPE_CHECKING:
    from whybox.core.method import Method
    from whybox.evaluation.metric import Metric

_OURS = {"methods": METHODS | CONTROLS, "metrics": METRICS}


@cache
def _table(kind: str) -> dict[str, str]:
    return {**{entry.name: entry.value for entry in entry_points(group=f"whybox.{kind}")}, **_OURS[kind]}


def methods() -> list[str]:
    """The names of all methods, whybox's own first."""
    return list(METHODS) + sorted(set(_table("methods")) - set(METHODS) - set(CONTROLS))


def metrics() -> list[str]:
    """The names of all metrics, whybox's own first."""
    return list(METRICS) + sorted(set(_table("metrics")) - set(METRICS))


def method_class(name: str) -> "type[Method]":
    """The class of a method or a control, by name."""
    found: type[Method] = _class("method", name, [*methods(), *CONTROLS])
    return found


def metric_class(name: str) -> "type[Metric]":
    """The class of a metric, by name."""
    found: type[Metric] = _class("metric", name, metrics())
    return found


def _class(kind: str, name: str, known: list[str]) -> Any:
    if name not in known:
        raise UnknownNameError(kind, name, known, hint=f"`whybox {kind}s` lists them all.")
    return _load(_table(f"{kind}s")[name])


def method(name: str, **fields: Any) -> "Method":
    """Build a method from its name and fields, or from text such as "smooth_grad(of=gradient, samples=16)".

    A field that is a mapping with a "name" is built likewise, so `method(**m.config())` equals `m`. What ends in
    .safetensors is the file of one that was fitted.

    Raises:
        UnknownNameError: there is no such method or field; the nearest are offered.
        InputError: the text cannot be read, or a value does not fit.
        CheckpointError: there is no such file of a fitted method, or it holds another one than its configuration says.
    """
    if name.endswith(".safetensors") and not fields:
        return _load("whybox.core.method:Fitted").load(name)  # type: ignore[no-any-return]
    built: Method = _asked_for("method", method_class, "attribute", name, fields)
    return built


def metric(name: str, **fields: Any) -> "Metric":
    """Build a metric from its name and fields, or from text such as "deletion(steps=50)"; as `method` does.

    Raises:
        UnknownNameError: there is no such metric or field; the nearest are offered.
        InputError: the text cannot be read, or a value does not fit.
    """
    built: Metric = _asked_for("metric", metric_class, "measure", name, fields)
    return built


def _asked_for(kind: str, find: Callable[[str], type], does: str, name: str, fields: dict[str, Any]) -> Any:
    """A method or a metric from its name and fields, or from text: what has a function of the name `does`."""
    if not fields and "(" in name:
        built = _from_text(name)
    else:
        built = _build(find(name), name, {key: _from_config(value) for key, value in fields.items()})
    if not hasattr(built, does):
        raise InputError(f"{name!r} is not a {kind}, but a value for the field of one")
    return built


def name_of(cls: type) -> str:
    """The registered name of a class, or its class name in snake case."""
    place = f"{cls.__module__}:{cls.__qualname__}"
    tables = _table("methods") | _table("metrics")
    named = next((name for name, where in tables.items() if where == place), None)
    return named or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _build(cls: Any, name: str, fields: dict[str, Any]) -> Any:
    known = inspect.signature(cls).parameters
    if "fitted" in fields and "fitted" not in known:
        return _fitted(cls, name, **fields)
    try:
        annotations = get_type_hints(cls)
    except NameError:  # a class of another package, with names that it imports for type checkers only
        annotations = {}
    for key, value in fields.items():
        if key not in known:
            raise UnknownNameError(f"field of {name}", key, known)
        if not fits(value, annotations.get(key, Any)):
            raise InputError(f"the field {key} of {name} is {written(annotations[key])}, not {value!r}")
    try:
        return cls(**fields)
    except TypeError as error:
        raise InputError(f"{name} cannot be built from {fields}: {error}") from error


def _fitted(cls: Any, name: str, fitted: str, file: str = "", **fields: Any) -> Any:
    """A method as it was fitted, read from its file, if it is still the same there."""
    if not file:
        raise InputError(f"this {name} has been fitted to data; read it with Fitted.load(path) from where it was saved")
    found = _load("whybox.core.method:Fitted").load(file)
    if (found.method, found.digest) != (_build(cls, name, fields), fitted):
        raise CheckpointError(f"{file} does not hold the {name} with the digest {fitted}; it was fitted anew")
    return found


def _from_config(value: Any) -> Any:
    """Plain values as they are read from JSON or YAML, turned into values, methods and tuples."""
    if isinstance(value, dict) and "name" in value:
        return _named(value["name"], {key: _from_config(part) for key, part in value.items() if key != "name"})
    return tuple(map(_from_config, value)) if isinstance(value, list) else value


def _named(name: str, fields: dict[str, Any]) -> Any:
    place = VALUES.get(name) or MAKERS.get(name)
    if place is not None:
        return _build(_load(place), name, fields)
    if name in _table("methods"):
        return _build(method_class(name), name, fields)
    if name in _table("metrics"):
        return _build(metric_class(name), name, fields)
    if "digest" in fields:
        raise InputError(f"this {name} is known by its digest alone; give the object itself, or the path of its file")
    raise UnknownNameError("method or value", name, [*methods(), *metrics(), *VALUES, *MAKERS])


def _from_text(text: str) -> Any:
    """Read `name(field=value, …)`; only names, literals and keyword calls: nothing is evaluated."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # it may nest too deeply
        raise InputError(f"cannot read {text!r}; write name(field=value, …)") from error

    def read(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return _named(node.id, {})
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            fields = [part.arg or "**" for part in node.keywords]
            if len(set(fields)) < len(fields):
                raise InputError(f"{text!r} gives a field twice")
            return _named(node.func.id, {part.arg or "**": read(part.value) for part in node.keywords})
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(map(read, node.elts))
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError) as error:
            raise InputError(f"cannot read {ast.unparse(node)!r} in {text!r}; write name(field=value, …)") from error

    return read(tree)
