"""Taps: see, replace or ablate what a layer, named by its dotted path, gives out while the model runs."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core.errors import ModelError, UnknownNameError

Edit = Callable[[Tensor], Tensor | None]


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """The submodule with this dotted name, or an error that offers the nearest names."""
    layers: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
    if not name or name not in layers:
        raise UnknownNameError("layer", name, filter(None, layers), hint="`whybox layers MODEL` lists them all.")
    return layers[name]


@contextmanager
def tap(module: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """While the context lasts, call `edits[name](output)` each time that layer runs in this thread.

    What the edit returns takes the place of the layer's output; None leaves it. A layer that gives a tuple or a
    mapping (as in transformers) is edited at its first tensor, one without any not at all. To record, append to a
    list and return a clone: an in-place operation behind the layer (`ReLU(inplace=True)`) would otherwise overwrite
    what was recorded. To replace, return the new value; to ablate, return zeros.
    """
    owner = threading.get_ident()

    def hook(edit: Edit) -> Callable[[nn.Module, Any, Any], Any]:
        def edit_output(_layer: nn.Module, _inputs: Any, output: Any) -> Any:
            if threading.get_ident() != owner:
                return None
            first = first_tensor(output)
            new = None if first is None else edit(first)
            return None if first is None or new is None else _with_first_tensor(output, first, new)

        return edit_output

    with ExitStack() as stack:
        for name, edit in edits.items():
            layer = find_layer(module, name)
            if isinstance(layer, torch.jit.ScriptModule):
                raise ModelError(f"layer {name!r} is scripted and cannot be seen from outside; give the plain module")
            handle = layer.register_forward_hook(hook(edit))
            stack.callback(handle.remove)
        yield


@contextmanager
def count_rows(module: nn.Module, add: Callable[[int], None]) -> Iterator[None]:
    """While the context lasts, call `add(rows)` for each forward pass of the module in this thread."""
    owner = threading.get_ident()
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("the passes of a scripted model cannot be counted; put it into a torch.nn.Sequential")

    def count(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if threading.get_ident() == owner and inputs and isinstance(inputs[0], Tensor):
            add(len(inputs[0]))

    handle = module.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_rows(layer: str, output: Tensor, rows: int) -> None:
    """Raise ModelError unless the layer's output has one row per sample."""
    if output.ndim == 0 or len(output) != rows:
        raise ModelError(
            f"layer {layer!r} gives shape {tuple(output.shape)} for {rows} samples, not one row for each; choose a "
            "layer that keeps the batch axis first"
        )


def first_tensor(output: Any) -> Tensor | None:
    """The tensor itself, or the first one in a tuple, list or mapping; None where there is none."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    if not isinstance(values, Iterable):
        return None
    return next((value for value in values if isinstance(value, Tensor)), None)


def _with_first_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """The same structure with one tensor exchanged."""
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        return type(output)(**{key: new if value is old else value for key, value in output.items()})
    values = [new if value is old else value for value in output]
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
