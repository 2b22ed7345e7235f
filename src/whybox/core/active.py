"""Active: a batched iteration from which samples that are finished drop out, so that nothing is computed for them."""

import torch
from torch import Tensor


class Active:
    """Which samples of a batch are still worked on; and state with one row for each of them.

    The state is a dictionary of tensors with the active samples in front; `finish` takes rows out of it and keeps
    them, `gathered` gives back one row for each sample of the batch, whenever it left.

    Args:
        count: the number of samples.
        state: named tensors (count, …).
    """

    def __init__(self, count: int, **state: Tensor) -> None:
        self.sample = torch.arange(count)
        self.state = state
        self._kept: dict[str, list[Tensor]] = {}
        self._left: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.state[name] = value

    def finish(self, done: Tensor) -> None:
        """Take these samples, True in (active,), out of the iteration; their state stays what it is now."""
        if not bool(done.any()):
            return
        self._left.append(self.sample[done])
        for name, value in self.state.items():
            here = done.to(value.device)
            self._kept.setdefault(name, []).append(value[here])
            self.state[name] = value[~here]
        self.sample = self.sample[~done]

    def gathered(self, name: str) -> Tensor:
        """This state of all samples, finished or not, in the order of the batch."""
        value = torch.cat((*self._kept.get(name, []), self.state[name]))
        return value[torch.cat((*self._left, self.sample)).argsort().to(value.device)]
