"""How much the highest places of two maps have in common."""

import itertools

import pytest
import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.evaluation.places import among_highest
from whybox.evaluation.similarity import top_overlap


def all_tops(values: list[float], k: int) -> list[set[int]]:
    """Every set of k highest places that some way of breaking ties gives."""
    return [
        set(chosen)
        for chosen in itertools.combinations(range(len(values)), k)
        if min(values[i] for i in chosen) >= max(values[i] for i in range(len(values)) if i not in chosen)
    ]


def test_places_among_the_highest_against_all_ways_of_breaking_ties():
    values = torch.tensor([[3.0, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1], [6, 5, 4, 3, 2, 1]]).double()
    found = among_highest(values, torch.tensor([2, 4, 3]))
    for row, k, likely in zip(values.tolist(), (2, 4, 3), found, strict=True):
        tops = all_tops(row, k)
        assert likely.tolist() == pytest.approx([sum(i in top for top in tops) / len(tops) for i in range(6)])


def test_overlap_against_all_ways_of_breaking_ties():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 4, (2, 5, 3, 3), generator=generator).double().unbind(0)
    found = top_overlap(a[:, None], b[:, None], share=0.4)
    for x, y, overlap in zip(a, b, found, strict=True):
        pairs = list(itertools.product(all_tops(x.flatten().tolist(), 4), all_tops(y.flatten().tolist(), 4)))
        assert float(overlap) == pytest.approx(sum(len(s & t) / 4 for s, t in pairs) / len(pairs))


def test_overlap_at_its_ends():
    a = torch.rand(4, 3, 10, 10)
    assert torch.equal(top_overlap(a, a.sum(1, keepdim=True)), torch.ones(4).double())
    assert torch.equal(top_overlap(a, -a, share=0.3), torch.zeros(4).double())
    assert torch.allclose(top_overlap(a, torch.ones_like(a), share=0.2), torch.full((4,), 0.2).double())
    assert torch.equal(top_overlap(a, -a, share=1.0), torch.ones(4).double())


def test_maps_of_chance_overlap_by_their_share():
    a, b = torch.rand(2, 500, 8, 8, generator=torch.Generator().manual_seed(0))
    overlap = top_overlap(a.flatten(1), b.flatten(1), share=0.25)
    assert abs(overlap.mean() - 0.25) < 4 * overlap.std() / 500**0.5


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(InputError, match="share"):
        top_overlap(torch.rand(1, 4), torch.rand(1, 4), share)


def test_maps_are_not_changed():
    a: Tensor = torch.rand(2, 3, 4, 4)
    before = a.clone()
    top_overlap(a, a)
    assert torch.equal(a, before)
