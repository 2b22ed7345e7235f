"""Descent: how a step is made from a gradient. The state has one row a sample, so that samples can drop out."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RMSProp:
    """v ← ρ v + (1 − ρ) g², w ← w − η g / √(v + ε), v = 1 at the start and ε inside the root, as TensorFlow has it.

    torch.optim.RMSprop starts at v = 0 and adds ε outside the root: its first steps are far longer.
    """

    rate: float = 0.03
    decay: float = 0.9
    epsilon: float = 1e-10

    def start(self, weights: Tensor) -> dict[str, Tensor]:
        """The state before the first step."""
        return {"square": torch.ones_like(weights)}

    def step(self, gradient: Tensor, state: dict[str, Tensor], number: int, share: float) -> Tensor:
        """What to subtract from the weights in step `number`, from 1, of which `share` of all steps are done."""
        state["square"] = self.decay * state["square"] + (1 - self.decay) * gradient.square()
        return self.rate * gradient / (state["square"] + self.epsilon).sqrt()


@dataclass(frozen=True)
class Adam:
    """Adam with a rate that falls geometrically from `rate` to `last` over all steps.

    Source: Kingma & Ba 2015, arXiv 1412.6980.
    """

    rate: float = 0.7
    last: float = 0.05
    momentum: float = 0.8
    decay: float = 0.9
    epsilon: float = 1e-12

    def start(self, weights: Tensor) -> dict[str, Tensor]:
        """The state before the first step."""
        return {"mean": torch.zeros_like(weights), "square": torch.zeros_like(weights)}

    def step(self, gradient: Tensor, state: dict[str, Tensor], number: int, share: float) -> Tensor:
        """What to subtract from the weights in step `number`, from 1, of which `share` of all steps are done."""
        state["mean"] = self.momentum * state["mean"] + (1 - self.momentum) * gradient
        state["square"] = self.decay * state["square"] + (1 - self.decay) * gradient.square()
        mean = state["mean"] / (1 - self.momentum**number)
        square = state["square"] / (1 - self.decay**number)
        rate = self.rate * (self.last / self.rate) ** share
        step: Tensor = rate * mean / (square.sqrt() + self.epsilon)
        return step


Descent = RMSProp | Adam
