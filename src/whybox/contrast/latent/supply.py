"""Supply: what a training draws at random, a function of the seed and of how far it is."""

import torch
from torch import Tensor

from whybox.core.block import mix


class Supply:
    """Batches of the data and noise.

    The order of the data is keyed by (seed, epoch), the noise of a step by (seed, stage, step). So `taken`, the number
    of batches so far, is all that a training must keep of it to go on as if it had never been stopped.

    Args:
        data: the training data (n, …), on any device.
        batch: how many samples a batch has; what is left over in an epoch is left out.
        seed: of the order and the noise.
        device: where batches and noise are wanted.
    """

    def __init__(self, data: Tensor, batch: int, seed: int, device: torch.device) -> None:
        self.taken = 0
        self._data, self._batch, self._seed, self._device = data, batch, seed, device
        self._epoch, self._order = -1, torch.empty(0)
        self._noise = torch.Generator()

    def begin_step(self, stage: int, step: int) -> None:
        """Draw the noise of this step from now on."""
        self._noise.manual_seed(mix(mix(mix(self._seed, -1 - stage), step), 0))

    def batch(self) -> Tensor:
        """The next samples (batch, …)."""
        epoch, number = divmod(self.taken, len(self._data) // self._batch)
        if epoch != self._epoch:
            order = torch.Generator().manual_seed(mix(self._seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self._data), generator=order)
        self.taken += 1
        rows = self._order[number * self._batch : (number + 1) * self._batch]
        return self._data[rows.to(self._data.device)].to(self._device)

    def normal(self, size: int) -> Tensor:
        """Standard normal points (batch, size); drawn on the CPU, so that they are the same on any device."""
        return torch.randn(self._batch, size, generator=self._noise).to(self._device)

    def uniform(self) -> Tensor:
        """One number in [0, 1) for each sample (batch,)."""
        return torch.rand(self._batch, generator=self._noise).to(self._device)
