"""The guard: a model is explained in eval mode and comes back exactly as it was, whatever happens.

What is kept per submodule, and counted, so that guards may nest, overlap on shared submodules and run in several
threads: the first guard to reach a submodule takes the snapshot, the last one to leave restores it.
The random generators are one per process and are counted the same way.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn

_lock = threading.RLock()
_modules: "dict[int, _ModuleState]" = {}
_generators: "list[_GeneratorState]" = []


@contextmanager
def guard(module: nn.Module, seed: int = 0) -> Iterator[None]:
    """Put `module` into eval mode with seeded random generators; on leaving, restore both bit for bit.

    Restored: every training flag, every buffer (value and object), every parameter's object, `requires_grad` and
    `.grad`, and the generators of torch (CPU and CUDA), numpy and random. The flags are set directly, not by
    `eval()`, because modules override `train` with side effects.
    Cost: a copy of the buffers; the parameters, which may be large, are not copied.
    Limits: a `forward` that writes into its parameters in place is not undone. Random numbers that other threads
    draw from the global generators meanwhile are drawn again afterwards.
    """
    states: list[_ModuleState] = []
    try:
        _enter(module, seed, states)
        yield
    finally:
        _leave(states)


def _enter(module: nn.Module, seed: int, states: "list[_ModuleState]") -> None:
    """Take the snapshots, each noted in `states` as soon as it counts, so that a failure midway can be undone."""
    with _lock:
        if not _generators:
            _generators.append(_GeneratorState())
            _seed_everything(seed)
        _generators[0].count += 1
        for part in module.modules():
            if id(part) not in _modules:
                _modules[id(part)] = _ModuleState(part)
            state = _modules[id(part)]
            state.count += 1
            states.append(state)
            part.training = False


def _leave(states: "list[_ModuleState]") -> None:
    with _lock:
        for state in states:
            state.count -= 1
            if state.count == 0:
                del _modules[id(state.module)]
                state.restore()
        _generators[0].count -= 1
        if _generators[0].count == 0:
            _generators.pop().restore()


class _ModuleState:
    """What one submodule, without its children, was like."""

    def __init__(self, module: nn.Module) -> None:
        self.count = 0
        self.module = module
        self.training = module.training
        self.buffers = dict(module._buffers)
        self.copies = {name: _copy(buffer) for name, buffer in self.buffers.items() if buffer is not None}
        self.parameters = dict(module._parameters)
        self.flags = {
            name: (parameter.requires_grad, parameter.grad)
            for name, parameter in self.parameters.items()
            if parameter is not None
        }

    def restore(self) -> None:
        self.module.training = self.training
        _put_back(self.module._buffers, self.buffers)
        for name, (version, copy) in self.copies.items():
            buffer = self.buffers[name]
            if buffer is not None and _version(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(copy)
        _put_back(self.module._parameters, self.parameters)
        for name, (requires_grad, grad) in self.flags.items():
            parameter = self.parameters[name]
            if parameter is not None:
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)
                if parameter.grad is not grad:
                    parameter.grad = grad


def _put_back(current: dict[str, Any], before: dict[str, Any]) -> None:
    """Make `current` hold the very objects of `before`, in their order, and touch it only where it differs."""
    if list(current) != list(before) or any(current[name] is not before[name] for name in before):
        current.clear()
        current.update(before)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # tensors made in inference mode count no versions


def _copy(tensor: Tensor) -> tuple[int, Tensor]:
    return _version(tensor), tensor.detach().clone()


class _GeneratorState:
    """The state of the process-wide random generators."""

    def __init__(self) -> None:
        self.count = 0
        self.torch = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.numpy = numpy.random.get_state()
        self.python = random.getstate()

    def restore(self) -> None:
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        numpy.random.set_state(self.numpy)
        random.setstate(self.python)


def _seed_everything(seed: int) -> None:
    """So that a model that draws random numbers in its forward pass gives the same answer for the same seed."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed a CUDA that is not yet in use
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)
