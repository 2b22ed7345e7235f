"""The registry: methods by name, readable without importing torch; other packages add theirs by entry points.

A package adds a method with an entry point in the group "whybox.methods", `name = "module:Class"`.
"""

import ast
import importlib
import inspect
import re
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, get_type_hints

from whybox.core.annotations import fits, written
from whybox.core.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from whybox.core.method import Method

METHODS = {
    "gradient": "whybox.attribution.gradient:Gradient",
    "sensitivity_analysis": "whybox.attribution.gradient:SensitivityAnalysis",
    "input_x_gradient": "whybox.attribution.gradient:InputXGradient",
    "smooth_grad": "whybox.attribution.smooth:SmoothGrad",
    "var_grad": "whybox.attribution.smooth:VarGrad",
    "smooth_grad_squared": "whybox.attribution.smooth:SmoothGradSquared",
    "integrated_gradients": "whybox.attribution.path:IntegratedGradients",
    "expected_gradients": "whybox.attribution.path:ExpectedGradients",
    "cam": "whybox.attribution.cam:CAM",
    "grad_cam": "whybox.attribution.cam:GradCAM",
    "lrp": "whybox.attribution.backprop.lrp:LRP",
    "deep_taylor": "whybox.attribution.backprop.deep_taylor:DeepTaylor",
    "guided_backprop": "whybox.attribution.backprop.gated:GuidedBackprop",
    "deconvnet": "whybox.attribution.backprop.gated:DeconvNet",
    "salinet": "whybox.attribution.backprop.gated:SaliNet",
    "desalinet": "whybox.attribution.backprop.gated:DeSaLiNet",
    "guided_grad_cam": "whybox.attribution.backprop.gated:GuidedGradCAM",
    "occlusion": "whybox.attribution.perturbation.occlusion:Occlusion",
    "prediction_difference": "whybox.attribution.perturbation.prediction_difference:PredictionDifference",
    "rise": "whybox.attribution.perturbation.rise:RISE",
    "lime": "whybox.attribution.perturbation.lime:LIME",
    "kernel_shap": "whybox.attribution.perturbation.kernel_shap:KernelSHAP",
    "shapley_sampling": "whybox.attribution.perturbation.shapley_sampling:ShapleySampling",
}

# Values that stand in the fields of methods.
_INFILLS = (
    "Zero",
    "Constant",
    "Mean",
    "Black",
    "Blur",
    "Shuffled",
    "Imputed",
    "Sample",
    "UniformNoise",
    "GaussianNoise",
)
_REGIONS = ("Pixels", "Patches", "Superpixels", "Along")
VALUES = {name: f"whybox.core.reference:{name}" for name in _INFILLS}
VALUES |= {name: f"whybox.core.regions:{name}" for name in _REGIONS}
VALUES |= {name: f"whybox.attribution.backprop.composites:{name}" for name in ("Composite", "Match")}
VALUES |= {name: f"whybox.attribution.backprop.rules:{name}" for name in ("Group", "Rule")}

# What makes a value by a shorter name: the functions of `whybox.rules`.
_RULES = ("zero", "epsilon", "gamma", "alpha_beta", "z_plus", "flat", "w_squared", "box")
MAKERS = {name: f"whybox.attribution.backprop.rules:{name}" for name in _RULES}


@cache
def _table() -> dict[str, str]:
    return {**{entry.name: entry.value for entry in entry_points(group="whybox.methods")}, **METHODS}


def methods() -> list[str]:
    """The names of all methods, whybox's own first."""
    return list(METHODS) + sorted(set(_table()) - set(METHODS))


def method_class(name: str) -> "type[Method]":
    """The class of a method, by name."""
    if name not in _table():
        raise UnknownNameError("method", name, methods(), hint="`whybox methods` lists them all.")
    found: type[Method] = _load(_table()[name])
    return found


def method(name: str, **fields: Any) -> "Method":
    """Build a method from its name and fields, or from text such as "smooth_grad(of=gradient, samples=16)".

    A field that is a mapping with a "name" is built likewise, so `method(**m.config())` equals `m`.

    Raises:
        UnknownNameError: there is no such method or field; the nearest are offered.
        InputError: the text cannot be read, or a value does not fit.
    """
    if "fitted" in fields:
        raise InputError(f"this {name} has been fitted to data; read it with Fitted.load(path) from where it was saved")
    if not fields and "(" in name:
        built = _from_text(name)
    else:
        built = _build(method_class(name), name, {key: _from_config(value) for key, value in fields.items()})
    if not hasattr(built, "attribute"):
        raise InputError(f"{name!r} is not a method, but a value for the field of one")
    return built  # type: ignore[no-any-return]


def name_of(cls: type) -> str:
    """The registered name of a method's class, or its class name in snake case."""
    place = f"{cls.__module__}:{cls.__qualname__}"
    named = next((name for name, where in _table().items() if where == place), None)
    return named or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _build(cls: Any, name: str, fields: dict[str, Any]) -> Any:
    known = inspect.signature(cls).parameters
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


def _from_config(value: Any) -> Any:
    """Plain values as they are read from JSON or YAML, turned into values, methods and tuples."""
    if isinstance(value, dict) and "name" in value:
        return _named(value["name"], {key: _from_config(part) for key, part in value.items() if key != "name"})
    return tuple(map(_from_config, value)) if isinstance(value, list) else value


def _named(name: str, fields: dict[str, Any]) -> Any:
    place = VALUES.get(name) or MAKERS.get(name)
    if place is not None:
        return _build(_load(place), name, fields)
    if name not in _table():
        raise UnknownNameError("method or value", name, [*methods(), *VALUES, *MAKERS])
    return _build(method_class(name), name, fields)


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
