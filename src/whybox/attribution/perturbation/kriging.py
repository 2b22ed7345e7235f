"""Shapley values of a game of which some coalitions are known: the best linear unbiased prediction.

With z_i = ±1 for a region kept or hidden, every game is a sum of interactions, f(z) = Σ_T a_T·Π_{i∈T} z_i, and its
Shapley values are φ_i = Σ_{T∋i, |T| odd} 2·a_T/|T|. So only its odd part g(z) = (f(z) − f(−z))/2 matters, which a
coalition and its complement give; g is what is predicted here.

Kernel SHAP fits the single regions and treats all else as noise. But g has no noise: what the linear fit leaves over
are the interactions of 3, 5, … regions, and they vary the less from one coalition to the next the fewer regions they
are of. Here each is a random number of variance σ²·ρ^|T|, so that Cov(g(z), g(z′)) ∝ q^h − q^(m−h) at h places of
difference, q = (1 − ρ)/(1 + ρ), with coefficients of single regions on top about which nothing is assumed. That gives
φ in closed form with a standard error (universal kriging: Cressie 1993, Statistics for Spatial Data, ch. 3), without
any error where the linear model is right or everything is known. ρ is the one of a few with the highest restricted
likelihood, by which σ is estimated too.
"""

import math
from functools import cache, lru_cache

import torch
from torch import Tensor

# The ρ tried are c/(c + m): from games that are almost linear to interactions of all orders alike.
ROUGHNESS = (1.0, 3.0, 8.0, 48.0)
# Work grows with the cube of the pairs, so twice as many as this, and more, are divided, and the answers averaged.
BLOCK = 1024
# Nodes that integrate polynomials up to degree 127 without error.
NODES = 64


def predicted(kept: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """Shapley values (m,) and their standard errors (m,).

    Args:
        kept: coalitions, bool (b, m) with b > m; the first is of all regions, none is another's complement.
        odd: half the difference between the scores of each and its complement, float64 (b,).
    """
    b, m = kept.shape
    blocks = _blocks(b, m)
    values, variances = [], []
    for first in range(blocks):
        rows = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(1 + first, b, blocks)])
        fits = [_fit(kept[rows], odd[rows], c / (c + m)) for c in ROUGHNESS]
        _, value, variance = max(fits, key=lambda fit: fit[0])
        values.append(value)
        variances.append(variance)
    return torch.stack(values).mean(0), torch.stack(variances).sum(0).sqrt() / blocks


def memory(pairs: int, regions: int) -> int:
    """The bytes that `predicted` takes, as measured: some ten matrices of float64."""
    rows = pairs // _blocks(pairs, regions)
    return 40 * rows * (rows + regions)


def _blocks(pairs: int, regions: int) -> int:
    return max(1, pairs // max(BLOCK, 4 * regions))


def _fit(kept: Tensor, odd: Tensor, rho: float) -> tuple[float, Tensor, Tensor]:
    """The restricted log-likelihood of ρ, and under it the Shapley values and their variances."""
    b, m = kept.shape
    z = 2 * kept.double() - 1
    table, shared, prior = _covariances(m, rho)
    size = kept.sum(1)
    towards = torch.where(kept, shared[size - 1, None], -shared[m - size - 1, None])
    half = torch.linalg.cholesky(table[((m - z @ z.T) / 2).long()])
    whitened = torch.linalg.solve_triangular(half, torch.cat([z, odd[:, None], towards], 1), upper=False)
    x, y, c = whitened[:, :m], whitened[:, m], whitened[:, m + 1 :]
    information = x.T @ x
    beta = torch.linalg.solve(information, x.T @ y)
    left = y - x @ beta
    sigma2 = left.square().sum() / (b - m)
    determinants = 2 * half.diagonal().log().sum() + torch.linalg.slogdet(information).logabsdet
    likelihood = -((b - m) * sigma2.clamp_min(1e-300).log() + determinants) / 2
    free = 2 * torch.eye(m, dtype=torch.float64) - x.T @ c
    spread = prior - c.square().sum(0) + (free * torch.linalg.solve(information, free)).sum(0)
    return float(likelihood), 2 * beta + c.T @ left, sigma2 * spread.clamp_min(0)


@lru_cache(64)
def _covariances(m: int, rho: float) -> tuple[Tensor, Tensor, float]:
    """Three kinds of them, in units of σ²·(1 + ρ)^m.

    Of g between coalitions that differ in 0 … m regions, (m + 1,); of φ_i with g(z), where z keeps region i and
    0 … m − 1 others, (m,); and the variance of φ_i.

    Σ_U ρ^(|U|+1)/(|U| + 1)·Π_{j∈U} z_j over the even sets U of the others is the integral over t from 0 to ρ of the
    even part of Π_j (1 + t·z_j), a polynomial.
    """
    q, h = (1 - rho) / (1 + rho), torch.arange(m + 1, dtype=torch.float64)
    table = (q**h - q ** (m - h)) / 2
    nodes, weights = _gauss_legendre()
    t, others = (nodes + 1) * rho / 2, torch.arange(m, dtype=torch.float64)[:, None]
    scale = m * math.log1p(rho)
    grow, shrink = t.log1p(), (-t).log1p()
    there = (others * grow + (m - 1 - others) * shrink - scale).exp()
    shared = ((there + there.flip(0)) * weights).sum(1) * rho / 2
    d = torch.arange(1, m + 1, 2, dtype=torch.float64)
    log_choose = math.lgamma(m) - torch.lgamma(d) - torch.lgamma(m - d + 1)
    return table, shared, float((4 / d**2 * (log_choose + d * math.log(rho) - scale).exp()).sum())


@cache
def _gauss_legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights on [−1, 1] (Golub & Welsch 1969)."""
    k = torch.arange(1, NODES, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, 2 * vectors[0] ** 2
