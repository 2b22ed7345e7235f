"""Methods that are the gradient but for what a ReLU lets back through."""

from dataclasses import dataclass

from whybox.attribution.backprop.reversal import Reversal, reverse
from whybox.attribution.cam import GradCAM
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """Relevance R = the gradient with each ReLU's backward pass c ↦ ReLU(c) ⊙ 1[x > 0]: negative signals stop too.

    c is what arrives at the ReLU's output, x its input. ReLU6, clamp(min=0) and the like count as ReLUs; everything
    else keeps its own gradient, max pooling (the switches) included. Signed, in the shape of the input; the signal
    behind every ReLU is non-negative. Without local response normalisation it is DeSaLiNet.
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
    """Relevance R = the gradient with each ReLU's backward pass c ↦ ReLU(c), whether the ReLU was open or not.

    c is what arrives at the ReLU's output. ReLU6, clamp(min=0) and the like count as ReLUs. Local response
    normalisation is passed back unchanged; everything else keeps its own gradient: convolutions are transposed, max
    pooling puts the signal where the maximum was (the switches). Signed, in the shape of the input; the signal behind
    every ReLU is non-negative. Of the forward pass it knows the switches only: without max pooling, the map of a plain
    ReLU net is the same for every input.
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
    """Relevance R = the gradient, with each ReLU's backward pass c ↦ c ⊙ 1[x > 0]: its own.

    The reversed network that equals Gradient, the saliency of Simonyan et al., on every model; here to be compared
    with DeconvNet and DeSaLiNet. Signed, in the shape of the input.
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
    """Relevance R = the gradient with each ReLU's backward pass c ↦ ReLU(c) ⊙ 1[x > 0]: DeconvNet's and SaliNet's.

    As GuidedBackprop, but that local response normalisation is passed back unchanged, as DeconvNet does; on a net
    without it the two are one. Signed, in the shape of the input; the signal behind every ReLU is non-negative.
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
