"""WGAN: penalty, clipping, and what it learns of a known distribution."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from whybox.contrast.latent import WGAN
from whybox.contrast.latent.nets import Plan
from whybox.contrast.latent.supply import Supply
from whybox.contrast.latent.wgan import gradient_penalty
from whybox.core.errors import InputError

CPU = torch.device("cpu")


def test_the_penalty_is_that_of_each_sample_alone(rng):
    critic = nn.Sequential(nn.Conv2d(2, 3, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(12, 1)).double()
    real, fake = torch.randn(2, 5, 2, 4, 4, generator=rng, dtype=torch.float64)
    u = torch.rand(5, generator=rng, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(5):
        point = (u[i] * real[i] + (1 - u[i]) * fake[i])[None].requires_grad_()
        (slope,) = torch.autograd.grad(critic(point)[0, 0], point, create_graph=True)
        total = total + (sum(s**2 for s in slope.flatten()) ** 0.5 - 1) ** 2
    found = gradient_penalty(critic, real, fake, u)
    assert torch.allclose(found, total / 5, rtol=1e-12)
    ours = torch.autograd.grad(found, list(critic.parameters())[:1])[0]
    theirs = torch.autograd.grad(total / 5, list(critic.parameters())[:1])[0]
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_the_penalty_of_a_linear_critic_is_known():
    critic = nn.Linear(2, 1, bias=False)
    critic.weight.data = torch.tensor([[3.0, 4.0]])
    x = torch.randn(7, 2)
    assert gradient_penalty(critic, x, -x, torch.rand(7)).item() == pytest.approx((5 - 1) ** 2)


def steps(kind, data, count):
    plan = kind.plan(tuple(data.shape[1:]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        course = kind.course(plan, data, CPU)
    supply = Supply(data, kind.batch, 0, CPU)
    for number in range(count):
        supply.begin_step(0, number)
        course.stages[0].step(number, supply)
    return course, supply


def test_clipping_holds_every_weight_of_the_critic_and_of_nothing_else():
    data = torch.rand(64, 1, 8, 8)
    kind = WGAN("clip", size=4, maps=(8, 4), batch=8, critic_steps=2)
    course, supply = steps(kind, data, 1)
    assert all(bool((p.abs() <= 0.01).all()) for p in course.nets["critic"].parameters())
    assert any(bool((p.abs() > 0.01).any()) for p in course.nets["generator"].parameters())
    assert supply.taken == 100  # the critic's steps in each of the first 25
    course.stages[0].step(25, supply)
    assert supply.taken == 102
    course.stages[0].step(500, supply)
    assert supply.taken == 202
    optimiser = course.optimisers["critic"]
    assert isinstance(optimiser, torch.optim.RMSprop)
    assert optimiser.param_groups[0]["lr"] == 5e-5


def test_batch_normalisation_is_in_the_critic_with_clipping_only():
    shape = (1, 8, 8)
    has = {
        kind: any(isinstance(part, nn.BatchNorm2d) for part in WGAN(kind).plan(shape).critic().modules())
        for kind in ("clip", "penalty")
    }
    assert has == {"clip": True, "penalty": False}


def test_the_nets_start_as_dcgan_does():
    course, _ = steps(WGAN(maps=(64, 32)), torch.rand(64, 1, 8, 8), 0)
    for name in ("generator", "critic"):
        for layer in course.nets[name].modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 1000:
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
                assert layer.weight.mean().item() == pytest.approx(0, abs=2e-3)


def test_the_papers_nets_have_its_sizes():
    plan = Plan((1, 28, 28), 100, (512, 256, 128, 64), side=64)
    generator = plan.generator()
    sizes = [tuple(part.weight.shape) for part in generator.modules() if isinstance(part, nn.ConvTranspose2d)]
    assert sizes == [(100, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4), (64, 1, 4, 4)]
    assert generator.net(torch.zeros(2, 100)).shape == (2, 1, 64, 64)
    assert generator(torch.zeros(2, 100)).shape == (2, 1, 28, 28)


@pytest.mark.parametrize("lipschitz", ["penalty", "clip"])
def test_it_learns_where_the_data_lie(lipschitz):
    """Two columns, correlated, away from the origin: the generated points have their means and their correlation."""
    z = torch.randn(512, 2, generator=torch.Generator().manual_seed(1))
    data = torch.stack((5 + z[:, 0], -3 + 0.9 * z[:, 0] + 0.3 * z[:, 1]), 1)
    settings = {
        "penalty": {"rate": 3e-3, "penalty": 0.1, "steps": 200},
        "clip": {"rate": 2e-3, "clip": 0.1, "steps": 12},
    }
    kind = WGAN(lipschitz, size=2, maps=(32,), **settings[lipschitz])
    course, _ = steps(kind, data, kind.steps)
    with torch.no_grad():
        x = course.nets["generator"].eval()(torch.randn(2000, 2, generator=torch.Generator().manual_seed(2)))
    assert torch.allclose(x.mean(0), data.mean(0), atol=0.35)
    assert torch.corrcoef(x.T)[0, 1] > 0.7


@pytest.mark.parametrize(
    "fields", [{"lipschitz": "spectral"}, {"batch": 0}, {"steps": 0}, {"critic_steps": 0}, {"rate": -1.0}]
)
def test_settings_that_make_no_sense(fields):
    with pytest.raises((InputError, TypeCheckError)):
        WGAN(**fields)


def test_a_size_that_the_maps_do_not_halve():
    with pytest.raises(InputError, match="multiple of 8"):
        WGAN(side=60).plan((1, 28, 28))
    with pytest.raises(InputError, match="only pictures"):
        WGAN(side=64).plan((30,))
    with pytest.raises(InputError, match="at least one"):
        WGAN(size=0).plan((30,))
