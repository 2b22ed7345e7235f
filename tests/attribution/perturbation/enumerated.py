"""Games and their Shapley values by enumeration, from the definition."""

import math
from itertools import combinations

import torch
from torch import nn


class Game(nn.Module):
    """The score of which of m columns are 1, from a table: bit i of the row's number is column i."""

    def __init__(self, table):
        super().__init__()
        self.table, self.asked = table, []

    def forward(self, x):
        number = (x.round().long() << torch.arange(x.shape[1])).sum(1)
        self.asked += number.tolist()
        return self.table[number][:, None]


def bits(m):
    """Which columns each row of a table is of, (2^m, m)."""
    return (torch.arange(2**m)[:, None] >> torch.arange(m)) & 1


def shapley(score, m):
    """Σ over S without i of |S|!(m − |S| − 1)!/m! · (score(S ∪ i) − score(S)), for each i."""
    values = torch.zeros(m, dtype=torch.float64)
    for i in range(m):
        others = [j for j in range(m) if j != i]
        for size in range(m):
            weight = math.factorial(size) * math.factorial(m - size - 1) / math.factorial(m)
            for subset in combinations(others, size):
                values[i] += weight * float(score((*subset, i)) - score(subset))
    return values


def shapley_of_table(table):
    return shapley(lambda subset: table[sum(1 << i for i in subset)], int(math.log2(len(table))))


def random_game(m, seed=0):
    """No structure at all."""
    return torch.randn(2**m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth_game(m, seed=0):
    """A small net of the columns."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(m, 12), nn.Tanh(), nn.Linear(12, 1)).double()
    nn.init.normal_(net[0].weight, std=0.7)
    return net(bits(m).double()).detach()[:, 0]
