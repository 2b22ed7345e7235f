"""Residual nets for CIFAR-10 (He et al. 2016) as a user would write them: functional ReLU, parameter-free shortcuts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whybox.core.model import Model
from whybox.models import ImagePreprocess

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Block(nn.Module):
    """Two convolutions beside a shortcut, which halves the size and pads the channels with zeros where it must."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.added = stride, outside - inside

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x
        if self.added:
            half = self.added // 2
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        out += shortcut
        return F.relu(out)


class ResNet(nn.Module):
    """Three stages of `blocks` blocks with 16, 32 and 64 channels."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(blocks, 16, 16, 1)
        self.layer2 = self._stage(blocks, 16, 32, 2)
        self.layer3 = self._stage(blocks, 32, 64, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(blocks: int, inside: int, outside: int, stride: int) -> nn.Sequential:
        rest = (Block(outside, outside, 1) for _ in range(blocks - 1))
        return nn.Sequential(Block(inside, outside, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.avg_pool2d(x, x.shape[3]), 1))


def _model(blocks: int) -> Model:
    preprocess = ImagePreprocess(resize=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return Model(ResNet(blocks), name=f"resnet{6 * blocks + 2}", preprocess=preprocess, labels=LABELS)


def resnet20() -> Model:
    return _model(3)


def resnet56() -> Model:
    return _model(9)
