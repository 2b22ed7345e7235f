"""Reader: a text model as a function of token numbers alone."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core.errors import InputError
from whybox.core.model import unwrap
from whybox.core.passage import PADDING


class Reader(nn.Module):
    """From token numbers (n, t), filled up on the right with `PADDING`, to one score for each class, (n, classes).

    The padding is masked wherever the model takes a mask. Of a model that answers at every position, as a language
    model, the scores at one position of each text are given out.

    Args:
        module: takes token numbers (n, t) and gives scores (n, classes) or (n, t, classes), also as `.logits`.
        filler: the token number that the model gets in the place of padding.
        position: which position's answer, from the end where it is negative; where each text has one token `at`, its.
        at: the number of such a token, as [MASK]; None for `position`.

    Attributes:
        masks: whether the model takes an `attention_mask`.
    """

    def __init__(self, module: nn.Module, filler: int = 0, position: int = -1, at: int | None = None) -> None:
        super().__init__()
        self.module = module
        self.filler, self.position, self.at = filler, position, at
        taken = inspect.signature(module.forward).parameters
        self.masks = "attention_mask" in taken
        self._options: dict[str, Any] = {"use_cache": False} if "use_cache" in taken else {}

    def forward(self, numbers: Tensor) -> Tensor:
        """The scores."""
        real = numbers != PADDING
        mask = {"attention_mask": real.long()} if self.masks else {}
        scores = unwrap(self.module(numbers.masked_fill(~real, self.filler), **mask, **self._options))
        return (
            scores
            if scores.ndim < 3
            else scores[torch.arange(len(real), device=real.device), self._places(numbers, real)]
        )

    def _places(self, numbers: Tensor, real: Tensor) -> Tensor:
        """The position of each text whose answer is explained."""
        lengths = real.sum(1)
        if self.at is not None:
            return (numbers == self.at).int().argmax(1)
        places = lengths + self.position if self.position < 0 else torch.full_like(lengths, self.position)
        if bool(((places < 0) | (places >= lengths)).any()):
            raise InputError(f"position {self.position} is none of a text of {int(lengths.min())} tokens")
        return places
