"""Methods that are the gradient but for what a ReLU lets back through."""

from dataclasses import dataclass

from whybox.attribution.backprop.reversal import Reversal, reverse
from whybox.attribution.cam import GradCAM
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """Relevance R = gradient with c ↦ ReLU(c) ⊙ 1[x > 0] at ReLUs: the gradient, of which ReLUs stop negative signals.

    c is what arrives at a ReLU's output on the way back, x its input. ReLU6, clamp(min=0) and the like count as ReLUs,
    closed above where they are flat; everything else keeps its own gradient, max pooling (the switches) and
    normalisation included. Signed, in the shape of the input; below a ReLU the signal is non-negative. On a net without
    local response normalisation it is DeSaLiNet.
    Cost: one forward and one backward pass.
    Limits: draws edges rather than evidence: close to the same for every class and for weights drawn at random (Nie,
    Zhang & Patel 2018; Adebayo et al. 2018). Other activations (GELU, LeakyReLU) keep their gradient; a net without
    ReLUs is refused, and so are scripted or compiled parts. A ReLU spelled out, as x * (x > 0), is not recognised.
    Source: Springenberg, Dosovitskiy, Brox & Riedmiller 2014, arXiv 1412.6806.
    """

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Inputs:
        return reverse(task, Reversal(masked=True, rectified=True, skips_lrn=False), type(self).__name__)


@dataclass(frozen=True)
class DeconvNet(Method):
    """Relevance R = gradient with c ↦ ReLU(c) at ReLUs: the gradient, rectified on its way instead of masked.

    c is what arrives at a ReLU's output on the way back, whether it was open or not; ReLU6, clamp(min=0) and the like
    count as ReLUs. Local response normalisation hands c on unchanged; everything else keeps its own gradient:
    convolutions are transposed, max pooling puts the signal where the maximum was (the switches). Signed, in the shape
    of the input; below a ReLU the signal is non-negative. Of the forward pass it knows the switches only: without max
    pooling, the map of a plain ReLU net is the same for every input.
    Cost: one forward and one backward pass.
    Limits: those of GuidedBackprop. Made for a neuron inside the net (Neuron as the target): from a class score behind
    global average pooling the signal may die out, on SqueezeNet for some photographs altogether.
    Source: Zeiler & Fergus 2014, arXiv 1311.2901; as a reversed network Mahendran & Vedaldi 2016,
    doi 10.1007/978-3-319-46466-4_8.
    """

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Inputs:
        return reverse(task, Reversal(masked=False, rectified=True, skips_lrn=True), type(self).__name__)


@dataclass(frozen=True)
class SaliNet(Method):
    """Relevance R = gradient with c ↦ c ⊙ 1[x > 0] at ReLUs: the gradient itself, as one of the reversed networks.

    c is what arrives at a ReLU's output on the way back, x its input. Equals Gradient, the saliency of Simonyan et al.,
    wherever it is not refused; here to be compared with DeconvNet and DeSaLiNet. Signed, in the shape of the input.
    Cost: one forward and one backward pass.
    Limits: those of Gradient; like the other reversed networks, refuses nets without ReLUs and scripted or compiled
    parts, where Gradient does not.
    Source: Mahendran & Vedaldi 2016, doi 10.1007/978-3-319-46466-4_8.
    """

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Inputs:
        return reverse(task, Reversal(masked=True, rectified=False, skips_lrn=False), type(self).__name__)


@dataclass(frozen=True)
class DeSaLiNet(Method):
    """Relevance R = gradient with c ↦ ReLU(c) ⊙ 1[x > 0] at ReLUs: the gradient, rectified on its way and masked.

    c is what arrives at a ReLU's output on the way back, x its input: DeconvNet's rule and the gradient's at once.
    Local response normalisation hands c on unchanged, as in DeconvNet; on a net without it this is GuidedBackprop.
    Signed, in the shape of the input; below a ReLU the signal is non-negative.
    Cost: one forward and one backward pass.
    Limits: those of GuidedBackprop. A normalisation that the model spells out keeps its gradient.
    Source: Mahendran & Vedaldi 2016, doi 10.1007/978-3-319-46466-4_8.
    """

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Inputs:
        return reverse(task, Reversal(masked=True, rectified=True, skips_lrn=True), type(self).__name__)


@dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Relevance R = GuidedBackprop ⊙ GradCAM: fine edges, where a late layer's maps hold evidence for the class.

    GradCAM's map, one value for each position, is interpolated to the input's size and multiplies every channel.
    Signed, in the shape of the input.
    Cost: two forward and two backward passes; one more of a single sample where the layer is to be found.
    Limits: the class comes from GradCAM's coarse map alone, the detail from GuidedBackprop with its limits; refuses
    what one of the two refuses.
    Source: Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra 2017, arXiv 1610.02391.

    Args:
        layer: the dotted name of GradCAM's layer, or several; None for the last one with positions that all of the
            evidence passes through.
    """

    layer: str | tuple[str, ...] | None = None

    taxonomy = Taxonomy(shows="features", needs="architecture", relation="composition")

    def attribute(self, task: Task) -> Attribution:
        coarse = GradCAM(self.layer).attribute(task)
        (map,) = as_tuple(coarse.relevance)
        return Attribution(each(map.mul, GuidedBackprop().attribute(task)), details=coarse.details)
