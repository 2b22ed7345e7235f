"""Wasserstein GANs, and the encoder that is trained for them afterwards."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whybox.contrast.latent.course import Course, Stage
from whybox.contrast.latent.nets import Plan, default_maps
from whybox.contrast.latent.supply import Supply
from whybox.core.errors import InputError

_ENCODER_RATE = 1e-3
# The share of the reconstruction of data in the encoder's loss, beside that of latent points; both are mean squares.
_RECONSTRUCTION = 10.0


@dataclass(frozen=True)
class WGAN:
    """A Wasserstein GAN: the critic's mean score of data above generated ones is maximised by the critic, then reduced.

    The critic is kept Lipschitz by a penalty on the norm of each sample's gradient, λ(‖∇D(x̂)‖ − 1)², x̂ anywhere
    between a sample and a generated one (WGAN-GP: Adam, β = (0, 0.9), no batch normalisation in the critic), or by
    clipping its weights (RMSprop; the critic makes 100 steps in each of the first 25 and in every 500th). With the
    penalty the learning rate falls to zero along a line, as in its authors' code.
    Cost: `steps` · `critic_steps` passes over a batch forward and backward, threefold with the penalty.
    Source: Arjovsky, Chintala & Bottou 2017, arXiv 1701.07875; Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville 2017,
    arXiv 1704.00028; nets: Radford, Metz & Chintala 2015, arXiv 1511.06434.

    Args:
        lipschitz: "penalty" or "clip".
        size: the dimension of the latent space.
        maps, side: of the nets; see `Plan`. By default maps that a CPU trains; the paper's are (512, 256, 128, 64) with
            side 64.
        steps: of the generator.
        encoder_steps: of the encoder, afterwards.
        batch: samples in a batch.
        critic_steps: of the critic for each of the generator.
        rate: the learning rate; by default 1e-4 with the penalty, 5e-5 with clipping.
        penalty: λ.
        clip: the largest absolute weight of the critic.
    """

    lipschitz: Literal["penalty", "clip"] = "penalty"
    size: int = 100
    maps: tuple[int, ...] | None = None
    side: int | None = None
    steps: int = 10_000
    encoder_steps: int = 3_000
    batch: int = 64
    critic_steps: int = 5
    rate: float | None = None
    penalty: float = 10.0
    clip: float = 0.01

    def __post_init__(self) -> None:
        if self.lipschitz not in ("penalty", "clip"):
            raise InputError(f"lipschitz is 'penalty' or 'clip', not {self.lipschitz!r}")
        counts = (self.steps, self.batch, self.critic_steps)
        if min(counts) < 1 or self.encoder_steps < 0 or (self.rate is not None and self.rate <= 0):
            raise InputError(f"a WGAN is trained with positive numbers of steps and rates, not {self}")

    def plan(self, shape: tuple[int, ...]) -> Plan:
        """The nets for samples of this shape."""
        maps = self.maps or default_maps(shape, self.side)
        return Plan(shape, self.size, maps, self.side, normed=self.lipschitz == "clip")

    def course(self, plan: Plan, data: Tensor, device: torch.device) -> Course:
        """The training before its first step; its weights are drawn from the global generator."""
        generator, critic, encoder = plan.generator(), plan.critic(), plan.encoder()
        for net in (generator, critic):
            net.apply(_dcgan_start)
        for net in (generator, critic, encoder):
            net.frame.measure(data)
            net.to(device)
        rate = self.rate or {"penalty": 1e-4, "clip": 5e-5}[self.lipschitz]
        optimisers = {name: self._optimiser(net, rate) for name, net in (("generator", generator), ("critic", critic))}
        optimisers["encoder"] = torch.optim.Adam(encoder.parameters(), _ENCODER_RATE)
        frame = critic.frame

        def play(number: int, supply: Supply) -> Tensor:
            if self.lipschitz == "penalty":
                for group in (*optimisers["generator"].param_groups, *optimisers["critic"].param_groups):
                    group["lr"] = rate * (1 - number / self.steps)
            often = self.lipschitz == "clip" and (number < 25 or number % 500 == 0)
            for _ in range(100 if often else self.critic_steps):
                real = frame.inwards(supply.batch())
                with torch.no_grad():
                    fake = generator.net(supply.normal(self.size))
                loss: Tensor = critic.net(fake).mean() - critic.net(real).mean()
                if self.lipschitz == "penalty":
                    loss = loss + self.penalty * gradient_penalty(critic.net, real, fake, supply.uniform())
                _descend(loss, optimisers["critic"])
                if self.lipschitz == "clip":
                    _clip(critic.net, self.clip)
            _descend(-critic.net(generator.net(supply.normal(self.size))).mean(), optimisers["generator"])
            return loss.detach()

        def encode(number: int, supply: Supply) -> Tensor:
            generator.eval()
            z, real = supply.normal(self.size), supply.batch()
            with torch.no_grad():
                fake = generator(z)
            again = frame.inwards(generator(encoder(real))) - frame.inwards(real)
            loss = F.mse_loss(encoder(fake), z) + _RECONSTRUCTION * again.square().mean()
            _descend(loss, optimisers["encoder"])
            return loss.detach()

        nets = {"generator": generator, "critic": critic, "encoder": encoder}
        stages = (Stage("generator", self.steps, play), Stage("encoder", self.encoder_steps, encode))
        return Course(nets, optimisers, stages)

    def _optimiser(self, net: nn.Module, rate: float) -> torch.optim.Optimizer:
        if self.lipschitz == "clip":
            return torch.optim.RMSprop(net.parameters(), rate)
        return torch.optim.Adam(net.parameters(), rate, (0.0, 0.9))


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, between: Tensor) -> Tensor:
    """The mean over the samples of (‖∇D(x̂)‖ − 1)² at x̂ = u · real + (1 − u) · fake, u = `between` (n,).

    The norm is of each sample's own gradient, over all its values.
    """
    u = between.view(-1, *(1,) * (real.ndim - 1))
    points = (u * real + (1 - u) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def _clip(critic: nn.Module, limit: float) -> None:
    with torch.no_grad():
        for weight in critic.parameters():
            weight.clamp_(-limit, limit)


def _descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _dcgan_start(layer: nn.Module) -> None:
    """Weights from N(0, 0.02²), of batch normalisation from N(1, 0.02²), biases 0; dense layers as torch has them."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
