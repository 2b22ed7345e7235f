"""What is running, in one thread: which module of the model, and whether a compiled function."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn


class Running:
    """A stack of the modules that run now in the thread that made it.

    The hooks are global, because a module may be made while the model runs, and so also see other threads' modules.
    """

    def __init__(self, module: nn.Module) -> None:
        self._names = {id(part): name for name, part in module.named_modules()}
        self._stack: list[tuple[nn.Module, str]] = []
        self._owner = threading.get_ident()

    @property
    def where(self) -> str:
        """The dotted path of the module that is running; its type in brackets where it is not part of the model."""
        return self._stack[-1][1] if self._stack else ""

    @property
    def layer(self) -> str | None:
        """The type of torch.nn's own layer that is running, as "Conv2d"; "" in any other module, None outside all."""
        return _layer(self._stack[-1][0]) if self._stack else None

    @contextmanager
    def watched(self, leaving: Callable[[Any], None]) -> Iterator[None]:
        """Keep the stack while the context lasts; tell of what each module gives out."""

        def entered(part: nn.Module, _given: Any) -> None:
            if threading.get_ident() == self._owner:
                name = self._names.get(id(part))
                if name is None:
                    name = f"{self.where}.<{type(part).__name__}>".removeprefix(".")
                self._stack.append((part, name))

        def left(part: nn.Module, _given: Any, output: Any) -> None:
            if threading.get_ident() != self._owner:
                return
            try:
                leaving(output)
            finally:
                while any(running is part for running, _ in self._stack) and self._stack.pop()[0] is not part:
                    pass

        modules = torch.nn.modules.module
        with ExitStack() as hooks:
            hooks.callback(modules.register_module_forward_pre_hook(entered).remove)
            hooks.callback(modules.register_module_forward_hook(left, always_call=True).remove)
            yield


def _layer(part: nn.Module) -> str:
    kind = next(base for base in type(part).__mro__ if base.__module__.startswith("torch.nn.modules."))
    if kind is nn.Module or (kind is not nn.MultiheadAttention and next(part.children(), None) is not None):
        return ""
    return kind.__name__


def inside_compiled() -> bool:
    """Whether something that torch.compile has made is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "compile_wrapper":
            return True
        frame = frame.f_back
    return False
