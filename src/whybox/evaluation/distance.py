"""How far apart two maps are, or two inputs: the lengths of what lies between them, by several norms at once."""

from typing import Literal

import torch
from torch import Tensor

from whybox.core.tree import Inputs, as_tuple, each

Norm = Literal["l1", "l2", "max"]
ORDERS: dict[Norm, float] = {"l1": 1.0, "l2": 2.0, "max": torch.inf}

# What a zero is replaced by where it is divided by: the ε_min of the relative stabilities.
TINY = 1e-6


def lengths(rows: Tensor) -> Tensor:
    """The norm of each row by each order (k, 3), of rows of values (k, m)."""
    return torch.stack([torch.linalg.vector_norm(rows, order, dim=1) for order in ORDERS.values()], 1)


def length(rows: Tensor, norm: Norm) -> Tensor:
    """The norm of each row by one order (k,)."""
    found: Tensor = torch.linalg.vector_norm(rows, ORDERS[norm], dim=1)
    return found


def flat(inputs: Inputs) -> Tensor:
    """All values of each row side by side, (k, m), in float64; on the CPU where the device has no such numbers."""
    parts = (x.detach().cpu() if x.device.type == "mps" else x.detach() for x in as_tuple(inputs))
    return torch.cat([x.double().flatten(1) if x.ndim > 1 else x.double()[:, None] for x in parts], 1)


def flat_maps(first: Inputs, second: Inputs) -> tuple[Tensor, Tensor]:
    """Two maps side by side, (k, m) each: on an axis that one of them does not tell apart, the other is summed."""
    return flat(each(_summed, first, second)), flat(each(_summed, second, first))


def relative(change: Tensor, of: Tensor) -> Tensor:
    """Every change as a share of the value that changed; of a value that is zero, as a share of a tiny one."""
    return change / torch.where(of == 0, TINY, of)


def _summed(part: Tensor, like: Tensor) -> Tensor:
    axes = [axis for axis in range(1, part.ndim) if like.shape[axis] == 1 < part.shape[axis]]
    return part.sum(axes, keepdim=True) if axes else part
