"""VAE: its bound against closed forms, and its optimum with linear nets: probabilistic principal components."""

import math

import torch

from whybox.contrast.latent import VAE
from whybox.contrast.latent.supply import Supply
from whybox.contrast.latent.vae import lower_bound


def test_the_bound_is_the_evidence_minus_the_divergence_from_the_posterior():
    """x = a z + b + σ ε: the evidence N(b, a aᵀ + σ²) and the posterior are known; log p(x) = E[bound] + KL(q, p)."""
    a, b, noise = torch.tensor([1.5, -0.7], dtype=torch.float64), torch.tensor([0.3, 1.0], dtype=torch.float64), 0.4
    x = torch.tensor([1.0, 0.2], dtype=torch.float64)
    precision = 1 + (a @ a) / noise
    posterior_mean, posterior_variance = (a @ (x - b)) / noise / precision, 1 / precision
    covariance = torch.outer(a, a) + noise * torch.eye(2, dtype=torch.float64)
    evidence = torch.distributions.MultivariateNormal(b, covariance).log_prob(x)
    p = torch.distributions.Normal(posterior_mean, posterior_variance.sqrt())
    for mean, variance in ((posterior_mean, posterior_variance), (0.9, 0.6)):
        q = torch.distributions.Normal(*(torch.as_tensor(v, dtype=torch.float64) for v in (mean, variance**0.5)))
        z = torch.stack((q.mean - q.stddev, q.mean + q.stddev))[:, None]  # the bound is quadratic: two points are exact
        log_noise = torch.tensor(math.log(noise), dtype=torch.float64)
        moments = q.mean.expand(2, 1), q.variance.log().expand(2, 1)
        bound = lower_bound(x.expand(2, 2), z * a + b, log_noise, *moments).mean()
        assert torch.allclose(bound + torch.distributions.kl_divergence(q, p), evidence, rtol=1e-10)


def test_linear_nets_find_the_principal_components():
    """The optimum (Tipping & Bishop 1999; Lucas et al. 2019): the PCA subspace, and σ² the mean of what is left."""
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.5, 0.5, 0.4, 0.3])
    basis = torch.linalg.qr(torch.randn(5, 5, generator=rng))[0]
    data = torch.randn(1000, 5, generator=rng) * spread @ basis.T + 2
    kind = VAE(size=2, maps=(), steps=700, batch=250, rate=0.03)
    course = trained(kind, data)
    values, vectors = torch.linalg.eigh(torch.corrcoef(data.T))  # in the nets' units
    weight, top = course.nets["generator"].net[0].weight, vectors[:, -2:]
    left = values[:3].mean()
    assert torch.linalg.svdvals(torch.linalg.qr(weight)[0].T @ top).min() > 0.998
    assert torch.allclose(weight @ weight.T, top * (values[-2:] - left) @ top.T, atol=0.08)
    assert torch.allclose(course.nets["noise"]().exp(), left, rtol=0.1)


def trained(kind, data):
    """The course of a training after its last step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        course = kind.course(kind.plan(tuple(data.shape[1:])), data, torch.device("cpu"))
    supply = Supply(data, kind.batch, 0, torch.device("cpu"))
    for number in range(kind.steps):
        supply.begin_step(0, number)
        course.stages[0].step(number, supply)
    return course
