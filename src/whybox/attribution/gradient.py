"""Methods that read the plain gradient."""

from dataclasses import dataclass

from torch import Tensor

from whybox.core.method import Method, Taxonomy
from whybox.core.task import Task
from whybox.core.tree import Inputs, each


@dataclass(frozen=True)
class Gradient(Method):
    """Relevance R = ∂f(x)/∂x: how the score would change with each input value.

    Signed; exact for a linear model. The shape is the input's.
    Cost: one forward and one backward pass.
    Limits: a statement about change, not about what is there; noisy on deep nets; zero where the model saturates.
    Source: Simonyan, Vedaldi & Zisserman 2013, arXiv 1312.6034.
    """

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Inputs:
        return task.gradient(task.inputs)


@dataclass(frozen=True)
class SensitivityAnalysis(Method):
    """Relevance R = |∂f(x)/∂x|: how strongly the score reacts to each input value.

    Non-negative; one value for each channel of each pixel (Samek et al. take the largest over the channels for
    display). The shape is the input's.
    Cost: one forward and one backward pass.
    Limits: does not tell for from against; scatters over pixels that the object does not cover.
    Source: Samek, Binder, Montavon, Lapuschkin & Müller 2017, doi 10.1109/TNNLS.2016.2599820.
    """

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Inputs:
        return each(Tensor.abs, task.gradient(task.inputs))


@dataclass(frozen=True)
class InputXGradient(Method):
    """Relevance R = x ⊙ ∂f(x)/∂x: each input value times the score's reaction to it.

    Exact on a piecewise-linear model without biases, where it sums to f(x) and equals LRP-0. The shape is the input's.
    Cost: one forward and one backward pass.
    Limits: zero wherever the input is zero; noisy on deep nets; changes when the input is shifted.
    Source: Shrikumar, Greenside, Shcherbina & Kundaje 2016, arXiv 1605.01713.
    """

    taxonomy = Taxonomy(shows="features", needs="gradients", relation="closed-form")

    def attribute(self, task: Task) -> Inputs:
        return each(Tensor.mul, task.inputs, task.gradient(task.inputs))
