"""What has no rule is refused by name, with its module path and the line that registers one, and only if it counts."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_runs import Net, input_times_gradient, under_engine
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from whybox.attribution.backprop import table
from whybox.core.errors import ModelError, WhyboxError

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return grad[0] * 2


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return -grad[0]


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(dense())


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(dense(), X)


class Wraps(nn.Module):
    """A part of a net that runs a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x + 1


def half_precision(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.mm(x, torch.ones(4, 4)).float()


def reentrant(x: Tensor) -> Any:
    return checkpoint(dense(), x, use_reentrant=True)


def own_gradient(x: Tensor) -> Tensor:
    return torch.autograd.grad(x.square().sum(), x, create_graph=True)[0]


PARTS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scripted": (scripted, "trust"),
    "traced": (traced, "trust"),
    "autograd function": (lambda: Wraps(Double.apply), "the autograd function Double.*trust.'DoubleBackward'"),
    "autograd function beside its input": (
        lambda: Wraps(lambda x: x + Double.apply(x)),
        "the autograd function Double",
    ),
    "autograd function by name": (lambda: Wraps(lambda x: torch.add(x, other=Double.apply(x))), "function Double"),
    "function that gives a view": (lambda: Wraps(Reverse.apply), "the autograd function Reverse"),
    "reentrant checkpoint": (lambda: Wraps(reentrant), "use_reentrant=False"),
    "unknown": (lambda: Wraps(lambda x: x.cumprod(1)), "torch.Tensor.cumprod.*handles.torch.Tensor.cumprod"),
    "unknown in place": (lambda: Wraps(lambda x: (x + 1).cumprod_(1)), "torch.Tensor.cumprod"),
    "product": (lambda: Wraps(lambda x: x * x.prod(1, keepdim=True)), "torch.Tensor.prod"),
    "bilinear": (lambda: Wraps(lambda x: nn.functional.bilinear(x, x, torch.ones(4, 4, 4))), "bilinear"),
    "complex": (lambda: Wraps(lambda x: torch.fft.fft(x).abs()), "fft"),
    "hook": (lambda: hooked(), "full backward hook"),
    "vmap": (lambda: Wraps(lambda x: torch.vmap(lambda row: row * 2)(x)), "torch.func"),
    "inference mode": (lambda: Wraps(inference), "inference_mode"),
    "autocast": (lambda: Wraps(half_precision), "autocast"),
    "own gradient": (lambda: Wraps(own_gradient), "a gradient that the model takes"),
    "out": (lambda: Wraps(lambda x: torch.add(x, 1, out=torch.empty(3, 4))), "out="),
    "shape in place": (lambda: Wraps(lambda x: (x + 1).unsqueeze_(0)[0]), "unsqueeze_"),
    "recurrent weights": (lambda: Wraps(lambda x: recurrent(x)), "recurrent weights that depend on the input"),
    "batch statistics": (lambda: nn.BatchNorm1d(4, track_running_stats=False), "batch's own statistics"),
}


def hooked() -> nn.Module:
    part = dense()
    part.register_full_backward_hook(lambda *_: None)
    return part


def recurrent(x: Tensor) -> Tensor:
    return torch.rnn_tanh_cell(x, torch.zeros(3, 3), x * 1, torch.eye(3))


def net_with(part: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Identity(), part), nn.Linear(4, 2))


@pytest.mark.parametrize("name", PARTS)
def test_refused_by_name(name: str) -> None:
    make, text = PARTS[name]
    with pytest.raises(ModelError, match=f"(?s){text}") as caught:
        under_engine(net_with(make()), X)
    assert "in module '1" in str(caught.value)


@pytest.mark.parametrize("name", ["scripted", "autograd function", "unknown", "reentrant checkpoint", "product"])
def test_off_the_path_to_the_target_anything_goes(name: str) -> None:
    part = PARTS[name][0]()
    net = Net(lambda self, x: torch.cat([self.head(x), self.part(x)], -1), head=nn.Linear(4, 2), part=part)
    output, relevance, _ = under_engine(net, X, target=lambda output: output[:, :2].sum())
    assert torch.equal(output[:, :2], net.head(X))
    torch.testing.assert_close(relevance, input_times_gradient(net.head, X)[1])


# not a reentrant checkpoint: torch refuses autograd.grad through one
@pytest.mark.parametrize("name", ["scripted", "autograd function", "unknown"])
def test_gradient_by_choice_is_recorded(name: str) -> None:
    net = net_with(PARTS[name][0]())
    output, relevance, engine = under_engine(net, X, unknown="gradient")
    plain, expected = input_times_gradient(net, X)
    assert torch.equal(output, plain)
    torch.testing.assert_close(relevance, expected)
    assert engine.as_gradient
    assert engine.as_gradient[0][1].startswith("1")


def test_a_trusted_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "TRUSTED", table.TRUSTED)
    table.trust("DoubleBackward")
    try:
        net = net_with(Wraps(Double.apply))
        torch.testing.assert_close(under_engine(net, X)[1], input_times_gradient(net, X)[1])
    finally:
        table.TRUSTED.remove("DoubleBackward")


def test_the_score_itself_is_checked() -> None:
    with pytest.raises(ModelError, match="Double"):
        under_engine(Net(lambda self, x: Double.apply(self.part(x)), part=nn.Linear(4, 2)), X)


@pytest.mark.parametrize("how", ["module", "method", "function"])
def test_compiled(how: str) -> None:
    part = dense()
    if how == "module":
        part = torch.compile(part, backend="eager")
    elif how == "method":
        part.compile(backend="eager")
    else:
        part = Wraps(torch.compile(lambda x: x.relu() * 2, backend="eager"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(WhyboxError, match=r"compiled part.*'1\.1'"):
            under_engine(net_with(part), X)


def test_a_new_rule_in_one_line() -> None:
    @table.handles("cumprod")
    def native(engine: Any, function: Any, args: Any, kwargs: Any) -> Any:
        return engine.native(function, args, kwargs)

    try:
        net = net_with(Wraps(lambda x: x.cumprod(1)))
        torch.testing.assert_close(under_engine(net, X)[1], input_times_gradient(net, X)[1])
    finally:
        for function in table.named("cumprod"):
            del table.KINDS[function]


def test_subclasses_are_refused() -> None:
    class Mine(Tensor):
        pass

    with pytest.raises(WhyboxError, match="Mine"):
        under_engine(dense(), X.as_subclass(Mine))
