"""Models of the user's own, made by a function in a Python file: `path/to/file.py:FACTORY`."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from whybox.core.errors import ModelError, UnknownNameError
from whybox.core.model import Model
from whybox.models.checkpoints import Weights, load_weights


def load_file(path: Path, factory: str, weights: Weights) -> Model:
    """The model that `factory()` of the file returns: an `nn.Module`, or a Model with labels and preprocessing.

    The file may import modules that lie beside it.
    """
    if weights == "random":
        raise ModelError(f"the weights are what {factory}() in {path} makes them: leave weights out, or give a file")
    if not path.is_file():
        raise ModelError(f"there is no file {str(path)!r} to load a model from")
    with _importable(path.parent):
        make = _function(_module(path), factory, path)
        try:
            made = make()
        except Exception as error:
            raise ModelError(f"{factory}() in {path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, (nn.Module, Model)):
        raise ModelError(
            f"{factory}() in {path} returns a {type(made).__name__}, not a torch.nn.Module or whybox.Model"
        )
    model = made if isinstance(made, Model) else Model(made, name=f"{path.name}:{factory}")
    if weights is not None:
        load_weights(model.module, weights)
        model.name = f"{model.name} ({Path(weights).name})"
    return model


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder first in the search path for imports, for as long as this lasts."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _module(path: Path) -> ModuleType:
    """The file, run as a module under a name of its own."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"whybox_file_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes look their module up there, for pickling and for dataclasses
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ModelError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _function(module: ModuleType, name: str, path: Path):  # type: ignore[no-untyped-def]
    """The factory of that name, or an error with the nearest names."""
    own = {key for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    if name not in own:
        raise UnknownNameError(f"function in {path}", name, own)
    return getattr(module, name)
