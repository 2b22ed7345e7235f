"""Whole architectures: made small where they can be, with the statistics of their batch norms set."""

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from engine_runs import input_times_gradient, scores, under_engine
from torch import Tensor, nn

from whybox import LRP
from whybox.attribution.backprop.composites import default
from whybox.attribution.backprop.interception import Interception
from whybox.core.taps import tap
from whybox.models.torchvision_models import import_torchvision

LINEAR = "LRP-0 = input × gradient"
CURVED = "finite"


@dataclass(frozen=True)
class Architecture:
    """A net and what is known of it.

    Attributes:
        shape: of one input.
        linear: whether it is piecewise linear.
        whole: whether none of its operations is taken apart, so that its output is the same bit for bit.
        at: the embedding layer of a net that reads tokens, which is then what is explained.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    linear: bool = True
    whole: bool = True
    at: str | None = None


class UNet(nn.Module):
    """Two levels down, two up by a transposed convolution and by interpolation, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self.block(1, 4), self.block(4, 8), self.block(8, 16)])
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.middle, self.last = self.block(16, 8), self.block(12, 4)
        self.head = nn.Conv2d(4, 2, 1)

    @staticmethod
    def block(inside: int, outside: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        x = self.down[2](F.max_pool2d(second, 2))
        x = self.middle(torch.cat([self.up(x), second], 1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.last(torch.cat([x, first], 1))).mean((2, 3))


class Behind(nn.Module):
    """What a net does behind one of its layers, for given tokens."""

    def __init__(self, net: nn.Module, layer: str, tokens: Tensor) -> None:
        super().__init__()
        self.net, self.layer, self.tokens = net, layer, tokens

    def forward(self, x: Tensor) -> Tensor:
        with tap(self.net, {self.layer: lambda _: x}):
            return scores(self.net(self.tokens[: len(x)]))


class Encoder(nn.Module):
    """A transformer encoder of torch, and a layer behind the mean over its positions."""

    def __init__(self, fast: bool) -> None:
        super().__init__()
        heads = 4 if fast else 1  # an odd number has no fast path
        layer = nn.TransformerEncoderLayer(16, heads, 32, batch_first=True, activation="gelu")
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=fast), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, dilation=2), nn.BatchNorm1d(8), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 8, 3, groups=4),
        nn.LeakyReLU(0.1), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, stride=2), nn.BatchNorm3d(4), nn.ReLU(inplace=True), nn.MaxPool3d(2), nn.Conv3d(4, 4, 1),
        nn.ReLU(), nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


class Recurrent(nn.Module):
    """A net that reads both ways in two layers, and a dense layer behind the mean of what it gives out."""

    def __init__(self, make: Callable[..., nn.RNNBase]) -> None:
        super().__init__()
        self.reader = make(6, 8, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reader(x)[0].mean(1))


class TextCNN(nn.Module):
    """Embedded words, windows of 2 and 3 of them, and the maximum over time (Kim 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = nn.ModuleList(nn.Conv1d(6, 8, width, padding=width - 1) for width in (2, 3))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        return self.head(torch.cat([window(x).relu().amax(2) for window in self.windows], 1))


def torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else options
    return lambda: getattr(import_torchvision().models, name)(weights=None, num_classes=10, **more)


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import_torchvision()
        import timm

        return timm.create_model(name, num_classes=10, **options)

    return make


def huggingface(name: str, task: str = "ImageClassification", **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import_torchvision()
        import transformers

        config = getattr(transformers, f"{name}Config")(**options)
        return getattr(transformers, f"{name}For{task}")(config)

    return make


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
         "max_position_embeddings": 32}  # fmt: skip
DECODER = {**SMALL, "num_key_value_heads": 2}
TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("bert.embeddings", SMALL),
    "DistilBert": (
        "distilbert.embeddings",
        {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32, "max_position_embeddings": 32},
    ),
    "Roberta": ("roberta.embeddings", SMALL),
    "GPT2": ("transformer.wte", {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 1,
                                 "eos_token_id": 2}),
    "Llama": ("model.embed_tokens", DECODER),
    "Qwen2": ("model.embed_tokens", DECODER),
    "Qwen3": ("model.embed_tokens", {**DECODER, "head_dim": 4}),
}  # fmt: skip
"""The text classifiers of transformers that are examined: name → embedding layer and a tiny configuration."""


def reader(name: str, attention: str) -> Architecture:
    """A tiny text classifier with attention written out ("eager") or in torch's kernel ("sdpa")."""
    at, options = TEXT[name]
    options = {**options, "vocab_size": 50, "pad_token_id": 0, "attn_implementation": attention}
    return Architecture(
        f"transformers {name}, {attention}",
        huggingface(name, "SequenceClassification", **options),
        (7,),
        linear=False,
        at=at,
    )


def cifar(blocks: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        path = Path(__file__).parents[2] / "models/resnet20_cifar10.py"
        spec = importlib.util.spec_from_file_location("resnet20_cifar10", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault("resnet20_cifar10", module)
        spec.loader.exec_module(module)
        return module.ResNet(blocks)

    return make


ARCHITECTURES = (
    Architecture("VGG16", torchvision("vgg16"), (3, 32, 32)),
    Architecture("ResNet-18", torchvision("resnet18"), (3, 32, 32)),
    Architecture("ResNet-50", torchvision("resnet50"), (3, 32, 32)),
    Architecture("DenseNet-121", torchvision("densenet121"), (3, 32, 32)),
    Architecture("GoogLeNet", torchvision("googlenet"), (3, 32, 32)),
    Architecture("Inception-v3", torchvision("inception_v3"), (3, 75, 75)),
    Architecture("SqueezeNet 1.1", torchvision("squeezenet1_1"), (3, 32, 32)),
    Architecture("MobileNet-v3", torchvision("mobilenet_v3_small"), (3, 32, 32), linear=False),
    Architecture("EfficientNet-b0", torchvision("efficientnet_b0"), (3, 32, 32), linear=False),
    Architecture("ConvNeXt-tiny", torchvision("convnext_tiny"), (3, 32, 32), linear=False),
    Architecture("ShuffleNet-v2", torchvision("shufflenet_v2_x0_5"), (3, 32, 32)),
    Architecture("CIFAR ResNet-20", cifar(3), (3, 32, 32)),
    Architecture("CIFAR ResNet-56", cifar(9), (3, 16, 16)),
    Architecture("timm regnetx_002", timm("regnetx_002"), (3, 32, 32)),
    Architecture("timm mobilenetv2_050", timm("mobilenetv2_050"), (3, 32, 32), linear=False),
    Architecture("timm resnest14d", timm("resnest14d"), (3, 32, 32), linear=False),
    Architecture("timm nf_regnet_b0", timm("nf_regnet_b0"), (3, 32, 32), linear=False),
    Architecture("timm convnextv2_atto", timm("convnextv2_atto"), (3, 32, 32), linear=False),
    Architecture("transformers ResNet", huggingface("ResNet", depths=[1, 2], hidden_sizes=[32, 64]), (3, 32, 32)),
    Architecture(
        "transformers ConvNeXt",
        huggingface("ConvNext", depths=[1, 2], hidden_sizes=[16, 32], num_stages=2),
        (3, 32, 32),
        linear=False,
    ),
    Architecture("ViT-B/16", torchvision("vit_b_16", image_size=32), (3, 32, 32), linear=False, whole=False),
    Architecture("Swin-T", torchvision("swin_t"), (3, 64, 64), linear=False),
    Architecture("timm mixer_s32_224", timm("mixer_s32_224", img_size=64), (3, 64, 64), linear=False),
    Architecture("timm deit_tiny_patch16_224", timm("deit_tiny_patch16_224", img_size=48), (3, 48, 48), linear=False),
    Architecture("timm eva02_tiny_patch14_224", timm("eva02_tiny_patch14_224", img_size=42), (3, 42, 42), linear=False),
    Architecture("timm cait_xxs24_224", timm("cait_xxs24_224", img_size=48), (3, 48, 48), linear=False),
    *(reader(name, attention) for name in TEXT for attention in ("eager", "sdpa")),
    Architecture("nn.TransformerEncoder, fast path", lambda: Encoder(True), (5, 16), linear=False, whole=False),
    Architecture("nn.TransformerEncoder", lambda: Encoder(False), (5, 16), linear=False, whole=False),
    Architecture("U-Net", UNet, (1, 16, 16)),
    Architecture("Conv1d net", conv1d, (2, 40)),
    Architecture("Conv3d net", conv3d, (1, 12, 12, 12)),
    Architecture("nn.LSTM, two layers both ways", partial(Recurrent, nn.LSTM), (7, 6), linear=False),
    Architecture("nn.GRU, two layers both ways", partial(Recurrent, nn.GRU), (7, 6), linear=False),
    Architecture(
        "nn.RNN (ReLU), two layers both ways", partial(Recurrent, partial(nn.RNN, nonlinearity="relu")), (7, 6)
    ),
    Architecture("Text CNN on embedded words", TextCNN, (7, 6)),
)


def prepared(architecture: Architecture) -> tuple[nn.Module, Tensor]:
    """The net with batch norms that have seen data and no last layer of zeros (else nothing arrives), and two inputs."""
    torch.manual_seed(0)
    net = architecture.make().eval()
    if architecture.at is not None:
        tokens = torch.randint(3, 50, (2, *architecture.shape))
        seen: list[Tensor] = []
        with torch.no_grad(), tap(net, {architecture.at: lambda x: seen.append(x.clone())}):
            net(tokens)
        return Behind(net, architecture.at, tokens).eval(), seen[0]
    for part in net.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
            part.train()
    with torch.no_grad():
        net(torch.randn(4, *architecture.shape))
    return net.eval(), torch.randn(2, *architecture.shape)


def examine(architecture: Architecture) -> dict[str, Any]:
    """One row of the table: what has been found of this architecture."""
    net, x = prepared(architecture)
    with torch.no_grad():
        plain = scores(net(x.clone()))
    composite = default(net)
    output, relevance, engine = under_engine(net, x)
    row: dict[str, Any] = {
        "name": architecture.name,
        "operations": operations(engine),
        "forward": ((output - plain).abs().max() / plain.abs().max()).item(),
        "composite": composite,
        "finite": bool(torch.isfinite(relevance).all()),
        "expected": LINEAR if architecture.linear else CURVED,
    }
    if architecture.linear:
        expected = input_times_gradient(net, x)[1]
        row["error"] = ((relevance - expected).abs().max() / expected.abs().max()).item()
    again, relevance, _ = under_engine(net, x, composite, 1e-6)
    row["same"] = torch.equal(output, again)
    row["finite"] &= bool(torch.isfinite(relevance).all())
    row["reached"] = bool(relevance.any())
    trace = LRP(composite).trace(net, x[:1], 0)
    row["gap"] = max(float(trace.gap.max()), float(trace.total_gap.max()))
    return row


def operations(engine: Interception) -> str:
    """How many of each kind of linear map the net has."""
    counts = Counter(operation.kind for operation in engine.operations)  # type: ignore[attr-defined]
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def table(rows: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    lines = [
        "# Architectures under the backprop engine",
        "",
        "Made by `python docs/architectures.py`; `tests/attribution/backprop/test_architectures.py` asserts every row.",
        "Each net runs whole, with random weights and batch norms that have seen data, in float32: its output under the",
        "engine must equal its plain output bit for bit (to 1e-5 where `F.multi_head_attention_forward` is taken apart),",
        "and where the net is piecewise linear, LRP-0 (which charges biases) must equal input × gradient. Elsewhere",
        "(attention, gates, curved activations, normalisation) the rules differ from the gradient on purpose. Nets that",
        "read tokens are explained at their embedding layer. No net has an operation without a rule, and no tensor was",
        "taken for non-negative that is not. In the last column the score is held against the sum of the relevance and of",
        "all that biases, stabilisers, constants and softmax absorb under the composite that is the net's default, and",
        "likewise at every operation: the worst difference, as a share of the magnitudes there.",
        "",
        "| Architecture | Linear maps by kind | Forward bit-identical | LRP-0 − input × gradient (relative) "
        "| Composite | Score − relevance − absorbed (relative) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        error = (
            "by rules of its own"
            if "error" not in row
            else "0 (bitwise)"
            if row["error"] == 0
            else f"{row['error']:.0e}"
        )
        lines.append(
            f"| {row['name']} | {row['operations']} | {format(row['forward'], '.0e') if row['forward'] else 'yes'} "
            f"| {error} | {row['composite']} | {'< 1e-5' if row['gap'] < 1e-5 else format(row['gap'], '.0e')} |"
        )
    return "\n".join(lines) + "\n"
