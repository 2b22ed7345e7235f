"""The model as DeepLIFT runs it."""

from typing import Any, Literal

from torch import nn

from whybox.attribution.backprop.lift import table
from whybox.attribution.backprop.lift.pairs import Pairs
from whybox.attribution.backprop.table import Handler


class Network(Pairs):
    """Every operation with its multipliers."""

    def __init__(self, module: nn.Module, rule: Literal["rescale", "reveal_cancel"]) -> None:
        super().__init__(module)
        self.rule = rule

    def handler(self, function: Any) -> Handler | None:
        return table.handler(function)
