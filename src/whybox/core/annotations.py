"""Whether a value is of the type that an annotation asks for, for values that come from text or from a file."""

import re
import types
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from whybox.core.errors import InputError


def fits(value: Any, annotation: Any) -> bool:
    """Whether the value is of this type; of types that are none of a method's fields, it is taken to be."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        if len(parts) == 2 and parts[1] is ...:
            parts = parts[:1] * len(value) if isinstance(value, tuple) else ()
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(fits, value, parts))
    if annotation is None:
        return value is None
    if annotation in (int, float):
        return isinstance(value, (int, annotation)) and not isinstance(value, bool)
    return isinstance(value, annotation) if isinstance(annotation, type) and origin is None else True


def check_fields(value: Any) -> None:
    """Raise InputError unless each field of this dataclass is of the type that its annotation asks for."""
    annotations = get_type_hints(type(value))
    for field in fields(value):
        given, wanted = getattr(value, field.name), annotations[field.name]
        if not fits(given, wanted):
            raise InputError(f"{field.name} of {type(value).__name__} is {written(wanted)}, not {given!r}")


def written(annotation: Any) -> str:
    """The annotation in words, without the modules that names come from."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(written, parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if annotation in (None, types.NoneType):
        return "None"
    text = annotation.__name__ if isinstance(annotation, type) and not parts else str(annotation)
    return re.sub(r"\b(\w+\.)+(?=\w)", "", text)
