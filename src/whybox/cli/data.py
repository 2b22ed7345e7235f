"""Data sets as the commands read them: pictures as a model wants them, and whether their classes are the model's."""

from typing import TYPE_CHECKING

from whybox.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from whybox.core.model import Model


def read(name: str, split: str, model: "Model", spec: str) -> "tuple[Tensor, Tensor | None]":
    """The inputs as the model wants them, and their classes where the data have any.

    Args:
        name: what `whybox.datasets.load` knows.
        split: test or train.
        model: for which the pictures are made.
        spec: how the model was named.
    """
    from torch import Tensor

    from whybox.datasets import load

    preprocess = None if name.lower() == spec == "digits" else model.preprocess
    if name.lower() == "20newsgroups":
        raise InputError("the command takes pictures; for texts use whybox in Python")
    inputs, labels = load(name, split=split, preprocess=preprocess)
    assert isinstance(inputs, Tensor)
    reference = model.reference_tensor()
    return inputs if reference is None else inputs.to(reference), labels


def misfit(name: str, labels: "Tensor | None", model: "Model") -> str:
    """Why the classes of a folder are not the model's; "" where they may be."""
    if labels is None or not name.lower().startswith("folder:"):
        return ""
    classes, known = int(labels.max()) + 1, len(model.labels or ())
    return "" if classes == known else f"the folder holds {classes} classes, the model knows {known}"
