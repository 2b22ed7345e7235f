"""What a model answers, as a distribution over classes, and how much its inputs tell of that."""

import torch
from torch import Tensor

from whybox.core.errors import ModelError
from whybox.core.start import check_outputs

# A model whose inputs tell less than this about its answer, in nats, answers alike for all of them.
NOTHING = 1e-4


def distribution(outputs: Tensor) -> Tensor:
    """The distribution over classes (n, classes) in a model's outputs, on the CPU: the softmax, or the sigmoid of one.

    Outputs that are probabilities already are taken as they are.
    """
    check_outputs(outputs)
    columns = (outputs[:, None] if outputs.ndim == 1 else outputs).detach().cpu().float()
    if columns.ndim != 2:
        raise ModelError(
            f"L2X explains one answer for each input, but the model's outputs have shape {tuple(outputs.shape)}; put "
            "it into a module whose forward picks one"
        )
    if columns.shape[1] == 1:
        columns = torch.cat((torch.zeros_like(columns), columns), 1)
    elif bool((columns >= 0).all()) and bool(((columns.sum(1) - 1).abs() < 1e-4).all()):
        return columns
    return columns.softmax(1)


def entropy(p: Tensor) -> Tensor:
    """−Σ p log p over the last axis, in nats."""
    entropy: Tensor = torch.special.entr(p).sum(-1)
    return entropy


def check_varied(answers: Tensor) -> None:
    """Raise ModelError where the inputs tell nothing of the answers."""
    told = float(entropy(answers.double().mean(0)) - entropy(answers.double()).mean())
    if told < NOTHING:
        likely = int(answers.mean(0).argmax())
        raise ModelError(
            f"the model answers alike for all {len(answers)} training inputs: class {likely}, with a probability from "
            f"{float(answers[:, likely].min()):.4f} to {float(answers[:, likely].max()):.4f}. L2X learns from answers "
            "that differ; fit it to more varied inputs, or mend the model"
        )
