"""ReLU in place takes the memory of the sum before it, unless something else still needs what was there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_runs import Net
from torch import Tensor, nn

from whybox.attribution.backprop.composites import NAMES
from whybox.attribution.backprop.lrp import LRP

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Relu = Callable[[Tensor], Tensor]


def behind_a_convolution(net: Any, x: Tensor, relu: Relu) -> Tensor:
    return relu(net.conv(x))


def behind_a_batch_norm(net: Any, x: Tensor, relu: Relu) -> Tensor:
    return relu(net.bn(net.conv(x)))


def behind_a_sum(net: Any, x: Tensor, relu: Relu) -> Tensor:
    return relu(net.bn(net.conv(x)) + net.other(x))


def behind_a_sum_in_place(net: Any, x: Tensor, relu: Relu) -> Tensor:
    z = net.bn(net.conv(x))
    z += net.other(x)
    return relu(z)


def read_before(net: Any, x: Tensor, relu: Relu) -> Tensor:
    z = net.conv(x)
    twice = z * 2
    return relu(z) + twice


def sum_read_before(net: Any, x: Tensor, relu: Relu) -> Tensor:
    z = net.conv(x) + net.other(x)
    twice = 2 * z
    return relu(z) + twice


def subtracted_before(net: Any, x: Tensor, relu: Relu) -> Tensor:
    z = net.conv(x)
    less = net.other(x) - z
    return relu(z) + less


def at_the_input(net: Any, x: Tensor, relu: Relu) -> Tensor:
    return net.conv(relu(net.scale(x)))


TAKES_MEMORY = (behind_a_convolution, behind_a_batch_norm, behind_a_sum, behind_a_sum_in_place)
KEEPS = (read_before, sum_read_before, subtracted_before, at_the_input)


def net_of(function: Any, relu: Relu) -> nn.Module:
    torch.manual_seed(1)
    parts = {"conv": nn.Conv2d(3, 4, 3, padding=1), "other": nn.Conv2d(3, 4, 1), "bn": nn.BatchNorm2d(4)}
    parts |= {"scale": nn.BatchNorm2d(3), "after": nn.Conv2d(4, 3, 3), "head": nn.Linear(48, 2)}

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(F.relu(self.after(function(self, x, relu))).flatten(1))

    net = Net(forward, **parts).double().eval()
    for norm in (net.bn, net.scale):
        norm.weight.data.copy_(torch.linspace(-1, 2, len(norm.weight)))
        norm.bias.data.normal_()
        norm.running_var.uniform_(0.5, 2)
    return net


def pointers(function: Any) -> tuple[int, int]:
    """Where the ReLU's input and output lie while the engine runs."""
    seen = []

    def watched(z: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            seen.append(z.data_ptr())
        y = F.relu(z, inplace=True)
        seen.append(y.data_ptr())
        return y

    LRP("epsilon_plus")(net_of(function, watched), X, 0)
    return seen[0], seen[1]


@pytest.mark.parametrize("composite", NAMES)
@pytest.mark.parametrize("function", [*TAKES_MEMORY, *KEEPS], ids=lambda f: f.__name__)
def test_in_place_gives_the_same_map(function: Any, composite: str) -> None:
    expected = LRP(composite)(net_of(function, torch.relu), X, 0)
    torch.testing.assert_close(LRP(composite)(net_of(function, torch.relu_), X, 0), expected, rtol=0, atol=0)


@pytest.mark.parametrize("function", TAKES_MEMORY, ids=lambda f: f.__name__)
def test_it_takes_the_memory(function: Any) -> None:
    before, after = pointers(function)
    assert before == after


@pytest.mark.parametrize("function", KEEPS, ids=lambda f: f.__name__)
def test_it_leaves_what_is_still_needed(function: Any) -> None:
    before, after = pointers(function)
    assert before != after
