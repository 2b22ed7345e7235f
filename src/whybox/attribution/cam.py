"""Class activation maps: where in a late layer's feature maps the evidence for a class lies."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whybox.attribution.last_layer import averaged_layer, last_spatial_layer, positions_of
from whybox.core.errors import ModelError
from whybox.core.layout import to_grid
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import as_tuple


@dataclass(frozen=True)
class CAM(Method):
    """Relevance R(y, x) = Σ_k w_k A_k(y, x): the last feature maps A, weighted as the score weights their averages.

    For nets that end in global average pooling and at most one linear layer, whose row w for the class is the
    gradient of the score with respect to the averages. Signed; upsampled to the input, shape (n, 1, h, w); before
    upsampling the mean of R over the positions is the score without the last layer's bias.
    Cost: one forward and one backward pass, and a forward pass of one sample to find the pooling.
    Limits: refuses any other architecture (GradCAM is the generalisation); as coarse as the feature maps.
    Source: Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, arXiv 1512.04150.
    """

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Attribution:
        layer = averaged_layer(task)
        ((activation, gradient),) = task.activations_and_gradients((layer,), task.inputs)
        weights = gradient.flatten(2).sum(2)  # the average's gradient stands at every position, divided by their number
        return _upsampled(torch.einsum("nk...,nk->n...", activation, weights)[:, None], task, (layer,))


@dataclass(frozen=True)
class GradCAM(Method):
    """Relevance R = ReLU(Σ_k α_k A_k), α_k = mean over positions of ∂f/∂A_k: a layer's maps, weighted by gradients.

    Non-negative; upsampled to the input, shape (n, 1, h, w). Token models (ViT, Swin) are laid out as maps first.
    Of several layers, each map is divided by its own maximum, so that all count alike, and the mean is taken.
    Cost: one forward and one backward pass; one more of a single sample where the layer is to be found.
    Limits: as coarse as the layer; averaging the gradients mixes up positions; blind to evidence against.
    Source: Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra 2017, arXiv 1610.02391.

    Args:
        layer: the dotted name of a layer, or several; None for the last one with positions that all of the
            evidence passes through.
    """

    layer: str | tuple[str, ...] | None = None

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Attribution:
        layers = self.layer or last_spatial_layer(task)
        layers = (layers,) if isinstance(layers, str) else layers
        positions = positions_of(task)
        maps = []
        pairs = task.activations_and_gradients(layers, task.inputs)
        for name, (activation, gradient) in zip(layers, pairs, strict=True):
            grid, slope = to_grid(activation, positions), to_grid(gradient, positions)
            if grid is None or slope is None:
                raise ModelError(
                    f"layer {name!r} gives {tuple(activation.shape[1:])} a sample, which has no positions in an input "
                    f"of {tuple(positions)}; choose another: `whybox layers MODEL` lists them with their shapes"
                )
            weights = slope.flatten(2).mean(2)
            maps.append(torch.einsum("nk...,nk->n...", grid, weights)[:, None].relu())
        if len(maps) == 1:
            return _upsampled(maps[0], task, layers)
        answers = [as_tuple(_upsampled(map, task, layers).relevance)[0] for map in maps]
        largest = [r.flatten(1).amax(1).clamp_min(torch.finfo(r.dtype).tiny) for r in answers]
        scaled = [r / most.view(-1, *(1,) * (r.ndim - 1)) for r, most in zip(answers, largest, strict=True)]
        return Attribution(torch.stack(scaled).mean(0), details={"layers": layers})


def _upsampled(map: Tensor, task: Task, layers: tuple[str, ...]) -> Attribution:
    """The map (n, 1, *grid) at the input's size, linearly interpolated."""
    positions = positions_of(task)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(positions)]
    return Attribution(F.interpolate(map, size=positions, mode=mode, align_corners=False), details={"layers": layers})
