"""The guard: a model is explained in eval mode and comes back exactly as it was, whatever happens.

What is kept per submodule is counted, so that guards may nest, overlap on shared submodules and run in several
threads: the first guard to reach a submodule takes the snapshot, the last one to leave restores it.
The random generators are one per process and are counted the same way.
"""

import operator
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn

_lock = threading.RLock()
_states: "dict[object, _State]" = {}
_absent = object()


@contextmanager
def guard(module: nn.Module, seed: int = 0) -> Iterator[None]:
    """Put `module` into eval mode with seeded random generators; on leaving, restore both bit for bit.

    Restored: every training flag, every buffer (value and object), every parameter's object, `requires_grad` and
    `.grad` (which is None meanwhile, so that nothing adds to it), the hooks, the submodules, tensors that are plain
    attributes of a module, and the generators of torch (CPU and CUDA), numpy and random. The flags are set directly,
    not by `eval()`, because modules override `train` with side effects.
    Cost: a copy of the buffers; the parameters, which may be large, are not copied.
    Limits: what a `forward` writes into its parameters in place, or keeps in attributes that are no tensors, stays
    (a counter counts on), unless it also exchanges buffers: what it says about those goes back with them.
    Random numbers that other threads draw from the global generators meanwhile are drawn again afterwards.
    """
    holder = object()
    held: list[tuple[object, _State]] = []
    try:
        with _lock:
            if _hold("generators", _GeneratorState, holder, held):
                _seed_everything(seed)
            for part in module.modules():
                _hold(id(part), partial(_ModuleState, part), holder, held)
                _evaluate(part)
        yield
    finally:
        with _lock, ExitStack() as restoring:  # which goes on with the others where one cannot be restored
            for key, state in held:
                state.holders.discard(holder)
                if not state.holders and _states.get(key) is state:
                    del _states[key]
                    restoring.callback(state.restore)


def _hold(key: object, make: "Callable[[], _State]", holder: object, held: "list[tuple[object, _State]]") -> bool:
    """Take the snapshot unless another guard already has; say whether it was taken now."""
    first = key not in _states or not _states[key].holders  # one that nobody holds was interrupted while it was made
    if first:
        _states[key] = make()
    held.append((key, _states[key]))
    _states[key].holders.add(holder)
    return first


def _evaluate(part: nn.Module) -> None:
    if getattr(part, "training", False):
        part.training = False
    for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
        if tensor.is_leaf and tensor.grad is not None:
            tensor.grad = None


class _State:
    """A snapshot and who holds it."""

    def __init__(self) -> None:
        self.holders: set[object] = set()

    def restore(self) -> None:
        """Bring back what the snapshot was taken of."""
        raise NotImplementedError


class _ModuleState(_State):
    """What one submodule, without its children, was like."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = getattr(module, "training", None)  # a frozen scripted module has no such flag
        # A scripted module keeps its attributes out of Python's sight; of those only the tensors are restored.
        self.attributes = {} if isinstance(module, torch.jit.ScriptModule) else dict(vars(module))
        self.tables = [(value, dict(value)) for name, value in self.attributes.items() if _is_table(name, value)]
        self.buffers = [(buffer, _version(buffer), buffer.detach().clone()) for buffer in module.buffers(recurse=False)]
        tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        self.leaves = [(tensor, tensor.requires_grad, tensor.grad) for tensor in tensors if tensor.is_leaf]

    def restore(self) -> None:
        exchanged = [_put_back(table, before) for table, before in self.tables]
        attributes = vars(self.module) if self.attributes else {}
        for name in {**attributes, **self.attributes}:
            old, new = self.attributes.get(name, _absent), attributes.get(name, _absent)
            if new is not old and (any(exchanged) or isinstance(new, Tensor) or isinstance(old, Tensor)):
                _put(attributes, name, old)
        if self.training is not None and self.module.training != self.training:
            self.module.training = self.training
        for buffer, version, copy in self.buffers:
            with torch.no_grad():
                if buffer.shape != copy.shape:
                    buffer.data = copy
                # An edit through `.data` does not count as a version, so the values are compared as well.
                elif _version(buffer) != version or not torch.equal(buffer, copy):
                    buffer.copy_(copy)
        for tensor, requires_grad, grad in self.leaves:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not grad:
                tensor.grad = grad


def _is_table(name: str, value: Any) -> bool:
    """Whether this attribute is one of the dicts in which torch keeps parameters, buffers, submodules and hooks."""
    return isinstance(value, dict) and (name in ("_parameters", "_buffers", "_modules") or "_hooks" in name)


def _put_back(current: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Make `current` hold the very objects of `before`, in their order; say whether it did not."""
    if list(current) == list(before) and all(current[name] is value for name, value in before.items()):
        return False
    current.clear()
    current.update(before)
    return True


def _put(attributes: dict[str, Any], name: str, value: Any) -> None:
    if value is _absent:
        del attributes[name]
    else:
        attributes[name] = value


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # tensors made in inference mode count no versions


class _GeneratorState(_State):
    """The state of the process-wide random generators."""

    def __init__(self) -> None:
        super().__init__()
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
    seed = operator.index(seed) % 2**63
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed a CUDA that is not yet in use
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)
