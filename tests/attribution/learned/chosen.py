"""The data sets of the L2X paper (ten columns of normal noise), with the models that give their true P(y|x)."""

import torch
from torch import Tensor, nn

COLUMNS = 10


def orange(x: Tensor) -> Tensor:
    """The log-odds of being outside a shell; of four columns."""
    return x.square().sum(1) - 4


def additive(x: Tensor, steep: float = 100.0) -> Tensor:
    """Four functions of a column each, the first the strongest by far, as in the authors' code."""
    return -steep * (0.2 * x[:, 0]).sin() + x[:, 1].abs() + x[:, 2] + (-x[:, 3]).exp() - 2.4


LOG_ODDS = {
    "xor": lambda x: x[:, 0] * x[:, 1],
    "orange": lambda x: orange(x[:, :4]),
    "additive": lambda x: additive(x[:, :4]),
    "switch": lambda x: torch.where(x[:, 9] > 0, orange(x[:, :4]), additive(x[:, 4:8])),
    "gentle switch": lambda x: torch.where(x[:, 9] > 0, orange(x[:, :4]), additive(x[:, 4:8], 10.0)),
}
TRUE = {"xor": 2, "orange": 4, "additive": 4, "switch": 5, "gentle switch": 5}
"""How many columns tell something, of each input."""


class Oracle(nn.Module):
    """The true distribution, as the scores of two classes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        odds = LOG_ODDS[self.name](x)
        return torch.stack((torch.zeros_like(odds), odds), 1)


def draw(name: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (n, 10), and which columns of each tell something (n, 10)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, COLUMNS, generator=generator)
    true = torch.zeros(count, COLUMNS, dtype=torch.bool)
    if "switch" not in name:
        true[:, : TRUE[name]] = True
        return x, true
    x[:, 9] += torch.where(torch.rand(count, generator=generator) < 0.5, 3.0, -3.0)
    first = x[:, 9] > 0
    true[first, :4] = true[~first, 4:8] = True
    true[:, 9] = True
    return x, true


def median_ranks(relevance: Tensor, true: Tensor) -> Tensor:
    """The median rank of the columns that tell something, from 1, of each sample (n,)."""
    ranks = relevance.argsort(dim=1, descending=True, stable=True).argsort(1) + 1
    count = int(true.sum(1)[0])
    return ranks[true].view(-1, count).double().quantile(0.5, dim=1)
