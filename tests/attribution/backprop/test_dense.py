"""Every composite on every toy net, against the literal reference."""

import pytest
import torch
from dense_reference import COMPOSITES, Dense
from torch import Tensor
from toy_nets import TOYS, Toy

from whybox import Model
from whybox.attribution.backprop.lrp import LRP
from whybox.core.model import Domain

EPSILON, LOW, HIGH, TARGET = 0.01, -2.0, 2.5, 1


def reference(toy: Toy, net: torch.nn.Module, inputs: tuple[Tensor, ...], composite: str) -> tuple[Tensor, ...]:
    rows = []
    for sample in range(len(inputs[0])):
        dense = Dense(composite, EPSILON, LOW, HIGH)
        values = [dense.input(x[sample : sample + 1]) for x in inputs]
        with torch.no_grad():
            output = toy.steps(dense, net, *values)
            score = net(*(x[sample : sample + 1].clone() for x in inputs))[0, TARGET]
        assert output.a[TARGET] == pytest.approx(score.item(), rel=1e-9), "the steps are not the net"
        dense.relevance(output, TARGET)
        rows.append([torch.from_numpy(value.relevance).view(value.data.shape) for value in values])
    return tuple(map(torch.cat, zip(*rows, strict=True)))


def explained(net: torch.nn.Module, inputs: tuple[Tensor, ...], composite: str) -> tuple[Tensor, ...]:
    model = Model(net, domain=Domain((LOW,), (HIGH,)), chunk=2)
    relevance = LRP(composite=composite, epsilon=EPSILON)(model, inputs if len(inputs) > 1 else inputs[0], TARGET)
    return relevance if isinstance(relevance, tuple) else (relevance,)


def close(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], limit: float) -> None:
    size = max(float(w.abs().max()) for w in wanted)
    for f, w in zip(found, wanted, strict=True):
        assert float((f.double() - w).abs().max()) <= limit * size


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_every_composite_on_every_net_is_the_reference(toy: Toy, composite: str) -> None:
    net = toy.net()
    for nonnegative in (False, True):
        inputs = toy.example(nonnegative)
        wanted = reference(toy, net, inputs, composite)
        close(explained(net, inputs, composite), wanted, 1e-9)
    single = tuple(x.float() for x in inputs)
    close(explained(net.float(), single, composite), wanted, 1e-3)
