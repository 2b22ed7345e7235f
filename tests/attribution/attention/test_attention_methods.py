"""Rollout, flow and generic attention: literal loops, brute force, planted evidence, however attention is written."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whybox
from whybox import AttentionFlow, AttentionRollout, GenericAttention, InputXGradient, Model, SmoothGrad
from whybox.attribution.attention.flow import flow
from whybox.core.errors import InputError, ModelError

METHODS = [AttentionRollout(), AttentionRollout("max"), AttentionRollout("min"), AttentionFlow(), GenericAttention()]
WAYS = ["matmul", "bmm", "einsum", "fused", "grouped", "multi_head", "torch_nn"]
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Block(nn.Module):
    """Self-attention of two heads with a residual connection, in one of the ways in which people write it."""

    def __init__(self, way, dim, causal):
        super().__init__()
        self.way, self.causal = way, causal
        self.inner = nn.MultiheadAttention(dim, 2, batch_first=True)
        nn.init.normal_(self.inner.in_proj_weight)
        nn.init.normal_(self.inner.in_proj_bias)
        self.kept = None

    def forward(self, x, padding=None):
        n, t, d = x.shape
        future = torch.ones(t, t, dtype=torch.bool).triu(1) if self.causal else torch.zeros(t, t, dtype=torch.bool)
        hidden = future if padding is None else future | padding[:, None, None]
        if self.way == "torch_nn":
            return x + self.inner(x, x, x, padding, False, future)[0]
        if self.way == "multi_head":
            return x + self.inner(x, x, x, padding, attn_mask=future)[0]
        qkv = F.linear(x, self.inner.in_proj_weight, self.inner.in_proj_bias)
        q, k, v = qkv.view(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        if self.way == "grouped":
            return x + self.out(F.scaled_dot_product_attention(q, k, v, ~hidden, enable_gqa=True))
        if self.way == "fused":
            causal = self.causal and padding is None
            mask = None if causal else torch.zeros(n, 2, t, t).to(x).masked_fill(hidden, -torch.inf)
            return x + self.out(F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal))
        scores = (q @ k.transpose(-2, -1) / (d // 2) ** 0.5).masked_fill(hidden, -torch.inf)
        probabilities = F.dropout(scores.softmax(-1), 0.5, self.training)
        if self.way == "literal":
            self.kept = probabilities
            self.kept.retain_grad()
        if self.way == "bmm":
            return x + self.out(torch.bmm(probabilities.view(-1, t, t), v.reshape(-1, t, d // 2)).view(v.shape))
        if self.way == "einsum":
            return x + self.out(torch.einsum("bhqk,bhkd->bhqd", probabilities, v))
        return x + self.out(torch.matmul(probabilities, v))

    def out(self, y):
        return self.inner.out_proj(y.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """Blocks over (n, t, d), and a linear head on the first token, the last, or the mean of those not padded."""

    def __init__(self, way="matmul", reads="first", depth=3, dim=4, classes=3):
        super().__init__()
        torch.manual_seed(5)
        self.blocks = nn.ModuleList(Block(way, dim, causal=reads == "last") for _ in range(depth))
        self.head = nn.Linear(dim, classes)
        self.reads = reads
        self.eval()

    def forward(self, x, padding=None):
        for block in self.blocks:
            x = block(x, padding)
        if self.reads == "mean" and padding is not None:
            x = x.masked_fill(padding[..., None], 0).sum(1) / (~padding).sum(1, keepdim=True)
        else:
            x = {"first": x[:, 0], "last": x[:, -1], "mean": x.mean(1)}[self.reads]
        return self.head(x)


def kept(net, x, target, **given):
    """The probabilities of each layer and the gradients of the score with respect to them, as numpy arrays."""
    net(x.clone().requires_grad_(), **given)[:, target].sum().backward()
    arrays = [(b.kept.detach().numpy(), b.kept.grad.numpy()) for b in net.blocks]
    net.zero_grad()
    return [a for a, _ in arrays], [g for _, g in arrays]


def shares(net, count, padding=None):
    """The tokens that the score reads."""
    read = {"first": np.eye(count)[0], "last": np.eye(count)[-1], "mean": np.full(count, 1 / count)}[net.reads]
    return read if padding is None else np.where(padding, 0, 1 / (~padding).sum())


def literal_rollout(attention, read, heads="mean"):
    """Token by token, from the input on."""
    count = attention[0].shape[-1]
    rolled = np.eye(count)
    for a in attention:
        new = np.zeros((count, count))
        for i in range(count):
            row = [getattr(np, heads)([head[i, j] for head in a]) for j in range(count)]
            for j in range(count):
                for k in range(count):
                    new[i, j] += (0.5 * row[k] / sum(row) + 0.5 * (i == k)) * rolled[k, j]
        rolled = new
    return read @ rolled


def literal_generic(attention, gradients, read):
    """The rule of the paper, R ← R + Ā R, and the identity taken off."""
    count = attention[0].shape[-1]
    r = np.eye(count)
    for a, g in zip(attention, gradients, strict=True):
        weighted = np.zeros((count, count))
        for i, j, h in itertools.product(range(count), range(count), range(len(a))):
            weighted[i, j] += max(g[h, i, j] * a[h, i, j], 0) / len(a)
        r = r + weighted @ r
    return read @ (r - np.eye(count))


def minimum_cut(layers, read, sink):
    """The maximum flow by brute force: the cheapest of all cuts between the source and one token of the input."""
    depth, count, _ = layers.shape
    best = np.inf
    others = [(depth, j) for j in range(count) if j != sink]
    inner = [(level, i) for level in range(depth) for i in range(count)]
    for bits in itertools.product((False, True), repeat=len(inner)):
        side = dict(zip(inner, bits, strict=True)) | {(depth, sink): False} | dict.fromkeys(others, True)
        cut = sum(read[i] for i in range(count) if not side[0, i])
        for level, i, j in itertools.product(range(depth), range(count), range(count)):
            if side[level, i] and not side[level + 1, j]:
                cut += layers[depth - 1 - level, i, j]
        best = min(best, cut)
    return best


def expected(method, net, x, target, padding=None):
    """What the method must answer, sample by sample, by the literal references."""
    given = {} if padding is None else {"padding": padding}
    attention, gradients = kept(net, x, target, **given)
    rows = []
    for s in range(len(x)):
        a, g = [layer[s] for layer in attention], [layer[s] for layer in gradients]
        read = shares(net, x.shape[1], None if padding is None else padding[s].numpy())
        if isinstance(method, AttentionRollout):
            rows.append(literal_rollout(a, read, method.heads))
        elif isinstance(method, GenericAttention):
            rows.append(literal_generic(a, g, read))
        else:
            layers = np.stack([0.5 * layer.mean(0) + 0.5 * np.eye(x.shape[1]) for layer in a])
            rows.append([minimum_cut(layers, read, j) for j in range(x.shape[1])])
    return torch.as_tensor(np.stack(rows))[:, :, None]


# Against literal loops.


@pytest.mark.parametrize("reads", ["first", "last", "mean"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_literal_loops(method, reads):
    x = torch.randn(2, 4, 4, dtype=torch.float64)
    cuts = isinstance(method, AttentionFlow)  # of which there are 256 in two layers
    literal, net = (Encoder(way, reads, depth=2 if cuts else 3).double() for way in ("literal", "matmul"))
    wanted = expected(method, literal, x, 1)
    torch.testing.assert_close(method(net, x, 1), wanted, **({"rtol": 0, "atol": 1e-7} if cuts else CLOSE))
    assert float(wanted.max()) > 0.05


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reads", ["first", "last", "mean"])
@pytest.mark.parametrize("method", [AttentionRollout(), GenericAttention()], ids=repr)
def test_every_way_of_writing_it(method, reads, way):
    """Five tokens, two of the second sample's padded but where the class token alone is read."""
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if reads == "mean" else None
    wanted = expected(method, Encoder("literal", reads).double(), x, 2, padding)
    net = Encoder(way, reads).double()
    given = {} if padding is None else {"forward_kwargs": {"padding": padding}}
    torch.testing.assert_close(method(net, x, 2, **given), wanted, **CLOSE)
    if padding is not None:
        assert not wanted[1, 3:].any()


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("way", ["matmul", "fused", "torch_nn"])
def test_a_frozen_model_on_token_numbers(method, way):
    """Nothing that comes before the embedding has a gradient, and no weight has one."""
    net = nn.Sequential(nn.Embedding(9, 4), Encoder(way)).double()
    tokens = torch.tensor([[1, 5, 2, 8], [3, 3, 0, 7]])
    wanted = method(net, tokens, 0, at="0")
    assert wanted.shape == (2, 4, 1)
    net.requires_grad_(False)
    torch.testing.assert_close(method(net, tokens, 0, at="0"), wanted, **CLOSE)
    torch.testing.assert_close(method(net[1], net[0](tokens).detach(), 0), wanted, **CLOSE)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_encoder_of_torch(layers):
    """Its fast path hides the attention; nothing is changed by going round it."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
    net = nn.Sequential(nn.TransformerEncoder(layer, layers), nn.Flatten(), nn.Linear(40, 2)).eval()
    x = torch.randn(3, 5, 8)
    kept = []
    h = x
    for part in net[0].layers:
        kept.append(part.self_attn(h, h, h)[1])
        h = part(h)
    mixed = [a / 2 + torch.eye(5) / 2 for a in kept]
    rolled = mixed[0] if layers == 1 else mixed[1] @ mixed[0]
    answer = AttentionRollout().run(net, x, 0)
    torch.testing.assert_close(answer.relevance[..., 0], rolled.mean(1).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(answer.details["read"], torch.full((3, 5), 0.2))


# Properties.


def test_rollout_sums_to_one_and_flow_stays_below():
    x = torch.randn(3, 6, 4)
    torch.testing.assert_close(AttentionRollout()(Encoder(), x, 0).sum((1, 2)), torch.ones(3))
    flows = AttentionFlow()(Encoder(), x, 0)
    assert float(flows.max()) <= 1
    assert bool((flows >= AttentionRollout()(Encoder(), x, 0) - 1e-6).all()), "rollout is one way to fill the pipes"


@pytest.mark.parametrize("depth", [1, 2])
def test_flow_against_every_cut(depth):
    rng = np.random.default_rng(depth)
    layers = rng.random((depth, 3, 3)) * (rng.random((depth, 3, 3)) < 0.7)
    read = np.array([0.5, 0.0, 0.5])
    wanted = [minimum_cut(layers, read, sink) for sink in range(3)]
    np.testing.assert_allclose(flow(layers, read), wanted, atol=1e-7)


def test_the_target_matters_to_the_gradient_alone():
    x, net = torch.randn(2, 5, 4), Encoder()
    assert torch.equal(AttentionRollout()(net, x, 0), AttentionRollout()(net, x, 1))
    assert not torch.allclose(GenericAttention()(net, x, 0), GenericAttention()(net, x, 1))


def test_a_later_token_says_nothing_to_an_earlier_one():
    """Of a causal model the prediction at the third token; those behind it get nothing."""
    net = Encoder(reads="last")
    net.reads = "all"
    net.forward = lambda x: net.head(net.blocks[2](net.blocks[1](net.blocks[0](x))))
    x = torch.randn(1, 5, 4)
    for method in METHODS:
        answer = method.run(net, x, lambda out: out[:, 2, 0])
        assert answer.details["read"].tolist() == [[0, 0, 1, 0, 0]]
        assert not answer.relevance[:, 3:].any()
        assert bool((answer.relevance[:, :2] > 0).any())


@pytest.mark.parametrize("method", [*METHODS, SmoothGrad(of=GenericAttention(), samples=3)], ids=repr)
def test_chunks_and_batches_do_not_matter(method):
    net, x = Encoder("fused").double(), torch.randn(5, 4, 4, dtype=torch.float64)
    whole = method(Model(net, chunk=64), x, 1)
    torch.testing.assert_close(method(Model(net, chunk=2), x, 1), whole, **CLOSE)
    torch.testing.assert_close(method(net, x[:1], 1), whole[:1], **CLOSE)


# Planted evidence.


class Planted(nn.Module):
    """A class token looks for the token marked in its second feature, and the score is the third one's there."""

    def __init__(self, looks=True):
        super().__init__()
        self.looks = looks

    def forward(self, x):
        x = torch.cat([torch.tensor([1.0, 0, 0, 0]).expand(len(x), 1, 4), x], 1)
        scores = 20 * self.looks * x[:, :, :1] * x[:, None, :, 1]
        x = x + scores.softmax(-1) @ (x * torch.tensor([0.0, 0, 1, 0]))
        return torch.stack([x[:, 0, 2], -x[:, 0, 2]], 1)


def planted(n=24, t=9):
    x = torch.rand(n, t, 4) * torch.tensor([0.0, 0.0, 1.0, 1.0])
    where = torch.arange(n) % t
    x[torch.arange(n), where, 1] = 1
    return x, where


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_attention_finds_the_token_that_it_was_made_to_look_at(method):
    x, where = planted()
    relevance = method(Planted(), x, 0)[..., 0]
    assert torch.equal(relevance.argmax(1), where)
    share = relevance.gather(1, where[:, None])[:, 0] / relevance.sum(1)
    assert float(share.min()) > 0.9
    if not isinstance(method, GenericAttention):
        blind = method(Planted(looks=False), x, 0)[..., 0]  # the control looks everywhere alike
        torch.testing.assert_close(blind, blind[:, :1].expand_as(blind))


def test_only_the_gradient_knows_which_class_the_token_speaks_for():
    x, where = planted()
    assert bool((GenericAttention()(Planted(), x, 0).gather(1, where[:, None, None]) > 0.1).any())
    assert not GenericAttention()(Planted(), x, 1).any(), "it speaks against the other class"


# Layouts.


class ViT(nn.Module):
    """Patches of 4 × 4 pixels, as many tokens before them as `prefix` says, one block, the first token's head."""

    def __init__(self, prefix=1):
        super().__init__()
        self.embed, self.inner = nn.Conv2d(3, 4, 4, 4), Encoder("fused", depth=2)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 4))

    def forward(self, x):
        patches = self.embed(x).flatten(2).mT
        return self.inner(torch.cat([self.prefix.expand(len(x), -1, -1), patches], 1))


@pytest.mark.parametrize("prefix", [1, 2, 5])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_pixel_has_the_value_of_its_patch(method, prefix):
    net, x = ViT(prefix), torch.randn(2, 3, 8, 12)
    answer = method.run(net, x, 0)
    assert answer.relevance.shape == (2, 1, 8, 12)
    tokens = answer.details["tokens"]
    assert tokens.shape == (2, prefix + 6)
    for row, column in itertools.product(range(8), range(12)):
        place = prefix + (row // 4) * 3 + column // 4
        assert torch.equal(answer.relevance[:, 0, row, column], tokens[:, place])


def test_a_layer_inside_and_a_series():
    net, x = ViT(), torch.randn(2, 3, 8, 8)
    whole = AttentionRollout().run(net, x, 0).details["tokens"]
    inside = AttentionRollout().run(net, x, 0, at="inner.blocks.0")
    assert inside.relevance.shape == (2, 5, 1)
    assert not torch.allclose(inside.details["tokens"], whole), "the layers before it do not count"

    class Series(nn.Module):
        def forward(self, x):
            return Encoder()(x.mT)

    assert AttentionRollout()(Series(), torch.randn(2, 4, 6), 0).shape == (2, 1, 6)


# Real architectures.


def test_the_attention_of_vits(torchvision, timm):
    """torchvision's by torch.nn, timm's fused and by hand; the probabilities as torch itself gives them."""
    net = torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=3).eval()
    nn.init.normal_(net.heads.head.weight)
    x, seen = torch.randn(2, 3, 16, 16), []

    def look(part, given):
        seen.append(nn.MultiheadAttention.forward(part, *given)[1])

    hooks = [layer.self_attention.register_forward_pre_hook(look) for layer in net.encoder.layers]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    rolled = (seen[1] + torch.eye(5)) @ (seen[0] + torch.eye(5)) / 4
    answer = AttentionRollout()(net, x, 0)
    torch.testing.assert_close(answer[:, 0, ::8, ::8].flatten(1), rolled[:, 0, 1:], rtol=1e-4, atol=1e-6)
    assert bool(GenericAttention()(net, x, 0).any())

    fused = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3, dynamic_img_size=False)
    fused = fused.double().eval()
    nn.init.normal_(fused.head.weight)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    answers = [method(fused, x, 0) for method in METHODS]
    assert all(block.attn.fused_attn for block in fused.blocks)
    for block in fused.blocks:
        block.attn.fused_attn = False
    for method, answer in zip(METHODS, answers, strict=True):
        torch.testing.assert_close(method(fused, x, 0), answer, rtol=1e-6, atol=1e-8)
        assert len(answer[0].unique()) > 1


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("heads", ["mean", "max"])
def test_transformers_own_probabilities(transformers, kind, heads):
    """`output_attentions=True` gives them; eager and fused attention answer alike."""
    tokens, padding = torch.tensor([[3, 7, 5, 2, 9], [4, 4, 8, 0, 0]]), torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    answers = []
    for how in ("eager", "sdpa"):
        net = tiny(transformers, kind, how)
        at = next(name for name, part in net.named_modules() if part is net.get_input_embeddings())
        last = padding.sum(1) - 1

        def target(out, last=last):
            return out[:, 0] if out.ndim == 2 else out[torch.arange(2), last, 1]

        given = {"at": at, "forward_kwargs": {"attention_mask": padding}}
        answers.append(AttentionRollout(heads).run(Model(net, chunk=2), tokens, target, **given))
        if how == "eager":
            with torch.no_grad():
                seen = net(tokens, attention_mask=padding, output_attentions=True).attentions
    for sample in range(2):
        read = np.eye(5)[0 if kind == "bert" else int(last[sample])]
        wanted = literal_rollout([a[sample].double().numpy() for a in seen], read, heads)
        np.testing.assert_allclose(answers[0].relevance[sample, :, 0], wanted, atol=1e-5)
    torch.testing.assert_close(answers[0].relevance, answers[1].relevance, rtol=1e-5, atol=1e-7)
    assert not answers[0].relevance[1, 3:].any(), "padding is not looked at"


def tiny(transformers, kind, how):
    torch.manual_seed(1)
    sizes = {
        "bert": (transformers.BertConfig, {"num_attention_heads": 2}),
        "gpt2": (transformers.GPT2Config, {"n_embd": 8, "n_layer": 2, "n_head": 2}),
        "llama": (transformers.LlamaConfig, {"num_attention_heads": 4, "num_key_value_heads": 2}),
    }
    config, fields = sizes[kind]
    fields |= {} if kind == "gpt2" else {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16}
    config = config(vocab_size=10, bos_token_id=1, eos_token_id=2, pad_token_id=0, **fields)
    cls = {"bert": "BertForSequenceClassification", "gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[kind]
    net = getattr(transformers, cls)._from_config(config, attn_implementation=how).eval()
    for name, weight in net.named_parameters():
        if weight.ndim > 1 and "embed" not in name:
            nn.init.normal_(weight, std=0.5)
    return net


# What is refused.


def looked(x):
    return (x @ x.mT).softmax(-1) @ x


class Written(nn.Module):
    """Any function of (n, t, d)."""

    def __init__(self, function):
        super().__init__()
        self.inner = nn.Identity()
        self.function = function

    def forward(self, x):
        return self.function(self.inner(x)).flatten(1)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x * 2, "found no attention in this model"),
        (lambda x: (x @ x.mT).softmax(1) @ x, "found no attention"),
        (lambda x: (x[:, :2] @ x.mT).softmax(-1) @ x, "lets 2 tokens look at 6 others"),
        (lambda x: looked(x)[:, :3] + looked(x[:, :3]), "has 3 tokens, the first one 6"),
        (lambda x: F.scaled_dot_product_attention(*[x.reshape(-1, 1, 3, 4)] * 3).view(x.shape), "as with windows"),
        (lambda x: F.scaled_dot_product_attention(*[x.view(-1, 2, 1, 3, 4)] * 3).view(x.shape), "as with windows"),
        (lambda x: torch.einsum("nqk,nqd->nkd", (x @ x.mT).softmax(-1), x), "not one over its last axis alone"),
        (lambda x: ((x @ x.mT).detach().softmax(-1) @ x).detach() + x * 2, "the score does not depend on"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_by_name(function, says):
    for method in (AttentionRollout(), GenericAttention(), AttentionFlow()):
        with pytest.raises(ModelError, match=says):
            method(Written(function), torch.randn(2, 6, 4), 0)


def test_windows_of_swin_and_wrong_layouts(torchvision):
    net = torchvision.models.SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=2).eval()
    with pytest.raises(ModelError, match=r"in module 'features.1.0.attn', of shape .*\(Swin\); choose another method"):
        AttentionRollout()(net, torch.randn(2, 3, 32, 32), 0)
    with pytest.raises(ModelError, match=r"attends to 6 tokens, which are no row and no grid .* at='…'"):
        AttentionRollout()(Written(lambda x: Encoder()(x[:, :, ::5].mT)), torch.randn(2, 4, 30), 0)
    with pytest.raises(InputError, match="attention explains a single input"):
        AttentionRollout()(nn.Bilinear(4, 4, 2), (torch.randn(1, 4), torch.randn(1, 4)), 0)
    for name in ("attention_rollout", "attention_flow"):
        with pytest.raises(InputError, match=r"'mean'.*'min', not 'sum'"):
            whybox.method(name, heads="sum")


def test_nothing_is_left_behind():
    """No mark on the model, no mode, no hook; another method answers as before."""
    net, x = Encoder("torch_nn"), torch.randn(2, 4, 4)
    before = InputXGradient()(net, x, 0)
    hooks = len(torch.nn.modules.module._global_forward_hooks)
    with pytest.raises(ModelError):
        AttentionRollout()(Written(lambda x: x), x, 0)
    GenericAttention()(net, x, 0)
    assert torch.equal(InputXGradient()(net, x, 0), before)
    assert len(torch.nn.modules.module._global_forward_hooks) == hooks
