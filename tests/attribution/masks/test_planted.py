"""Every mask method finds what is planted in every kind of input, and nothing of it where it lies elsewhere."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from whybox import Domain, MeaningfulPerturbation, Method, Model, NeuroMask

UNIT = Domain((-1.0,), (1.0,))
METHODS = [NeuroMask(), MeaningfulPerturbation()]

# Where the evidence may lie, in places: a part of the whole that is no smaller than what masks can show.
HERE, THERE = slice(4, 12), slice(18, 26)


class Strong(nn.Module):
    """Class 1 where the values of one part are large: log-odds 24 (2 mean |x| − ½)."""

    def __init__(self, part: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        odds = 24 * (2 * self.part(x).abs().flatten(1).mean(1) - 0.5)
        return torch.stack((-odds, odds), 1) / 2


class Words(nn.Module):
    """The same of rows of token numbers."""

    def __init__(self, part: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 6)
        self.strong = Strong(part)
        with torch.no_grad():
            self.embedding.weight.copy_(noise(50, 6))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.strong(self.embedding(tokens))


def noise(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 1


def picture(where: slice) -> tuple[nn.Module, Tensor, str | None, tuple[slice, ...]]:
    # A network that sees differences: black, too, is without them.
    return Strong(lambda x: x.diff(dim=3)[..., where, where] * 0.75), noise(2, 3, 30, 30), None, (where, where)


def series(where: slice) -> tuple[nn.Module, Tensor, str | None, tuple[slice, ...]]:
    return Strong(lambda x: x[..., where]), noise(2, 2, 30), None, (where,)


def tokens(where: slice) -> tuple[nn.Module, Tensor, str | None, tuple[slice, ...]]:
    drawn = torch.randint(0, 50, (2, 30), generator=torch.Generator().manual_seed(0))
    return Words(lambda x: x[:, where]), drawn, "embedding", (where, slice(None))


def table(where: slice) -> tuple[nn.Module, Tensor, str | None, tuple[slice, ...]]:
    return Strong(lambda x: x[:, where]), noise(2, 30), None, (where,)


def video(where: slice) -> tuple[nn.Module, Tensor, str | None, tuple[slice, ...]]:
    part = (where, slice(None), slice(None))
    return Strong(lambda x: x.diff(dim=4)[:, :, where] * 0.75), noise(2, 1, 30, 8, 8), None, part


@pytest.mark.parametrize("kind", [picture, series, tokens, table, video], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_what_is_planted_is_found_and_not_where_it_is_not(
    method: Method, kind: Callable[[slice], tuple[nn.Module, Tensor, str | None, tuple[slice, ...]]]
) -> None:
    """The control is the same input, explained for a model whose evidence lies elsewhere."""
    density = []
    for where in (HERE, THERE):
        net, x, at, _ = kind(where)
        found = method.run(Model(net, domain=UNIT), x, 1, at=at)
        assert all(bool(check.passed.all()) for check in found.checks)
        relevance = found.relevance
        part = (..., *kind(HERE)[3])
        inside = relevance[part].flatten(1).mean(1)
        density.append(inside / relevance.flatten(1).mean(1))
    planted, elsewhere = density
    assert (planted > 1.8).all()
    assert (elsewhere < 0.5).all()


@pytest.mark.parametrize("method", [NeuroMask(steps=40), MeaningfulPerturbation(steps=40)], ids=["neuro", "meaningful"])
def test_tokens_are_hidden_alike_alone_and_in_a_batch(method: Method) -> None:
    net, x, at, _ = tokens(HERE)
    together, alone = method(net, x, 1, at=at), method(net, x[1:], 1, at=at)
    assert torch.allclose(together[1:], alone, atol=1e-6)
