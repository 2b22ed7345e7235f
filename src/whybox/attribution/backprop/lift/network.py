"""The model as DeepLIFT runs it."""

from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from whybox.attribution.backprop.lift import reveal, table
from whybox.attribution.backprop.lift.pairs import Pairs
from whybox.attribution.backprop.table import Handler


class Network(Pairs):
    """One forward pass in which every operation gets its multipliers.

    Args:
        module: the model.
        rule: how activations get theirs.
    """

    def __init__(self, module: nn.Module, rule: Literal["rescale", "reveal_cancel"]) -> None:
        super().__init__(module)
        self.rule = rule

    def handler(self, function: Any) -> Handler | None:
        plain = table.handler(function)
        if self.rule == "rescale" or plain not in reveal.HANDLERS:
            return plain
        return partial(reveal.HANDLERS[plain], plain)

    def write(self, x: Tensor, value: Tensor) -> Tensor:
        parts = reveal.noted(value)
        output = super().write(x, value)
        if parts is not None:
            reveal.follow(output, parts)
        return output
