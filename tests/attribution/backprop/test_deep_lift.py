"""DeepLIFT: literal loops on every toy net, closed forms, identities, and what other implementations get wrong."""

import math
from typing import Any

import pytest
import torch
from difference_reference import Differences, Value
from test_gated import draw, filled
from torch import Tensor, nn
from torch.nn import functional as F
from toy_nets import TOYS, Toy

from whybox import LRP, Constant, DeepLIFT, Gradient, IntegratedGradients, Model, UniformNoise
from whybox.core.errors import InputError, ModelError
from whybox.core.tree import as_tuple

BASELINES = (Constant(0.0), Constant(0.7), UniformNoise())
by_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
by_rule = pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])


class Net(nn.Module):
    """Parts, and a function that runs them."""

    def __init__(self, run: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


def summed(method: DeepLIFT, net: nn.Module, *inputs: Tensor, target: Any = 1) -> tuple[float, Any]:
    """The worst difference between the relevance's sum and the model's own two scores; and the answer."""
    answer = method.run(net, inputs if len(inputs) > 1 else inputs[0], target)
    starts = as_tuple(answer.details["baseline"])
    with torch.no_grad():
        change = net(*(x.clone() for x in inputs)) - net(*(b.clone() for b in starts))
    total = sum(r.flatten(1).sum(1) for r in as_tuple(answer.relevance))
    return float((total - change[:, target]).abs().max()), answer


@by_toy
@by_rule
def test_the_sum_is_the_difference_of_the_scores(toy: Toy, rule: Any) -> None:
    for baseline in BASELINES:
        gap, answer = summed(DeepLIFT(rule, baseline), toy.net(), *toy.example())
        assert gap <= 1e-9
        assert bool((answer.checks[0].values <= 1e-9).all())


def reference(toy: Toy, net: nn.Module, inputs: tuple[Tensor, ...], starts: tuple[Tensor, ...], rule: str) -> Any:
    rows = []
    for sample in range(len(inputs[0])):
        at = slice(sample, sample + 1)
        loops = Differences(rule)
        values = [loops.keep(Value(x[at], b[at])) for x, b in zip(inputs, starts, strict=True)]
        with torch.no_grad():
            output = toy.steps(loops, net, *values)
            assert output.a[1] == pytest.approx(net(*(x[at].clone() for x in inputs))[0, 1].item(), rel=1e-9)
        loops.relevance(output, 1)
        parts = [(v.parts(), v.multipliers, v.data.shape) for v in values]
        rows.append([torch.from_numpy(p * mp + n * mn).view(shape) for (p, n), (mp, mn), shape in parts])
    return tuple(map(torch.cat, zip(*rows, strict=True)))


@by_toy
@by_rule
def test_every_net_is_the_literal_reference(toy: Toy, rule: Any) -> None:
    net, inputs = toy.net(), toy.example()
    for baseline in (Constant(0.0), UniformNoise()):
        answer = DeepLIFT(rule, baseline).run(net, inputs if len(inputs) > 1 else inputs[0], 1)
        wanted = reference(toy, net, inputs, as_tuple(answer.details["baseline"]), rule)
        size = max(float(w.abs().max()) for w in wanted)
        for found, want in zip(as_tuple(answer.relevance), wanted, strict=True):
            assert float((found - want).abs().max()) <= 1e-9 * size
