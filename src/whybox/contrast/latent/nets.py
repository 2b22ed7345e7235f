"""The nets of a latent model: convolutions for pictures (DCGAN's, of any width), dense layers for everything else."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from whybox.core.errors import InputError

# The maps of nets that a CPU trains; the paper's are (512, 256, 128, 64), with `side` 64.
NARROW, NARROWER, DENSE = (64, 32, 16), (64, 32), (128, 128)
_LEAK = 0.2


@dataclass(frozen=True)
class Plan:
    """What is needed to build the nets of a latent model anew.

    A picture's net has one doubling of the resolution for each entry of `maps`. Pictures whose sides are no multiples
    of 2^len(maps) are padded with their edge values, and what is generated is cropped; nothing is interpolated. With
    `side` they are resized to side × side instead (bilinear), and what is generated is resized back.

    Attributes:
        shape: of one sample: (channels, height, width) for pictures; anything else is given to dense layers.
        size: the dimension of the latent space.
        maps: of pictures the feature maps, from the coarsest to the finest; else the hidden layers' widths, from the
            latent space to the data. Empty: a linear map of anything but pictures.
        side: resize pictures to this side.
        normed: whether the critic has batch normalisation, which a gradient penalty does not bear.
        moments: how many numbers the encoder gives for each latent dimension: mean alone, or log-variance too.
    """

    shape: tuple[int, ...]
    size: int
    maps: tuple[int, ...] = NARROW
    side: int | None = None
    normed: bool = False
    moments: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or any(width < 1 for width in self.maps) or (self.is_picture and not self.maps):
            raise InputError(
                f"a latent model has at least one latent dimension, and at least one map or unit in each layer, "
                f"not {self.size} and {self.maps}"
            )
        if self.side is not None and not self.is_picture:
            raise InputError(f"only pictures (channels, height, width) are resized; the data have shape {self.shape}")
        if self.side is not None and self.side % 2 ** len(self.maps):
            raise InputError(
                f"side {self.side} is no multiple of {2 ** len(self.maps)}: each of the {len(self.maps)} maps halves it"
            )

    @property
    def is_picture(self) -> bool:
        """Whether the nets are convolutional."""
        return len(self.shape) == 3

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what the convolutions work on."""
        if self.side is not None:
            return self.side, self.side
        unit = 2 ** len(self.maps)
        height, width = (math.ceil(edge / unit) * unit for edge in self.shape[1:])
        return height, width

    def generator(self) -> "Generator":
        """A new generator: latent (n, size) to data (n, *shape)."""
        if self.is_picture:
            return Generator(_upwards(self), Frame(self))
        dense = _dense(self.size, self.maps, math.prod(self.shape))
        return Generator(nn.Sequential(*dense, nn.Unflatten(1, self.shape)), Frame(self))

    def encoder(self) -> "Reader":
        """A new encoder: data to (n, moments · size)."""
        return Reader(Frame(self), self._reader(self.moments * self.size, normed=False))

    def critic(self) -> "Reader":
        """A new critic: data to one score each, (n, 1)."""
        return Reader(Frame(self), self._reader(1, normed=self.normed))

    def _reader(self, outputs: int, normed: bool) -> nn.Sequential:
        if self.is_picture:
            return _downwards(self, outputs, normed)
        return nn.Sequential(nn.Flatten(), *_dense(math.prod(self.shape), self.maps[::-1], outputs, leak=_LEAK))


def default_maps(shape: tuple[int, ...], side: int | None) -> tuple[int, ...]:
    """The layers of nets for samples of this shape that a CPU trains."""
    if len(shape) != 3:
        return DENSE
    return NARROW if (side or min(shape[1:])) >= 16 else NARROWER


class Frame(nn.Module):
    """Between the data's units and shape and those of the nets.

    Pictures: the range of the training data becomes [−1, 1], and the sides fit the convolutions (`Plan`). All else:
    each column (n, columns), or channel of (n, channels, …), gets mean 0 and standard deviation 1.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        axes = (1,) if plan.is_picture else (plan.shape[0], *(1,) * (len(plan.shape) - 1))
        self.register_buffer("centre", torch.zeros(axes))
        self.register_buffer("scale", torch.ones(axes))

    def measure(self, data: Tensor) -> None:
        """Take centre and scale from the data (n, *shape)."""
        if self.plan.is_picture:
            low, high = data.min(), data.max()
            self.centre.fill_((low + high) / 2)
            self.scale.fill_((high - low) / 2)
        else:
            axes = (0, *range(2, data.ndim))
            std, mean = torch.std_mean(data.double(), axes, keepdim=True)
            self.centre.copy_(mean[0])
            self.scale.copy_(torch.where(std > 0, std, torch.ones_like(std))[0])

    def inwards(self, x: Tensor) -> Tensor:
        """From data to what the nets see."""
        x = (x - self.centre) / self.scale
        if not self.plan.is_picture:
            return x
        if self.plan.side is not None:
            return F.interpolate(x, self.plan.canvas, mode="bilinear", align_corners=False, antialias=True)
        (top, bottom), (left, right) = self._margins()
        return F.pad(x, (left, right, top, bottom), mode="replicate")

    def outwards(self, y: Tensor) -> Tensor:
        """From what the nets give to data."""
        plan = self.plan
        if plan.is_picture and plan.side is not None:
            y = F.interpolate(y, plan.shape[1:], mode="bilinear", align_corners=False, antialias=True)
        elif plan.is_picture:
            (top, _), (left, _) = self._margins()
            y = y[:, :, top : top + plan.shape[1], left : left + plan.shape[2]]
        return self.centre + self.scale * y

    def _margins(self) -> list[tuple[int, int]]:
        """Before and behind, along height and width."""
        spare = [whole - edge for whole, edge in zip(self.plan.canvas, self.plan.shape[1:], strict=True)]
        return [(edge // 2, edge - edge // 2) for edge in spare]


class Generator(nn.Module):
    """From latent points to data."""

    def __init__(self, net: nn.Module, frame: Frame) -> None:
        super().__init__()
        self.net, self.frame = net, frame

    def forward(self, z: Float[Tensor, "n size"]) -> Float[Tensor, "n ..."]:
        """The data that the points z stand for."""
        return self.frame.outwards(self.net(z))


class Reader(nn.Module):
    """From data to some numbers for each sample: an encoder or a critic."""

    def __init__(self, frame: Frame, net: nn.Module) -> None:
        super().__init__()
        self.frame, self.net = frame, net

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n outputs"]:
        """The numbers for each sample."""
        numbers: Tensor = self.net(self.frame.inwards(x))
        return numbers


def _upwards(plan: Plan) -> nn.Sequential:
    """DCGAN's generator: transposed convolutions 4 × 4, batch normalisation and ReLU, tanh at the end."""
    height, width = (edge // 2 ** len(plan.maps) for edge in plan.canvas)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (plan.size, 1, 1)),
        nn.ConvTranspose2d(plan.size, plan.maps[0], (height, width), bias=False),
    ]
    for before, after in pairwise(plan.maps):
        layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    last = plan.maps[-1]
    layers += [nn.BatchNorm2d(last), nn.ReLU(), nn.ConvTranspose2d(last, plan.shape[0], 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers)


def _downwards(plan: Plan, outputs: int, normed: bool) -> nn.Sequential:
    """DCGAN's discriminator, its last layer as wide as is asked for; the first has no batch normalisation."""
    layers: list[nn.Module] = []
    widths = (plan.shape[0], *plan.maps[::-1])
    for number, (before, after) in enumerate(pairwise(widths)):
        layers.append(nn.Conv2d(before, after, 4, 2, 1))
        layers += [nn.BatchNorm2d(after)] if normed and number else []
        layers.append(nn.LeakyReLU(_LEAK))
    base = [edge // 2 ** len(plan.maps) for edge in plan.canvas]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * base[0] * base[1], outputs))


def _dense(inputs: int, hidden: tuple[int, ...], outputs: int, leak: float = 0.0) -> nn.Sequential:
    widths = (inputs, *hidden)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU(leak)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
