"""A linear model of a signal and a distractor: which map shows the signal, and which the filter that cancels noise."""

import math
from typing import Any

import torch
from torch import Tensor, nn

import whybox

SIZE, SAMPLES, SHOWN, SEEDS = 16, 2000, 100, 12
ANGLES, LEVELS = (90, 60, 45, 30, 15), (0.5, 1.0, 2.0, 4.0)
# What is held while the other changes.
ANGLE, LEVEL = 45, 1.0
METHODS: dict[str, whybox.Method] = {
    "Gradient": whybox.Gradient(),
    "InputXGradient": whybox.InputXGradient(),
    "LRP ε": whybox.LRP("epsilon"),
    "DeepTaylor": whybox.DeepTaylor(),
    "GuidedBackprop": whybox.GuidedBackprop(),
    "DeconvNet": whybox.DeconvNet(),
    "IntegratedGradients": whybox.IntegratedGradients(steps=16),
    "PatternNet": whybox.PatternNet(),
    "PatternAttribution": whybox.PatternAttribution(),
}


class Filter(nn.Module):
    """y = ReLU(wᵀx) − ReLU(−wᵀx): linear, and yet with ReLUs, for the methods that ask for some."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(len(w), 2, bias=False), nn.Linear(2, 1, bias=False)
        self.hidden.weight.data = torch.stack((w, -w))
        self.out.weight.data = torch.tensor([[1.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(x).relu())
        return y


def measure(angle: int, level: float, seed: int) -> dict[str, dict[str, float]]:
    """The mean cosine of each method's maps with the signal s, and with its share w ⊙ s in the answer.

    x = s y + level · d ε + 0.05 η, y, ε and η normal, s and d of length 1 with this angle between them; w by least
    squares. Explained are inputs with a positive answer, others than those learned from.
    """
    generator = torch.Generator().manual_seed(seed)
    s, other = torch.linalg.qr(torch.randn(SIZE, 2, generator=generator))[0].T
    d = math.cos(math.radians(angle)) * s + math.sin(math.radians(angle)) * other

    def draw(count: int) -> tuple[Tensor, Tensor]:
        y, noise = torch.randn(2, count, 1, generator=generator)
        return s * y + level * d * noise + 0.05 * torch.randn(count, SIZE, generator=generator), y

    x, y = draw(SAMPLES)
    w = torch.linalg.lstsq(x, y).solution[:, 0]
    net, patterns = Filter(w), whybox.PatternNet().fit(Filter(w), x)
    shown = draw(4 * SHOWN)[0]
    shown = shown[net(shown)[:, 0] > 0][:SHOWN]
    found: dict[str, Any] = {"filter": {"signal": float(torch.cosine_similarity(w, s, 0)), "share": math.nan}}
    for name, method in METHODS.items():
        own = whybox.Fitted(method, patterns.state) if method.taxonomy.trains else method
        map = own(whybox.Model(net, chunk=SHOWN), shown, 0)
        found[name] = {
            what: float(torch.cosine_similarity(map, truth, 1).mean())
            for what, truth in (("signal", s), ("share", w * s))
        }
    return found
