"""How much of what a neuron detects is left in its input once the signal is taken out: ρ of Kindermans et al. 2017.

ρ(S) = 1 − max_v corr(wᵀx, vᵀ(x − S(x))): 1 where S takes out all that tells of y = wᵀx. v by least squares from one
half of the pictures, the correlation from the other. Only where the neuron's ReLU is open, for all estimators alike.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whybox

ESTIMATORS = ("random", "filter w", "linear a", "ReLU a₊")
NEURONS, ROWS, RIDGE = 16, 4000, 1e-6


def measure(net: nn.Sequential, fitted_to: Tensor, own: Tensor, held: Tensor) -> dict[str, dict[str, list[float]]]:
    """Layer → estimator → ρ of up to so many of its neurons; patterns from `fitted_to`, v from `own`, ρ on `held`."""
    states = {
        estimator: whybox.PatternNet("linear" if estimator == "linear a" else "relu").fit(net, fitted_to).state
        for estimator in ESTIMATORS[2:]
    }
    found: dict[str, dict[str, list[float]]] = {}
    for (name, layer, gated, train), (*_, test) in zip(layers(net, own), layers(net, held), strict=True):
        weight, bias = (part.detach().double().flatten(1) for part in (layer.weight, layer.bias[:, None]))
        values: dict[str, list[float]] = {estimator: [] for estimator in ESTIMATORS}
        generator = torch.Generator().manual_seed(0)
        for j in torch.randperm(len(weight), generator=generator)[:NEURONS].tolist():
            w = weight[j]
            noise = torch.randn(w.shape, generator=generator, dtype=torch.float64)
            patterns = {
                "random": noise / (w @ noise),
                "filter w": w / (w @ w),
                **{e: state[f"{name}.pattern"].flatten(1)[j].double() for e, state in states.items()},
            }
            x, z = (rows[rows @ w + bias[j] > 0][:ROWS] if gated else rows[:ROWS] for rows in (train, test))
            if min(len(x), len(z)) < 2 * len(w) or not bool(states["ReLU a₊"][f"{name}.known"][j]):
                continue
            for estimator, a in patterns.items():
                values[estimator].append(rho(x, z, w, a))
        found[name] = values
    return found


def rho(train: Tensor, test: Tensor, w: Tensor, a: Tensor) -> float:
    """ρ of S(x) = a wᵀx for one neuron, from rows of its inputs."""
    y, left = train @ w, train - (train @ w)[:, None] * a
    y, left = y - y.mean(), left - left.mean(0)
    gram = left.T @ left
    v = torch.linalg.lstsq(gram + RIDGE * gram.trace() / len(w) * torch.eye(len(w)).double(), left.T @ y).solution
    told = torch.corrcoef(torch.stack((test @ w, (test - (test @ w)[:, None] * a) @ v)))[0, 1]
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
            chosen = torch.randperm(len(rows), generator=generator)[: 4 * ROWS]
            yield name, layer, isinstance(following, nn.ReLU), rows[chosen].double()
        with torch.no_grad():
            x = layer(x)
