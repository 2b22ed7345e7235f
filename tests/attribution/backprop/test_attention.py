"""Attention: against input × gradient of surrogates whose products are halved and whose denominators are detached."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_runs import Net, input_times_gradient, under_engine
from torch import Tensor, nn

from whybox import LRP
from whybox.attribution.backprop.composites import default
from whybox.core.errors import ModelError

B, H, L, S, D = 2, 4, 5, 5, 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, wanted: Tensor, limit: float = 1e-12) -> None:
    assert float((found - wanted).abs().max()) <= limit * float(wanted.abs().max())


# --- The surrogates


def half(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """A product each of whose factors has half of its gradient, unless the other one is a constant."""
    if not (a.requires_grad and b.requires_grad):
        return product(a, b)
    return (product(a, b.detach()) + product(a.detach(), b)) / 2


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q kᵀ · scale + mask) v, written down."""
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = half(lambda a, b: a @ b.mT, q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        hidden = ~attn_mask.expand_as(scores)
        weights = torch.where(hidden, 0, scores.masked_fill(hidden, -1e300).softmax(-1))  # a row may be all masked
    else:
        weights = (scores if attn_mask is None else scores + attn_mask).softmax(-1)
    return half(torch.matmul, weights, v)


def layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    below = (x.var(-1, keepdim=True, correction=0) + eps).sqrt().detach()
    scaled = (x - x.mean(-1, keepdim=True)) / below * (1 if weight is None else weight)
    return scaled if bias is None else scaled + bias


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    return x * (GELU(x, approximate=approximate) / x).detach()


GELU = F.gelu


@contextmanager
def surrogate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's own modules with the surrogates' products, norms and activations in them."""
    bmm = torch.bmm
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attention)
        patch.setattr(F, "layer_norm", layer_norm)
        patch.setattr(F, "gelu", gelu)
        patch.setattr(torch, "bmm", lambda a, b: half(bmm, a, b))
        patch.setattr(torch, "baddbmm", lambda mask, a, b: mask + half(bmm, a, b))
        yield


# --- Scaled dot-product attention


class Attends(nn.Module):
    """Queries, keys and values from the input (or constants), attention, and a layer behind it."""

    def __init__(
        self, attend: Callable[..., Tensor], options: dict[str, Any], constants: str = "", kv_heads: int = H
    ) -> None:
        super().__init__()
        self.attend, self.constants = attend, constants
        self.padded, self.options = options.get("attn_mask") is PADDING, dict(options)
        self.heads = dict(zip("qkv", (H, kv_heads, kv_heads), strict=True))
        for seed, (name, heads) in enumerate(self.heads.items()):
            layer = nn.Linear(D, heads * D, dtype=torch.float64)
            layer.weight.data, layer.bias.data = draw(heads * D, D, seed=seed), draw(heads * D, seed=seed + 9)
            setattr(self, name, layer)
        self.kept = nn.Buffer(draw(1, L, D, seed=20))
        self.out = nn.Parameter(draw(L * H * D, 2, seed=30), requires_grad=False)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        given = [
            getattr(self, name)(self.kept.expand(len(x), -1, -1) if name in self.constants else x)
            .unflatten(-1, (heads, D))
            .transpose(1, 2)
            for name, heads in self.heads.items()
        ]
        if self.padded:
            self.options["attn_mask"] = (x[..., 0] != PAD)[:, None, None].expand(-1, -1, L, -1)
        return self.attend(*given, **self.options).transpose(1, 2).flatten(1) @ self.out


FLOAT = draw(L, S, seed=40)
PADDING, PAD = torch.zeros(0), 9.0  # each sample's keys whose first value is this are masked
EMPTY_ROW = torch.ones(L, S, dtype=torch.bool).index_fill(0, torch.tensor([2]), False)
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": FLOAT > -0.5},
    "padding": {"attn_mask": PADDING},
    "a row without keys": {"attn_mask": EMPTY_ROW},
    "float": {"attn_mask": FLOAT},
    "float for each head": {"attn_mask": draw(1, H, L, S, seed=41), "scale": 1.0},
    "minus infinity": {"attn_mask": FLOAT.masked_fill(FLOAT < -0.5, -torch.inf)},
}
X = draw(B, L, D, seed=50)
PADDED = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)
X[..., 0].masked_fill_(PADDED, PAD)


def check(options: dict[str, Any], exact: bool = True, **more: Any) -> None:
    """Values, maps, and the account of every operation, with masks as the surrogate has them."""
    net, written = Attends(F.scaled_dot_product_attention, options, **more), Attends(attention, options, **more)
    output, relevance, _ = under_engine(net, X)
    assert not exact or torch.equal(output, net(X))
    expected, wanted = input_times_gradient(written, X)
    close(output, expected)
    close(relevance, wanted)
    trace = LRP("epsilon", epsilon=0.0).trace(net, X, 1)
    assert float(torch.maximum(trace.gap.amax(1), trace.total_gap).max()) < 1e-12
    close(trace.relevance, LRP("attn_lrp", epsilon=0.0)(net, X, 1).sum((1, 2)), 1e-11)


@pytest.mark.parametrize("name", MASKS)
def test_every_mask_is_the_decomposition(name: str) -> None:
    check(MASKS[name])


@pytest.mark.parametrize("name", ["none", "causal", "float"])
def test_groups_of_queries_share_keys_and_values(name: str) -> None:
    check({"enable_gqa": True, **MASKS[name]}, kv_heads=2)


@pytest.mark.parametrize("constants", ["q", "k", "v", "qk", "qv", "kv"])
@pytest.mark.parametrize("name", ["none", "causal", "bool", "a row without keys", "minus infinity"])
def test_a_product_with_a_constant_is_a_dense_layer(constants: str, name: str) -> None:
    check(MASKS[name], exact=False, constants=constants)


def test_a_bias_that_depends_on_the_input_gets_its_part_of_the_scores() -> None:
    def with_bias(function: Callable[..., Tensor]) -> nn.Module:
        return Attends(
            lambda q, k, v: function(q, k, v, attn_mask=(q.mean(-1, keepdim=True) / 2).expand(-1, -1, -1, S)), {}
        )

    relevance = under_engine(with_bias(F.scaled_dot_product_attention), X)[1]
    close(relevance, input_times_gradient(with_bias(attention), X)[1])


def test_a_masked_key_gets_nothing() -> None:
    net = Attends(F.scaled_dot_product_attention, {"attn_mask": PADDING}, constants="q")
    for relevance in (under_engine(net, X)[1], LRP()(net, X, 0), LRP()(net.float(), X.float(), 0)):
        assert not relevance[PADDED].any()
        assert relevance[~PADDED].any(1).all()


def nodes(score: Tensor) -> set[str]:
    stack, seen = [score.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}


def test_the_fused_kernel_is_kept() -> None:
    found: set[str] = set()

    def target(output: Tensor) -> Tensor:
        found.update(nodes(output))
        return output.sum()

    under_engine(Attends(F.scaled_dot_product_attention, {"is_causal": True}), X, target=target)
    assert any("ScaledDotProduct" in name for name in found)
    assert not any("Softmax" in name for name in found)


# --- Multi-head attention


ATTN_MASK = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
PADS = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
MADE: dict[str, dict[str, Any]] = {
    "plain": {}, "no bias": {"bias": False}, "bias of keys and values": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True}, "both": {"add_zero_attn": True, "add_bias_kv": True},
    "other widths": {"kdim": 6, "vdim": 8},
}  # fmt: skip
ASKED: dict[str, dict[str, Any]] = {
    "plain": {}, "weights of each head": {"average_attn_weights": False}, "output alone": {"need_weights": False},
    "mask": {"attn_mask": ATTN_MASK}, "float mask": {"attn_mask": draw(4, 4, seed=60)},
    "mask for each head": {"attn_mask": draw(4, 4, 4, seed=61)},
    "padding": {"key_padding_mask": PADS}, "float padding": {"key_padding_mask": draw(2, 4, seed=62)},
    "causal": {"attn_mask": torch.full((4, 4), -torch.inf).double().triu(1), "is_causal": True},
}  # fmt: skip


class MultiHead(nn.Module):
    """Self-attention, or attention of the input to what a layer makes of it."""

    def __init__(self, options: dict[str, Any], asked: dict[str, Any], batch_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.other = options.get("kdim"), options.get("vdim")
        self.inner = nn.MultiheadAttention(4, 2, batch_first=batch_first, dropout=0.1, **options)
        for part in (self.inner.in_proj_bias, self.inner.out_proj.bias, self.inner.bias_k, self.inner.bias_v):
            if part is not None:
                nn.init.normal_(part)
        self.out, self.asked = nn.Linear(4, 2), asked

    def forward(self, x: Tensor) -> Tensor:
        key, value = (x if width is None else x.repeat_interleave(2, -1)[..., :width] for width in self.other)
        output, weights = self.inner(x, key, value, **self.asked)
        scores = self.out(output).sum(-2 if self.inner.batch_first else 0)
        return scores if weights is None else scores + weights.sum(tuple(range(1, weights.ndim - 1)))[..., :2]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("made", MADE)
def test_multi_head_attention(made: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = MultiHead(MADE[made], ASKED[asked]).double().eval(), draw(2, 4, 4)
    output, relevance, _ = under_engine(net, x)
    torch.testing.assert_close(output, net(x), rtol=1e-12, atol=1e-12)
    with surrogate(monkeypatch):
        close(relevance, input_times_gradient(net, x)[1], 1e-11)
    single = {
        name: y.float() if isinstance(y, Tensor) and y.is_floating_point() else y for name, y in net.asked.items()
    }
    net.asked, x = single, x.float()
    plain = net.float()(x).detach()
    torch.testing.assert_close(under_engine(net, x)[0], plain, rtol=0, atol=4e-7 * float(plain.abs().max()))


@pytest.mark.parametrize("weights", [False, True])
def test_multi_head_attention_without_a_batch_axis_or_with_it_second(weights: bool) -> None:
    inner = MultiHead({}, {"need_weights": weights}, batch_first=False).double().eval()
    x = draw(3, 4, 4)
    wanted = under_engine(MultiHead({}, {"need_weights": weights}).double().eval(), x)[1]
    second = Net(lambda net, x: net.inner(x.transpose(0, 1)), inner=inner)
    close(under_engine(second, x)[1], wanted)
    alone = Net(lambda net, x: torch.stack([net.inner(row) for row in x]), inner=inner)
    if not weights:
        close(under_engine(alone, x)[1], wanted)


def test_a_query_whose_keys_are_all_masked_is_nan_where_the_model_has_it_so() -> None:
    inner, x = nn.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64).eval(), draw(2, 4, 4)

    def run(weights: bool) -> nn.Module:
        pads = torch.ones(1, 4, dtype=torch.bool)
        return Net(
            lambda n, x: n.a(x, x, x, pads.expand(len(x), -1) & (x[:, :1, 0] > 0), need_weights=weights)[0][:, 0],
            a=inner,
        )

    x[0, 0, 0], x[1, 0, 0] = 1.0, -1.0
    assert run(True)(x)[0].isnan().all()
    with pytest.raises(ModelError, match=r"NaN or infinite at the operation torch\.Tensor\.softmax in module 'a'"):
        LRP("attn_lrp")(run(True), x, 0)
    assert bool((LRP("attn_lrp")(run(False), x, 0)[1] != 0).any())
    close(LRP("attn_lrp")(run(True), x[1:], 0), LRP("attn_lrp")(run(False), x[1:], 0))


def test_static_keys_and_values() -> None:
    torch.manual_seed(0)
    inner = nn.MultiheadAttention(4, 2, dtype=torch.float64).eval()
    kept = draw(2 * 2, 5, 2), draw(2 * 2, 5, 2, seed=1)

    def run(net: nn.Module, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        options = {"static_k": kept[0], "static_v": kept[1], "training": False, "need_weights": False}
        part = net.inner
        weights = part.in_proj_weight, part.in_proj_bias, None, None, False, 0.0, part.out_proj.weight, None
        return F.multi_head_attention_forward(x, x, x, 4, 2, *weights, **options)[0].transpose(0, 1)

    net, x = Net(run, inner=inner), draw(2, 4, 4)
    output, relevance, _ = under_engine(net, x)
    torch.testing.assert_close(output, net(x), rtol=1e-12, atol=1e-12)
    close(relevance, input_times_gradient(net, x)[1])  # softmax between two dense layers: nothing is halved


# --- Encoders


ENCODERS: dict[str, dict[str, Any]] = {
    "plain": {"activation": "relu"}, "gelu": {"activation": "gelu"}, "norm first": {"norm_first": True},
    "no bias": {"bias": False},
}  # fmt: skip


class Encodes(nn.Module):
    """An encoder of two layers, and a layer on all positions."""

    def __init__(
        self, options: dict[str, Any], fast: bool = True, mask: Tensor | None = None, pads: Any = None
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options)
        self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=fast and set(options) <= {"activation"})
        self.out, self.mask, self.pads = nn.Linear(16, 2), mask, pads
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        encoded = self.inner(x, self.mask, self.pads)
        if self.pads is not None:  # torch's fast path gives zeros there, its slow path does not
            encoded = encoded.masked_fill(self.pads[..., None], 0)
        return self.out(encoded.flatten(1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("masks", ["none", "padding", "causal"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_with_and_without_the_fast_path(name: str, masks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {
        "none": {}, "padding": {"pads": PADS}, "causal": {"mask": nn.Transformer.generate_square_subsequent_mask(4)}
    }[masks]  # fmt: skip
    x = draw(2, 4, 4)
    fast = Encodes(ENCODERS[name], **given).eval()
    with torch.no_grad():
        plain = fast(x.float())
    torch.testing.assert_close(under_engine(fast, x.float())[0], plain, rtol=0, atol=4e-7 * float(plain.abs().max()))
    given = {key: y.double() if y.is_floating_point() else y for key, y in given.items()}
    slow = Encodes(ENCODERS[name], fast=False, **given).double().eval()
    relevance = under_engine(slow, x)[1]
    close(under_engine(Encodes(ENCODERS[name], **given).double().eval(), x)[1], relevance)
    with surrogate(monkeypatch):
        written = Encodes(ENCODERS[name], fast=False, **given).double().eval()
        close(relevance, input_times_gradient(written, x)[1], 1e-11)
    if masks == "none":
        trace = LRP("attn_lrp").trace(slow, x, 1)
        assert float(torch.maximum(trace.gap.amax(1), trace.total_gap).max()) < 1e-9


def test_what_runs_the_fast_path_by_itself_is_refused_by_name() -> None:
    part = nn.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64).eval()
    weights = part.in_proj_weight, part.in_proj_bias, part.out_proj.weight, part.out_proj.bias

    def run(net: nn.Module, x: Tensor) -> Tensor:
        return torch._native_multi_head_attention(x, x, x, 4, 2, *(w.detach() for w in weights))[0]

    with pytest.raises(ModelError, match=r"operation torch\._native_multi_head_attention"):
        under_engine(Net(run), draw(2, 4, 4))


# --- The default composite


def layers(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts)


class WindowAttention(nn.Linear):
    """A layer that its name tells."""


DEFAULTS: list[tuple[nn.Module, str]] = [
    (layers(nn.Linear(2, 2)), "epsilon_plus_flat"),
    (layers(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)), "epsilon_plus_flat"),
    (layers(nn.Conv2d(1, 2, 3), nn.TransformerEncoderLayer(4, 2)), "attn_lrp"),
    (layers(nn.Conv2d(1, 2, 4, 4), WindowAttention(4, 4), WindowAttention(4, 4)), "attn_lrp"),
    (layers(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), WindowAttention(4, 4)), "epsilon_plus_flat"),
    (layers(nn.Conv1d(1, 2, 3), nn.LSTM(2, 2)), "epsilon"),
    (layers(nn.GRUCell(2, 2), nn.MultiheadAttention(4, 2)), "epsilon"),
]


@pytest.mark.parametrize(("net", "composite"), DEFAULTS)
def test_the_default_composite(net: nn.Module, composite: str) -> None:
    assert default(net) == composite


def test_the_default_composite_is_named_in_the_details_and_used() -> None:
    net, x = Encodes({}).eval(), draw(2, 4, 4).float()
    run = LRP().run(net, x, 1)
    assert run.details["composite"] == "attn_lrp"
    assert torch.equal(run.relevance, LRP("attn_lrp")(net, x, 1))
    assert "composite" not in LRP("attn_lrp").run(net, x, 1).details
    assert {step.rule for step in LRP().trace(net, x, 1).steps if step.kind == "dense"} == {"epsilon"}
