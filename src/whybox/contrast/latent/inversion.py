"""Inversion: the latent point whose decoding is nearest to an input.

By Adam, but with one second moment for all dimensions of a point. With one for each, as is usual, directions that
hardly change the decoding are walked as fast as the others, and points end far out, where no training point has been
(digits, VAE of 16 dimensions: at a norm of 13.8 instead of 4.3, for a distance of 0.068 instead of 0.076).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from whybox.core.block import mix, noise_keys

# Rows (samples times starts) that are decoded at once.
ROWS = 256
# Adam's step at the beginning; it falls to zero along a quarter of a cosine.
RATE = 0.2
_MEAN, _SQUARE, _TINY = 0.9, 0.99, 1e-12


def invert(
    decode: Callable[[Tensor], Tensor], x: Tensor, guess: Tensor | None, size: int, seed: int, steps: int, restarts: int
) -> tuple[Tensor, Tensor]:
    """The best point (n, size) for each sample, and its squared distance ‖decode(z) − x‖² (n,).

    Args:
        decode: from points (k, size) to data (k, *features).
        x: the data (n, *features).
        guess: a point for each sample to begin with (n, size), besides the random ones; or None.
        size: the dimension of the points.
        seed: of the random starts, which are standard normal, keyed by (seed, sample, start).
        steps: how many steps are made from each start.
        restarts: how many starts there are; of the one found best at any step the point is kept.
    """
    keys = noise_keys(seed, len(x))
    found = []
    for rows in torch.arange(len(x)).split(max(1, ROWS // restarts)):
        starts = torch.stack([_starts(keys[row], restarts, size) for row in rows.tolist()]).to(x)
        if guess is not None:
            starts[:, 0] = guess[rows]
        found.append(_descend(decode, x[rows], starts, steps))
    return torch.cat([z for z, _ in found]), torch.cat([loss for _, loss in found])


def _starts(key: int, restarts: int, size: int) -> Tensor:
    draws = [torch.Generator().manual_seed(mix(key, number)) for number in range(restarts)]
    return torch.stack([torch.randn(size, generator=one) for one in draws])


def _descend(decode: Callable[[Tensor], Tensor], x: Tensor, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """From starts (k, restarts, size): the best point of each of the k samples, and its loss."""
    k, restarts, size = starts.shape
    goal = x.repeat_interleave(restarts, 0)
    z = starts.reshape(-1, size)
    mean, square = torch.zeros_like(z), torch.zeros_like(z[:, :1])
    best, lowest = z, z.new_full((len(z),), torch.inf)
    for step in range(steps + 1):
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            loss = (decode(z) - goal).square().flatten(1).sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), z)
        better = loss.detach() < lowest
        best, lowest = torch.where(better[:, None], z.detach(), best), torch.where(better, loss.detach(), lowest)
        mean = _MEAN * mean + (1 - _MEAN) * gradient
        square = _SQUARE * square + (1 - _SQUARE) * gradient.square().mean(1, keepdim=True)
        size_of_step = RATE * torch.cos(torch.tensor(step / max(steps, 1) * torch.pi / 2)).item()
        way = mean / (1 - _MEAN ** (step + 1)) / ((square / (1 - _SQUARE ** (step + 1))).sqrt() + _TINY)
        z = z.detach() - size_of_step * way
    lowest, chosen = lowest.view(k, restarts).min(1)
    return best.view(k, restarts, size)[torch.arange(k, device=best.device), chosen], lowest
