"""Generic attention: attention weighted by gradients, layer upon layer."""

from dataclasses import dataclass

from torch import Tensor

from whybox.attribution.attention.maps import attention_maps, laid_out
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs


@dataclass(frozen=True)
class GenericAttention(Method):
    """Relevance R = r · ((I + Ā_L) ⋯ (I + Ā_1) − I), Ā = mean over heads of (∂f/∂A ⊙ A)⁺: attention that speaks for f.

    R ← R + Ā R from layer to layer, which starts at the identity; r holds the tokens that the score reads, in equal
    shares: the class token, the last one of a language model, or all that are averaged. What such a token has of
    itself from the start, the identity, is taken off. Non-negative. One value a token: (n, t, 1) for embeddings
    (at='…'), (n, 1, h, w) for the patches of a picture, without the class token. `details` have all `tokens`, and
    the shares at which they are `read`.
    Cost: one forward and one backward pass; attention is computed unfused.
    Limits: blind to evidence against; the positive parts are not homogeneous in f, so amounts of different models or
    targets do not compare; covers stacks of self-attention over the same tokens; the rules for encoder and decoder and
    for two modalities are not there, and windows, pooling by attention and attention that cannot be seen are refused.
    Source: Chefer, Gur & Wolf 2021, arXiv 2103.15679.
    """

    taxonomy = Taxonomy(shows="regions", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Attribution:
        def explain(inputs: Inputs, sample: Tensor) -> tuple[Tensor, Tensor]:
            maps = attention_maps(task, inputs, sample)
            relevance = maps.read
            for layer in reversed(maps.layers):
                weighted = (layer.gradient * layer.probabilities).clamp_min(0).mean(1)
                relevance = relevance + (relevance[:, None] @ weighted)[:, 0]
            return relevance - maps.read, maps.read

        tokens, read = task.map(explain, task.inputs, gradient=True)
        return Attribution(laid_out(tokens, task), details={"tokens": tokens, "read": read})
