"""The dual of a step: the conditions of its optimum, which is the only one; contradictions and zero rows."""

import pytest
import torch
from scipy.optimize import minimize

from whybox.contrast.pulls import pulls


def problems(n: int, k: int, d: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, k, d, dtype=torch.float64, generator=generator)
    levels = 3 * torch.randn(n, k, dtype=torch.float64, generator=generator)
    return rows @ rows.mT, levels, 0.1 + torch.rand(n, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("k", "d"), [(1, 3), (2, 3), (4, 5), (4, 2), (5, 40)])
def test_the_conditions_of_the_optimum(k, d):
    """Within the box; no slope where it is free, none inwards at a bound. Concave: so there is no better one."""
    gram, levels, most = problems(200, k, d)
    found = pulls(gram, levels, most)
    low = torch.zeros_like(found)
    low[:, 0] = -most
    high = most[:, None].expand_as(found)
    assert (found >= low).all()
    assert (found <= high).all()
    slope = levels - (gram @ found[:, :, None])[:, :, 0]
    inside = (found > low + 1e-9) & (found < high - 1e-9)
    assert slope[inside].abs().max() < 1e-6
    assert slope[(found <= low + 1e-9)].max() < 1e-6
    assert slope[(found >= high - 1e-9)].min() > -1e-6
    if k == 4:
        assert len({tuple(row) for row in inside.tolist()}) > 8


def test_it_is_what_scipy_finds():
    gram, levels, most = problems(10, 4, 6, seed=1)
    found = pulls(gram, levels, most)
    for q, t, m, v in zip(gram.numpy(), levels.numpy(), most.tolist(), found, strict=True):
        best = minimize(
            lambda v, q=q, t=t: v @ q @ v / 2 - t @ v,
            t * 0,
            jac=lambda v, q=q, t=t: q @ v - t,
            bounds=[(-m, m), *[(0, m)] * 3],
        )
        torch.testing.assert_close(v, torch.as_tensor(best.x), rtol=0, atol=1e-4)


def test_parallel_and_absent_constraints():
    same = torch.ones(1, 2, 2, dtype=torch.float64)
    assert pulls(same, torch.tensor([[5.0, 3.0]]).double(), torch.ones(1).double()).tolist() == [[1, 1]]
    nothing = torch.zeros(1, 2, 2, dtype=torch.float64)
    assert pulls(nothing, torch.tensor([[-2.0, -3.0]]).double(), torch.ones(1).double()).tolist() == [[-1, 0]]


def test_a_row_alone_is_as_in_a_batch():
    gram, levels, most = problems(9, 4, 6)
    together = pulls(gram, levels, most)
    for i in range(9):
        alone = pulls(gram[i : i + 1], levels[i : i + 1], most[i : i + 1])[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-9, atol=1e-12)
