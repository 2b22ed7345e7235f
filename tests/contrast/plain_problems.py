"""Problems as the optimiser sees them, written down without a model: what the tests compare it on."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


class Plain:
    """Scores s(z, sample) (k, classes) of which t and p must tie, the others ε below; counts what is asked."""

    def __init__(self, scores: Callable[[Tensor, Tensor], Tensor], true: int = 0, probe: int = 1, margin: float = 0.0):
        self.scores, self.true, self.probe, self.margin = scores, true, probe, margin
        self.asked = 0

    def ask(self, z, sample, weigh):
        self.asked += len(z)
        z = z.detach().requires_grad_()
        scores = self.scores(z, sample)
        values = self.values(scores)
        weights = weigh(values.detach(), torch.arange(len(z)))
        slopes = [torch.autograd.grad((values * weight).sum(), z, retain_graph=True)[0] for weight in weights.unbind(1)]
        told = scores.detach().log_softmax(1)[:, [self.true, self.probe]]
        return values.detach(), torch.stack(slopes, 1) if slopes else z.new_zeros((len(z), 0, z.shape[1])), told

    def values(self, scores):
        true, probe = scores[:, self.true], scores[:, self.probe]
        rest = [i for i in range(scores.shape[1]) if i not in (self.true, self.probe)]
        return torch.cat(((true - probe)[:, None], scores[:, rest] - true[:, None] + self.margin), 1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mlp(widths: tuple[int, ...], seed: int, scale: float = 1.5) -> torch.nn.Sequential:
    """Dense layers and tanh in double precision."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inside, outside in pairwise(widths):
        layer = torch.nn.Linear(inside, outside).double()
        with torch.no_grad():
            layer.weight.copy_(scale * torch.randn(outside, inside, dtype=torch.float64, generator=generator))
            layer.weight.div_(inside**0.5)
            layer.bias.copy_(0.3 * torch.randn(outside, dtype=torch.float64, generator=generator))
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])
