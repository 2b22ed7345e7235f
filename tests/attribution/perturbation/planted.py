"""Models that read one known place of the input, for every kind of input; and random numbers for all."""

import torch
from torch import nn

from whybox import Domain, Model, UniformNoise, Zero


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Reader(nn.Module):
    """Class 0 reads one place, nonlinearly; class 1 the whole."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        inside = x[(slice(None), *self.place)].flatten(1).mean(1)
        return torch.stack([torch.sigmoid(4 * inside), x.flatten(1).mean(1)], 1)


class Constantly(nn.Module):
    """Always gives the same scores."""

    def forward(self, x):
        return torch.full((len(x), 2), 0.3)


def token_counter():
    """A model whose score counts where token 5 stands, two texts (the mask token is 0), and what that is worth."""
    module = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(1), nn.Linear(18, 1))
    with torch.no_grad():
        module[0].weight.zero_()[5] = 1
        module[2].weight.fill_(0.3)
    tokens = torch.tensor([[1, 5, 2, 3, 0, 4], [5, 2, 2, 7, 8, 1]])
    return module, tokens, torch.tensor([[0, 0.9, 0, 0, 0, 0], [0.9, 0, 0, 0, 0, 0]])


# A fixed infill and a random one; noise that may be far from the values of `inputs`.
INFILLS = (Zero(), UniformNoise())


def wrapped(module):
    return Model(module, domain=Domain((-2.0,), (2.0,)), chunk=64)


def inputs(shape):
    """Three samples whose values are all near 1.5, so that hiding any of them is seen by who reads it."""
    return 1.5 + 0.3 * normal(3, *shape)


EVERYWHERE = slice(None)
# By modality: the shape of a sample, a place in it, and another one.
PLACES = {
    "picture": ((3, 16, 16), (EVERYWHERE, slice(4, 8), slice(8, 12)), (EVERYWHERE, slice(12, 16), slice(0, 4))),
    "table": ((9,), (slice(4, 5),), (slice(0, 1),)),
    "series": ((2, 24), (EVERYWHERE, slice(9, 12)), (EVERYWHERE, slice(18, 21))),
    "tokens": ((10, 4), (slice(7, 8), EVERYWHERE), (slice(1, 2), EVERYWHERE)),
    "video": ((2, 6, 4, 4), (EVERYWHERE, slice(2, 3)), (EVERYWHERE, slice(5, 6))),
}


def share_inside(relevance, x, place):
    """How much of each map's strength lies in the place."""
    strength = relevance.abs().expand_as(x)
    return strength[(EVERYWHERE, *place)].flatten(1).sum(1) / strength.flatten(1).sum(1)


def outside(relevance, x, place):
    """The map everywhere but in the place."""
    kept = torch.ones_like(x, dtype=torch.bool)
    kept[(EVERYWHERE, *place)] = False
    return relevance.expand_as(x)[kept].view(len(x), -1)
