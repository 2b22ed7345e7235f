"""Running a net under the engine, beside its plain forward and its gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import whybox.attribution.backprop.kinds  # noqa: F401 (fills the table)
from whybox.attribution.backprop.composites import composite
from whybox.attribution.backprop.engine import Engine
from whybox.attribution.backprop.provenance import Provenance


class Checked(Engine):
    """An engine that looks at the values whenever something is said of them."""

    def signal(self, x: Tensor, record: Provenance) -> Tensor:
        if record.nonnegative or record.gate:
            lowest = x.detach().amin().item() if x.numel() else 0.0
            assert not record.nonnegative or lowest >= 0, f"{x.grad_fn} in {self.where} is negative: {lowest}"
        if record.entry is not None:
            assert record.entry.slot.shape == x.shape
            if record.entry.low is not None and record.entry.high is not None:
                assert bool((record.entry.low <= x.detach() + 1e-9).all())
                assert bool((x.detach() <= record.entry.high + 1e-9).all())
        return super().signal(x, record)


def scores(output: Any) -> Tensor:
    output = getattr(output, "logits", output)
    return output if isinstance(output, Tensor) else output[0]


def under_engine(
    net: nn.Module,
    x: Tensor,
    name: str = "epsilon",
    epsilon: float = 0.0,
    target: Callable[[Tensor], Tensor] = torch.sum,
    **options: Any,
) -> tuple[Tensor, Tensor, Engine]:
    """The output, the relevance of the target (the sum of the scores), and the engine."""
    leaf = x.detach().clone().requires_grad_()
    engine = Checked(composite(name, epsilon), net, **options)
    with engine:
        output = scores(net(engine.explain(leaf, x.min(), x.max())))
        score = engine.current(target(output))
    c, r = torch.autograd.grad(score, (leaf, engine.slots[0]), allow_unused=True, materialize_grads=True)
    return output.detach(), (leaf * c + r).detach(), engine


def input_times_gradient(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().clone().requires_grad_()
    output = scores(net(leaf.clone()))
    (gradient,) = torch.autograd.grad(output.sum(), leaf)
    return output.detach(), (leaf * gradient).detach()


class Net(nn.Module):
    """A function as a net."""

    def __init__(self, function: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)
