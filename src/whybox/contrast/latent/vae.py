"""The variational autoencoder."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whybox.contrast.latent.course import Course, Stage
from whybox.contrast.latent.nets import Plan, default_maps
from whybox.contrast.latent.supply import Supply
from whybox.core.errors import InputError

# The noise of the data is at least so large, in the nets' units: where the generator fits exactly it would go to zero.
_LOWEST = math.log(1e-3**2)


@dataclass(frozen=True)
class VAE:
    """A variational autoencoder: Gaussian encoder, Gaussian noise of one learned variance around the generator.

    Maximised is the evidence lower bound E_q[log N(x; G(z), σ²)] − KL(q(z|x) ‖ N(0, I)), q = N(μ(x), diag s²(x)), with
    one draw of z a sample; σ² is learned with the nets, so that no weight has to be chosen between the two terms.
    With linear nets its optimum is that of probabilistic principal component analysis.
    Cost: `steps` passes over a batch forward and backward.
    Limits: smoother, and blurrier, than a GAN; no critic.
    Source: Kingma & Welling 2013, arXiv 1312.6114; the variance: Rybkin, Daniilidis & Levine 2020, arXiv 2006.13202.

    Args:
        size: the dimension of the latent space.
        maps, side: of the nets; see `Plan`. `maps=()` makes them linear, for anything but pictures.
        steps: how many.
        batch: samples in a batch.
        rate: Adam's learning rate; it falls to zero along half a cosine.
    """

    size: int = 32
    maps: tuple[int, ...] | None = None
    side: int | None = None
    steps: int = 10_000
    batch: int = 64
    rate: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.rate <= 0:
            raise InputError(f"a VAE is trained with positive numbers of steps and rates, not {self}")

    def plan(self, shape: tuple[int, ...]) -> Plan:
        """The nets for samples of this shape."""
        return Plan(
            shape, self.size, default_maps(shape, self.side) if self.maps is None else self.maps, self.side, moments=2
        )

    def course(self, plan: Plan, data: Tensor, device: torch.device) -> Course:
        """The training before its first step; its weights are drawn from the global generator."""
        generator, encoder, noise = plan.generator(), plan.encoder(), Noise()
        for net in (generator, encoder):
            net.frame.measure(data)
        nets = {"generator": generator.to(device), "encoder": encoder.to(device), "noise": noise.to(device)}
        optimiser = torch.optim.Adam([p for net in nets.values() for p in net.parameters()], self.rate)

        def step(number: int, supply: Supply) -> Tensor:
            for group in optimiser.param_groups:
                group["lr"] = self.rate * (1 + math.cos(math.pi * number / self.steps)) / 2
            x = generator.frame.inwards(supply.batch())
            mean, log_variance = encoder.net(x).chunk(2, 1)
            z = mean + (log_variance / 2).exp() * supply.normal(self.size)
            loss = -lower_bound(x, generator.net(z), noise(), mean, log_variance).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return loss.detach()

        return Course(nets, {"all": optimiser}, (Stage("autoencoder", self.steps, step),))


class Noise(nn.Module):
    """The logarithm of the variance of the data around the generator, learned."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """log σ²."""
        return self.log_variance.clamp_min(_LOWEST)


def lower_bound(x: Tensor, decoded: Tensor, noise: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The evidence lower bound of each sample (n,), in nats, with the expectation at one draw.

    Args:
        x, decoded: the data and G(z) (n, …).
        noise: log σ².
        mean, log_variance: of q(z|x) (n, size).
    """
    squares = (x - decoded).square().flatten(1)
    likelihood = -0.5 * (squares / noise.exp() + noise + math.log(2 * math.pi)).sum(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
    return likelihood - divergence
