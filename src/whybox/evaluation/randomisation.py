"""Randomisation: an explanation that stays the same when the weights are destroyed does not explain the model."""

import copy

import torch

from whybox.core.errors import ModelError
from whybox.core.model import Model


def randomised(model: Model, seed: int = 0) -> Model:
    """A copy of the model in which the entries of every parameter are shuffled.

    Each parameter keeps its own values, so activations stay in their usual range, and has a shuffle of its own; a
    parameter whose entries are all equal stays as it is. Buffers, such as the statistics of batch norm, are kept.
    Cost: a copy of the model.
    Raises: ModelError where the module cannot be copied.
    Source: the parameter randomisation test of Adebayo et al. 2018, arXiv 1810.03292, with shuffled weights.
    """
    try:
        module = copy.deepcopy(model.module)
    except Exception as error:  # a module may refuse in its own way
        raise ModelError(f"the model cannot be copied, so its weights cannot be shuffled: {error}") from error
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return Model(
        module,
        name=f"{model.name} with shuffled weights",
        domain=model.domain,
        preprocess=model.preprocess,
        labels=model.labels,
        input_size=model.input_size,
        chunk=model.chunk,
    )
