"""How much of what a neuron detects is left in its input once the signal is taken out: ρ of Kindermans et al. 2017.

ρ(S) = 1 − max_v corr(wᵀx, vᵀ(x − S(x))): 1 where S takes out all that tells of y = wᵀx. v by least squares from one
half of the pictures, the correlation from the other.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whybox

ESTIMATORS = ("random", "filter w", "linear a", "ReLU a₊, a₋")
NEURONS, ROWS, RIDGE = 16, 8000, 1e-6


def measure(net: nn.Sequential, fitted_to: Tensor, own: Tensor, held: Tensor) -> dict[str, dict[str, list[float]]]:
    """Layer → estimator → ρ of up to so many of its neurons; patterns from `fitted_to`, v from `own`, ρ on `held`."""
    states = {name: whybox.PatternNet(name).fit(net, fitted_to).state for name in ("relu", "linear")}
    found: dict[str, dict[str, list[float]]] = {}
    for (name, layer, gated, train), (*_, test) in zip(layers(net, own), layers(net, held), strict=True):
        weight, bias = (part.detach().double().flatten(1) for part in (layer.weight, layer.bias[:, None]))
        relu, linear = (states[e][f"{name}.pattern"].flatten(1).double() for e in ("relu", "linear"))
        known = states["relu"][f"{name}.known"] & states["linear"][f"{name}.known"]
        values: dict[str, list[float]] = {estimator: [] for estimator in ESTIMATORS}
        generator = torch.Generator().manual_seed(0)
        for j in torch.randperm(len(weight), generator=generator)[:NEURONS].tolist():
            w, noise = weight[j], torch.randn(weight[j].shape, generator=generator, dtype=torch.float64)
            closed = (train @ w + bias[j] <= 0) & gated
            if not known[j] or len(train) < 2 * len(w):
                continue
            signals = {
                "random": (noise / (w @ noise),) * 2,
                "filter w": (w / (w @ w),) * 2,
                "linear a": (linear[j],) * 2,
                "ReLU a₊, a₋": (relu[j], side(train, w, closed) if gated else relu[j]),
            }
            for estimator, (above, below) in signals.items():
                values[estimator].append(rho(*(_left(x, w, bias[j], above, below) for x in (train, test))))
        if values["random"]:
            found[name] = values
    return found


Left = tuple[Tensor, Tensor]
"""y = wᵀx (rows,), and what is left of x without the signal (rows, inputs)."""


def side(x: Tensor, w: Tensor, rows: Tensor) -> Tensor:
    """The pattern of one side of a ReLU: (E[xy] − E[x] E[y]) / wᵀ(the same); E[y] is over all rows."""
    if not bool(rows.any()):
        return torch.zeros_like(w)
    y = x @ w
    raw = (x[rows] * y[rows, None]).mean(0) - x[rows].mean(0) * y.mean()
    return raw / (w @ raw)


def _left(x: Tensor, w: Tensor, bias: Tensor, above: Tensor, below: Tensor) -> Left:
    y = x @ w
    return y, x - y[:, None] * torch.where((y + bias > 0)[:, None], above, below)


def rho(train: Left, test: Left) -> float:
    """ρ of one neuron: v from one half, the correlation from the other."""
    y, left = (part - part.mean(0) for part in train)
    gram = left.T @ left
    v = torch.linalg.solve(gram + RIDGE * gram.trace() / len(gram) * torch.eye(len(gram)).double(), left.T @ y)
    told = torch.corrcoef(torch.stack((test[0], test[1] @ v)))[0, 1]
    return float(1 - told.clamp_min(0))


def layers(net: nn.Sequential, pictures: Tensor) -> Iterator[tuple[str, nn.Module, bool, Tensor]]:
    """Each layer with weights: its name, itself, whether a ReLU follows, and its inputs (rows, fan-in), float64."""
    x, parts = pictures, list(net.named_children())
    generator = torch.Generator().manual_seed(0)
    for (name, layer), (_, following) in zip(parts, [*parts[1:], ("", nn.Identity())], strict=True):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            rows = x
            if isinstance(layer, nn.Conv2d):
                padding = layer.padding[0]
                assert not isinstance(padding, str)
                unfolded = F.unfold(x, layer.kernel_size, padding=padding, stride=layer.stride)
                rows = unfolded.mT.flatten(0, 1)
            chosen = torch.randperm(len(rows), generator=generator)[:ROWS]
            yield name, layer, isinstance(following, nn.ReLU), rows[chosen].double()
        with torch.no_grad():
            x = layer(x)
