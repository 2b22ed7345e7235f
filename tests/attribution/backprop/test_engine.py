"""The engine sees every operation, changes no value, and leaves nothing behind."""

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_runs import Net, input_times_gradient, under_engine
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.checkpoint import checkpoint

from whybox.attribution.backprop.composites import NAMES, composite
from whybox.attribution.backprop.engine import Engine
from whybox.attribution.backprop.lrp import LRP
from whybox.attribution.smooth import SmoothGrad

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def net_of(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """The function between a convolution and a dense layer, with ReLU in front of it and behind."""
    torch.manual_seed(1)
    parts = {"conv": nn.Conv2d(3, 4, 3, padding=1), "bn": nn.BatchNorm2d(4), "head": nn.LazyLinear(2)}

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(F.relu(function(self.bn(self.conv(x)))).flatten(1))

    net = Net(forward, **parts).double().eval()
    net(X)
    return net


def set_item(x: Tensor) -> Tensor:
    x = x + 1
    x[:, 0] = x[:, 1] * 2
    return x


def added_to_view(x: Tensor) -> Tensor:
    x[:, 0] += 1
    return x


def multiplied_view(x: Tensor) -> Tensor:
    x.view(-1).mul_(2)
    return x


def view_before(x: Tensor) -> Tensor:
    view = x.view(len(x), -1)
    x.relu_()
    x.mul_(3)
    return view.view_as(x) + x


def view_before_out_of_place(x: Tensor) -> Tensor:
    y = x.relu() * 3
    return y + y


def view_of_view(x: Tensor) -> Tensor:
    first, second = x[:, :2], x[:, 2:]
    first.add_(second)
    first[:, 0].relu_()
    return torch.cat([x, first], 1)


def chain(x: Tensor) -> Tensor:
    y = x.clone()
    y.add_(1)
    y.mul_(2).relu_()
    y += x
    y /= 3
    y -= 0.5
    return F.leaky_relu(y, inplace=True)


def chain_out_of_place(x: Tensor) -> Tensor:
    y = torch.relu((x.clone() + 1) * 2)
    return F.leaky_relu((y + x) / 3 - 0.5)


def into_buffer(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 0] = x[:, 1]
    view = out[:, 1:]
    view.copy_(x[:, 1:])
    out[:, 2].add_(x[:, 0])
    return view.sum(1, keepdim=True) + out


def view_of_constant_before(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    view = out[:, 1:]
    out[:, 1:] = x[:, 1:]
    return x[:, :1] + view


def kept_in_list(x: Tensor) -> Tensor:
    seen = [x]
    F.relu(x, inplace=True)
    return seen[0] * 2


def both_halves(x: Tensor) -> Tensor:
    x[:, :1].relu_()
    x[:, 1:].clamp_(-0.5)
    return x


def both_halves_out_of_place(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1].relu(), x[:, 1:].clamp(-0.5)], 1)


def read_between(x: Tensor) -> Tensor:
    x[:, 0] = 1.0
    y = F.silu(x).sum(1, keepdim=True)
    x[:, 1] = 2.0
    return x + y * x.sigmoid()


def read_between_out_of_place(x: Tensor) -> Tensor:
    first, second, rest = torch.ones_like(x[:, :1]), 2 * torch.ones_like(x[:, :1]), x[:, 2:]
    y = F.silu(torch.cat([first, x[:, 1:]], 1)).sum(1, keepdim=True)
    x = torch.cat([first, second, rest], 1)
    return x + y * x.sigmoid()


def zeroed(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1].zero_()
    return y.masked_fill_(torch.ones_like(y, dtype=torch.bool).tril(), 0.5)


IN_PLACE = {
    "relu_": lambda x: x.relu_(), "torch.relu_": lambda x: torch.relu_(x), "F.relu": lambda x: F.relu(x, inplace=True),
    "add_": lambda x: x.add_(1, alpha=2), "add_ signal": lambda x: x.add_(x.relu()), "set_item": set_item,
    "added_to_view": added_to_view, "multiplied_view": multiplied_view, "view_before": view_before,
    "view_of_view": view_of_view, "chain": chain, "into_buffer": into_buffer, "kept_in_list": kept_in_list,
    "view_of_constant_before": view_of_constant_before,
    "zeroed": zeroed, "threshold": lambda x: F.threshold(x, 0.0, 0.0, True), "clamp_": lambda x: x.clamp_(min=0),
    "positional": lambda x: F.relu(x, True), "iadd constant": lambda x: torch.zeros_like(x).add_(x),
}  # fmt: skip

# what torch cannot differentiate
OUT_OF_PLACE = {"view_before": view_before_out_of_place, "chain": chain_out_of_place}


@pytest.mark.parametrize(
    ("written", "plain"), [(both_halves, both_halves_out_of_place), (read_between, read_between_out_of_place)]
)
@pytest.mark.parametrize("table", NAMES)
def test_what_is_written_after_it_was_read_is_not_what_was_read(
    written: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], table: str
) -> None:
    net, other = net_of(written), net_of(plain)
    output, relevance, _ = under_engine(net, X, table, 1e-9)
    expected_output, expected, _ = under_engine(other, X, table, 1e-9)
    assert torch.equal(output, expected_output)
    torch.testing.assert_close(relevance, expected)
    trace = LRP(table, epsilon=1e-9).trace(net, X, 0)
    assert float(torch.maximum(trace.gap.amax(1), trace.total_gap).max()) < 1e-9


@pytest.mark.parametrize("name", IN_PLACE)
def test_every_operation_in_place_accounts_for_all_relevance(name: str) -> None:
    trace = LRP("epsilon_plus_flat", epsilon=1e-9).trace(net_of(IN_PLACE[name]), X, 0)
    assert float(torch.maximum(trace.gap.amax(1), trace.total_gap).max()) < 1e-9


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("table", ["epsilon", "epsilon_plus_flat"])
def test_in_place(name: str, table: str) -> None:
    net = net_of(IN_PLACE[name])
    plain, expected = input_times_gradient(net_of(OUT_OF_PLACE.get(name, IN_PLACE[name])), X)
    output, relevance, _ = under_engine(net, X)
    assert torch.equal(output, plain)
    torch.testing.assert_close(relevance, expected)
    output, relevance, _ = under_engine(net, X, table, 1e-9)
    assert torch.equal(output, plain)
    assert bool(torch.isfinite(relevance).all())


def test_a_gated_linear_unit_is_its_gate_and_product_written_out() -> None:
    def written_out(x: Tensor) -> Tensor:
        signal, gate = x.chunk(2, 1)
        return signal * gate.sigmoid()

    for table in NAMES:
        output, relevance, _ = under_engine(net_of(lambda x: F.glu(x, 1)), X, table, 1e-9)
        assert torch.equal(output, input_times_gradient(net_of(lambda x: F.glu(x, 1)), X)[0])
        torch.testing.assert_close(relevance, under_engine(net_of(written_out), X, table, 1e-9)[1])


ACTIVATIONS = [
    (nn.ReLU6, {}), (nn.Hardswish, {}), (nn.SiLU, {}), (nn.Hardsigmoid, {}), (nn.ELU, {}), (nn.Mish, {}), (nn.SELU, {}),
    (nn.LeakyReLU, {}), (nn.Dropout, {}), (nn.Dropout2d, {}), (nn.AlphaDropout, {}), (nn.Hardtanh, {}), (nn.CELU, {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), ACTIVATIONS)
def test_in_place_modules_equal_those_out_of_place(kind: Any, options: dict[str, Any]) -> None:
    module = kind(**options, inplace=True).eval()
    net, other = net_of(module), net_of(kind(**options).eval())
    plain, _ = input_times_gradient(other, X)
    output, relevance, _ = under_engine(net, X)
    assert torch.equal(output, plain)
    assert torch.equal(relevance, under_engine(other, X)[1])


def test_in_place_at_the_input_keeps_the_first_layer_first() -> None:
    def scaled(self: Any, x: Tensor) -> Tensor:
        x[:, 0] -= 0.5
        x.sub_(0.1).div_(2.0)
        return self.conv(x).relu().flatten(1)

    net = Net(scaled, conv=nn.Conv2d(3, 2, 3)).double()
    for table in ("epsilon_plus_flat", "epsilon_gamma_box"):
        output, relevance, engine = under_engine(net, X, table, 1e-9)
        assert torch.equal(output, net(X.clone()))
        assert [operation.first for operation in engine.operations if operation.kind == "convolution"] == [True]
        torch.testing.assert_close(relevance.sum(), output.sum(), atol=1e-6, rtol=1e-6)


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "einsum": lambda x: torch.einsum("nchw,dc->ndhw", x, torch.arange(8.0, dtype=x.dtype).view(2, 4) - 3),
    "einsum of one": lambda x: torch.einsum("nchw->nwhc", x),
    "addmm": lambda x: torch.addmm(torch.ones(3, dtype=x.dtype), x.flatten(1), w(x, 144, 3), alpha=2.0),
    "baddbmm": lambda x: torch.baddbmm(torch.ones(1, 1, 3, dtype=x.dtype), x.flatten(2), w(x, 36, 3).expand(2, 36, 3)),
    "matmul": lambda x: x.flatten(2) @ w(x, 36, 3),
    "rmatmul": lambda x: w(x, 3, 4) @ x.flatten(2),
    "transposed": lambda x: x.flatten(1).T @ w(x, 2, 3),
    "max": lambda x: x.max(1, keepdim=True)[0] + torch.max(x, 2)[0].unsqueeze(2),
    "max of two": lambda x: torch.max(x, torch.ones_like(x) * -0.5),
    "min of two by name": lambda x: torch.min(x, other=torch.full_like(x, -0.5)),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 1)),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "index_add": lambda x: (x * 2).index_add(1, torch.tensor([2, 0]), x[:, 1:3], alpha=-0.5),
    "scatter_add": lambda x: x.scatter_add(1, (torch.arange(x.numel()) % 4).view_as(x), x),
    "cumsum": lambda x: x.cumsum(1) - torch.cumsum(x, dim=2),
    "mean": lambda x: x.mean(1, keepdim=True) + torch.mean(x, dim=(2, 3), keepdim=True),
    "rsub": lambda x: 1 - x + torch.rsub(x, 2, alpha=3) + torch.sub(input=x, other=1, alpha=2),
    "keywords": lambda x: torch.add(x, other=x, alpha=-2) + torch.mul(input=x, other=3) + torch.div(x, other=4),
    "stack": lambda x: torch.stack([x, x * 2], 1).sum(1),
    "split": lambda x: torch.cat(torch.split(x, 2, 1)[::-1], 1) + torch.cat(x.split([1, 3], 1), 1),
    "where": lambda x: torch.where(x > 0, x, -0.1 * x) + torch.where(x > 0, x, 0.0),
    "pad": lambda x: F.pad(x, (1, 1, 0, 2), value=-1.0) + F.pad(x, (1, 1, 0, 2), mode="replicate"),
    "questions": lambda x: x.view(x.shape[0], x.size(1), -1) * (2 if x.is_nested or x.is_cuda or x.ndim > 7 else 3),
    "dtype": lambda x: x.to(torch.float64).type_as(x).contiguous().to(x.device, non_blocking=True),
    "stochastic depth": lambda x: x + F.dropout(x, 0.5, training=False),
    "embedding": lambda x: x + F.embedding(torch.zeros(6, dtype=torch.long), w(x, 3, 6)),
    "addcmul": lambda x: torch.addcmul(torch.ones_like(x), x, torch.full_like(x, 2.0), value=0.5),
    "topk": lambda x: x.flatten(1).topk(5, dim=1).values,
    "roll": lambda x: x.roll(1, 2).flip(3) + x.transpose(2, 3).movedim(1, 2).movedim(2, 1),
    "no_grad": lambda x: without_grad(x),
}  # fmt: skip


def w(x: Tensor, *shape: int) -> Tensor:
    return torch.linspace(-1, 1.5, shape[0] * shape[1], dtype=x.dtype).view(shape)


def without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        mask = torch.ones_like(x)
    return x * mask


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area", "nearest-exact"])
def test_interpolation(mode: str) -> None:
    corners = {"align_corners": False} if mode in ("bilinear", "bicubic") else {}
    check(lambda x: F.interpolate(x, scale_factor=2, mode=mode, **corners))


@pytest.mark.parametrize("name", OPERATIONS)
def test_piecewise_linear_operations_equal_input_times_gradient(name: str) -> None:
    check(OPERATIONS[name])


def check(function: Callable[[Tensor], Tensor]) -> None:
    for front in (lambda x: x, F.relu):  # behind a ReLU everything is ≥ 0, which the engine makes use of
        net = net_of(lambda x, front=front: function(front(x)))
        plain, expected = input_times_gradient(net, X)
        output, relevance, _ = under_engine(net, X)
        assert torch.equal(output, plain)
        torch.testing.assert_close(relevance, expected)
        assert torch.equal(under_engine(net, X, "epsilon_plus", 1e-9)[0], plain)


def test_a_dense_layer_whose_weight_is_a_vector() -> None:
    one, kept = (net_of(lambda x, unit=unit: F.linear(x, unit).view(2, 4, 6)) for unit in (w(X, 1, 6)[0], w(X, 1, 6)))
    for got, wanted in zip(under_engine(one, X, "excitation"), under_engine(kept, X, "excitation")[:2], strict=False):
        torch.testing.assert_close(got, wanted)


def test_group_norm_of_what_is_not_contiguous() -> None:
    net = net_of(lambda x: F.group_norm(x, 2))
    expected = under_engine(net, X)
    for given, wanted in zip(under_engine(net, X.to(memory_format=torch.channels_last)), expected[:2], strict=False):
        torch.testing.assert_close(given, wanted)


def test_products_of_two_signals_halve() -> None:
    for product in (lambda a: a * a, lambda a: torch.einsum("nchw,nchw->nchw", a, a), lambda a: a @ a):
        net = Net(lambda self, x, f=product: f(x).flatten(1)).double()
        output, relevance, _ = under_engine(net, X)
        torch.testing.assert_close(relevance.sum(), output.sum())


def test_detach_is_reported() -> None:
    net = nn.Sequential(nn.Linear(4, 4), Net(lambda _self, x: x + x.detach() + x.data))
    assert under_engine(net, torch.randn(2, 4))[2].blocked == ["1", "1"]


def test_checkpoint_that_is_not_reentrant() -> None:
    part = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
    net = Net(lambda self, x: checkpoint(self.part, x, use_reentrant=False), part=part)
    x = torch.randn(2, 4)
    for table in ("epsilon", "epsilon_plus_flat"):
        expected = under_engine(part, x, table, 1e-6)[1]
        torch.testing.assert_close(under_engine(net, x, table, 1e-6)[1], expected)


def leftovers(net: nn.Module, *others: Tensor) -> list[str]:
    found = [name for name, value in vars(hooks).items() if name.startswith("_global_forward") and value]
    tensors = (*net.parameters(), *net.buffers(), *others)
    found += [str(x.shape) for x in tensors if hasattr(x, "_whybox_provenance")]
    found += [f"history of {name}" for name, buffer in net.named_buffers() if buffer.grad_fn is not None]
    found += [str(part) for part in net.modules() if part._forward_hooks or part._forward_pre_hooks]
    return found + [str(mode) for mode in torch.overrides._get_current_function_mode_stack()]


def test_nothing_is_left_behind() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.zeros(4))
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.state.add_(x.mean(0))
            self.state[0] = x[0, 0]
            return self.linear(x) + self.state

    net, x = Remembers(), torch.randn(2, 4)
    under_engine(net, x)
    assert leftovers(net, x) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_after_an_exception(error: type[BaseException], when: str) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grad: Any) -> Any:
            raise error

    def forward(self: Any, x: Tensor) -> Tensor:
        if when == "forward":
            raise error
        return Fails.apply(self.linear(x))

    net, x = nn.Sequential(Net(forward, linear=nn.Linear(4, 4))), torch.randn(2, 4)
    with pytest.raises(error):
        under_engine(net, x, unknown="gradient")
    assert leftovers(net, x) == []


def test_a_module_that_raises_and_is_caught() -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    paths = []

    def forward(self: Any, x: Tensor) -> Tensor:
        try:
            self.bad(x)
        except ValueError:
            paths.append(engine.where)
        made = nn.Sequential(nn.Identity(), Net(lambda _self, x: paths.append(engine.where) or x))
        return made(self.good(x))

    net = Net(forward, bad=Raises(), good=nn.Linear(4, 4))
    model = nn.Sequential(net)
    engine = Engine(composite("epsilon"), model)
    with engine:
        model(engine.explain(torch.randn(2, 4, requires_grad=True)))
    assert paths == ["0", "0.<Sequential>.<Net>"]
    assert engine.operations[0].module == "0.good"
    assert engine.where == ""


def test_nested_and_threaded() -> None:
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2)
    net = nn.Sequential(*parts).double()
    method = SmoothGrad(of=LRP(), samples=2)
    expected = method(net, X, 0)
    results: list[Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(method(net, X, 0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert all(torch.equal(result, expected) for result in results)
    assert leftovers(net, X) == []


def test_the_callers_inference_mode() -> None:
    net = net_of(torch.relu)
    expected = LRP()(net, X, 0)
    with torch.inference_mode():
        assert torch.equal(LRP()(net, X.clone(), 0), expected)


def test_tensors_are_freed_without_the_garbage_collector() -> None:
    def remembered() -> list[Tensor]:
        return [x for x in gc.get_objects() if type(x) is Tensor and hasattr(x, "_whybox_provenance")]

    net = net_of(torch.relu_)
    gc.collect()
    gc.disable()
    before = remembered()  # an exception that somebody else keeps holds the frames of a run that failed midway
    try:
        output, _, engine = under_engine(net, X, "epsilon_plus_flat", 1e-6)
        seen = weakref.ref(engine)
        del engine, output
        assert seen() is None
        assert not [x for x in remembered() if not any(x is y for y in before)]
    finally:
        gc.enable()
