"""Projection: against scipy's SLSQP and the conditions of Karush, Kuhn and Tucker; contradictions and zero rows."""

import numpy
import pytest
import torch
from scipy.optimize import minimize

from whybox.contrast.projection import miss, shortest


def plain(d: int, n: int) -> torch.Tensor:
    return torch.eye(d, dtype=torch.float64).expand(n, d, d)


def problems(n: int, k: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, k, d, dtype=torch.float64, generator=generator)
    return rows, torch.randn(n, k, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("k", "d"), [(1, 3), (2, 3), (3, 5), (5, 8), (5, 40)])
def test_it_is_the_quadratic_programme_that_scipy_solves(k, d):
    rows, bounds = problems(12, k, d)
    found, _ = shortest(rows, bounds, plain(rows.shape[2], len(rows)))
    for a, b, y in zip(rows.numpy(), bounds.numpy(), found.numpy(), strict=True):
        constraints = [{"type": "eq", "fun": lambda y, a=a, b=b: a[0] @ y - b[0]}]
        if k > 1:
            constraints.append({"type": "ineq", "fun": lambda y, a=a, b=b: b[1:] - a[1:] @ y})
        best = minimize(lambda y: y @ y, numpy.zeros(d), jac=lambda y: 2 * y, constraints=constraints, tol=1e-9)
        assert best.success
        numpy.testing.assert_allclose(y, best.x, atol=1e-5)


def test_the_conditions_of_an_optimum():
    """Feasible, y = −Aᵀν, ν ≥ 0 for inequalities, and 0 where one has slack; several sets of active ones occur."""
    rows, bounds = problems(200, 5, 8)
    found, multipliers = shortest(rows, bounds, plain(rows.shape[2], len(rows)))
    gaps = (rows @ found[:, :, None])[:, :, 0] - bounds
    assert miss(gaps).max() < 1e-9
    torch.testing.assert_close(found, -(multipliers[:, :, None] * rows).sum(1))
    assert multipliers[:, 1:].min() > -1e-9
    assert (multipliers[:, 1:] * gaps[:, 1:]).abs().max() < 1e-9
    assert len({tuple(row) for row in (multipliers[:, 1:] > 1e-9).tolist()}) == 16


def test_what_contradicts_itself_misses_by_least_and_stays_finite():
    rows = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]).double()
    bounds = torch.tensor([[2.0, 1.0], [1.0, -3.0], [1.0, -1.0]]).double()
    found, _ = shortest(rows, bounds, plain(rows.shape[2], len(rows)))
    torch.testing.assert_close(found[1:], torch.tensor([[0.0, -3.0], [1.0, -1.0]]).double())
    torch.testing.assert_close(miss((rows @ found[:, :, None])[:, :, 0] - bounds), torch.tensor([1.0, 1.0, 0]).double())
    assert torch.isfinite(found).all()


def test_a_row_alone_is_as_in_a_batch():
    rows, bounds = problems(9, 5, 6)
    together = shortest(rows, bounds, plain(rows.shape[2], len(rows)))[0]
    for i in range(9):
        torch.testing.assert_close(shortest(rows[i : i + 1], bounds[i : i + 1], plain(6, 1))[0][0], together[i], rtol=1e-9, atol=0)


def test_another_metric_is_another_set_of_axes():
    """With y = L u and B⁻¹ = L Lᵀ, the problem is the plain one of u."""
    rows, bounds = problems(20, 4, 6)
    axes = torch.randn(20, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, multipliers = shortest(rows, bounds, axes @ axes.mT)
    u, same = shortest(rows @ axes, bounds, plain(6, 20))
    torch.testing.assert_close(found, (axes @ u[:, :, None])[:, :, 0])
    torch.testing.assert_close(multipliers, same)
