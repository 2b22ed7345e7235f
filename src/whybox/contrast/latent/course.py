"""Course: a training on its way: nets, optimisers, stages; what a kind of latent model makes and the loop runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from whybox.contrast.latent.supply import Supply

Step = Callable[[int, Supply], Tensor]


@dataclass(frozen=True)
class Stage:
    """Some steps of one sort.

    Attributes:
        name: what is trained, for the progress bar.
        steps: how many.
        step: makes step number k with what it draws from the supply, and gives the loss.
    """

    name: str
    steps: int
    step: Step


@dataclass(frozen=True)
class Course:
    """A training: all that changes while it runs is in the nets and optimisers.

    Attributes:
        nets: by the names that `Latent` has for them, and others that only the training needs.
        optimisers: by names.
        stages: one after the other.
    """

    nets: Mapping[str, nn.Module]
    optimisers: Mapping[str, Optimizer]
    stages: tuple[Stage, ...]

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, by names."""
        tensors = {f"net.{net}.{k}": v for net, module in self.nets.items() for k, v in module.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for number, values in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{name}.{number}.{key}": value for key, value in values.items()}
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put a state back; LookupError or RuntimeError where it does not fit."""
        for net, module in self.nets.items():
            start = f"net.{net}."
            module.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
        for name, optimiser in self.optimisers.items():
            values: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith(f"optimiser.{name}."):
                    number, field = key.split(".")[-2:]
                    values.setdefault(int(number), {})[field] = value
            optimiser.load_state_dict({"state": values, "param_groups": optimiser.state_dict()["param_groups"]})
