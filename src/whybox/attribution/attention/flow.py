"""Attention flow."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from whybox.attribution.attention.maps import attention_maps, laid_out
from whybox.attribution.attention.rollout import Heads, check_heads, joined
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs

# scipy counts capacities in 32-bit integers; what leaves the source is at most 1.
UNIT = 2**30


@dataclass(frozen=True)
class AttentionFlow(Method):
    """Relevance R_j = maximum flow from the tokens that are read to token j through Ā_L, …, Ā_1, Ā = ½ A + ½ I.

    A token of one layer is joined to each of the layer before by a pipe as wide as it attends to it (½ I stands for the
    residual connection); the source is joined to the tokens that the score reads, in equal shares of 1: the class
    token, the last one of a language model, or all that are averaged. Each token has a flow of its own, so they do not
    sum to 1; none exceeds it. Shapes as of AttentionRollout. `details` have all `tokens`, and the shares `read`.
    Cost: one forward and one backward pass, and for each token a maximum flow through layers × tokens nodes on the CPU.
    Limits: grows with the third power of the tokens: a second for 50, half a minute for the 197 of a ViT-B; the same
    for every class; exact to 2⁻³⁰ an edge; covers what AttentionRollout covers.
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
            layers = torch.stack([joined(layer, self.heads) for layer in maps.layers], 1)
            own = torch.eye(layers.shape[-1]).to(layers)
            graphs = (layers + own).div(2).double().cpu().numpy()
            pairs = zip(graphs, maps.read.double().cpu().numpy(), strict=True)
            flows = np.stack([flow(graph, read) for graph, read in pairs])
            return torch.as_tensor(flows).to(maps.read), maps.read

        tokens, read = task.map(explain, task.inputs, gradient=True)
        return Attribution(laid_out(tokens, task), details={"tokens": tokens, "read": read})


def flow(layers: np.ndarray, read: np.ndarray) -> np.ndarray:
    """The maximum flow to each token: from the source through `read` (tokens,) and `layers` (layers, tokens, tokens).

    `layers[l, i, j]` is the width of the pipe from token i behind layer l to token j before it.
    """
    depth, count, _ = layers.shape
    source, sinks = depth * count, depth * count + 1 + np.arange(count)
    graph = _network(layers, read)
    return np.array([maximum_flow(graph, source, sink).flow_value for sink in sinks]) / UNIT


def _network(layers: np.ndarray, read: np.ndarray) -> csr_array:
    """All pipes. Token i behind layer l is node l · tokens + i, then come the source and the tokens of the input."""
    depth, count, _ = layers.shape
    number, i, j = np.nonzero(layers > 0)
    before = np.where(number > 0, (number - 1) * count + j, depth * count + 1 + j)
    first = np.flatnonzero(read)
    start = np.concatenate([number * count + i, np.full_like(first, depth * count)])
    end = np.concatenate([before, (depth - 1) * count + first])
    width = np.rint(np.concatenate([layers[number, i, j], read[first]]) * UNIT).astype(np.int32)
    size = (depth + 1) * count + 1
    return csr_array((width, (start, end)), shape=(size, size))
