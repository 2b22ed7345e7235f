"""The masker of CASME: an encoder and decoder from a picture to a mask of it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Halved until about so many places are left along the shorter edge, at most so many times.
COARSEST, MOST = 4, 5
# Masks of larger pictures are made at the finest of the halved sizes below this, and interpolated.
FINEST = 64


class Masker(nn.Module):
    """Pictures (n, channels, h, w) → masks (n, 1, h, w) in (0, 1), whatever the classifier.

    Two convolutions at every size from the full one to about 4 × 4, and back with what was found on the way; masks of
    large pictures are made at a quarter of their size or so, as in the paper (56 × 56 for 224 × 224). Without batch
    statistics, so that a picture has the same mask alone and among others.

    Args:
        shape: of a picture, (channels, h, w).
        width: channels at full size; twice as many at every halved one, up to eight times.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, length = shape
        halvings = min(MOST, max(0, int(math.log2(min(height, length) / COARSEST))))
        widths = [width * 2 ** min(level, 3) for level in range(halvings + 1)]
        self.finest = min(halvings, max(0, math.ceil(math.log2(min(height, length) / FINEST))))
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("spread", torch.ones(1, channels, 1, 1))
        self.down = nn.ModuleList(_block(*pair) for pair in zip((channels, *widths), widths, strict=False))
        self.up = nn.ModuleList(_block(widths[k] + widths[k + 1], widths[k]) for k in range(self.finest, halvings))
        self.head = nn.Conv2d(widths[self.finest], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        y = (x - self.mean) / self.spread
        for level, block in enumerate(self.down):
            y = block(F.avg_pool2d(y, 2) if level else y)
            seen.append(y)
        for number in reversed(range(len(self.up))):
            beside = seen[self.finest + number]
            y = self.up[number](torch.cat((beside, _resized(y, beside)), 1))
        return torch.sigmoid(_resized(self.head(y), x))

    @classmethod
    def of(cls, state: Mapping[str, Tensor], shape: tuple[int, int, int], width: int, device: torch.device) -> "Masker":
        """The masker with these values, in float32."""
        with torch.device("meta"):
            masker = cls(shape, width)
        masker.load_state_dict({name: value.to(device) for name, value in state.items()}, assign=True)
        return masker.requires_grad_(False)


def _block(before: int, after: int) -> nn.Sequential:
    groups = math.gcd(after, 4)
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.GroupNorm(groups, after), nn.ReLU()]
    return nn.Sequential(*layers)


def _resized(y: Tensor, like: Tensor) -> Tensor:
    if y.shape[2:] == like.shape[2:]:
        return y
    return F.interpolate(y, like.shape[2:], mode="bilinear", align_corners=False)
