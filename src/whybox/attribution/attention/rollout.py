"""Attention rollout."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from whybox.attribution.attention.maps import Layer, attention_maps, laid_out
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs

Heads = Literal["mean", "max", "min"]


@dataclass(frozen=True)
class AttentionRollout(Method):
    """Relevance R = r · Ā_L ⋯ Ā_1, Ā = ½ A + ½ I: from which tokens the ones that are read have taken what they hold.

    A is a layer's attention over its heads, ½ I stands for the residual connection, rows sum to 1, and r holds the
    tokens that the score reads, in equal shares: the class token, the last one of a language model, or all that are
    averaged. Non-negative; R sums to 1 over all tokens. One value a token: (n, t, 1) for embeddings (at='…'),
    (n, 1, h, w) for the patches of a picture, without the class token. `details` have all `tokens`, and the shares
    at which they are `read`.
    Cost: one forward and one backward pass, which shows what is read; attention is computed unfused.
    Limits: the same for every class, since neither the values nor what is made of them count; heads are taken to matter
    alike; covers stacks of self-attention over the same tokens; windows, cross-attention, pooling by attention and
    attention that cannot be seen are refused.
    Source: Abnar & Zuidema 2020, arXiv 2005.00928.

    Args:
        heads: how the heads become one: their "mean", "max" or "min".
    """

    heads: Heads = "mean"

    taxonomy = Taxonomy(shows="regions", needs="architecture", relation="composition")

    def __post_init__(self) -> None:
        check_heads(self.heads)

    def attribute(self, task: Task) -> Attribution:
        def explain(inputs: Inputs, sample: Tensor) -> tuple[Tensor, Tensor]:
            maps = attention_maps(task, inputs, sample)
            relevance = maps.read
            for layer in reversed(maps.layers):
                relevance = (relevance + (relevance[:, None] @ joined(layer, self.heads))[:, 0]) / 2
            return relevance, maps.read

        tokens, read = task.map(explain, task.inputs, gradient=True)
        return Attribution(laid_out(tokens, task), details={"tokens": tokens, "read": read})


def check_heads(heads: str) -> None:
    """Raise InputError unless it is a known way to make one map of several heads."""
    if heads not in ("mean", "max", "min"):
        raise InputError(f"heads is 'mean', 'max' or 'min', not {heads!r}")


def joined(layer: Layer, heads: Heads) -> Tensor:
    """One map (n, tokens, tokens) of all heads, whose rows sum to 1 (or to 0 where a token looks nowhere)."""
    probabilities = layer.probabilities
    if heads == "mean":
        return probabilities.mean(1)
    one = probabilities.amax(1) if heads == "max" else probabilities.amin(1)
    total = one.sum(-1, keepdim=True)
    return one / total.where(total > 0, 1)
