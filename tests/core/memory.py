"""How many bytes of tensors were alive at once, counted operation by operation: the same on every machine."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """While the mode is on, `peak` is the largest number of bytes of new storages alive at one time."""

    def __init__(self):
        super().__init__()
        self.peak = self.now = 0
        self.alive = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for x in tree_leaves(output):
            if isinstance(x, torch.Tensor):
                self.note(x.untyped_storage())
        return output

    def note(self, storage):
        if weakref.ref(storage, self.forget) in self.alive:
            return
        size = storage.nbytes()
        self.alive[weakref.ref(storage, self.forget)] = size
        self.now += size
        self.peak = max(self.peak, self.now)

    def forget(self, reference):
        self.now -= self.alive.pop(reference)
