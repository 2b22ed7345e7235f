"""How general a contrast is: how much of the garment changes, where, how alike for all of them, and for other nets.

Changes are ΔI = G(z_e) − G(z0), (n, 28, 28), in units of the range from black to white.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# A pixel belongs to the garment, and counts as changed, above this share of the range from black to white.
SEEN = 0.1
# The columns in the middle of 28, which hold a garment's body and a trouser's gap; sleeves lie beside them.
BODY = slice(8, 20)
# The size ‖ΔI‖₂ to which changes are brought where they are compared at equal size: about what they have.
SIZE = 4.0
# A gap closed beyond so much, or widened beyond as much, counts no more: it is a share of what may be next to nothing.
LARGEST = 2.0


def area(change: Tensor) -> Tensor:
    """The effective number of pixels that change, (Σ|ΔI|)² / ΣΔI² (n,): k where k pixels change alike, whatever by."""
    m = change.flatten(1).abs()
    return m.sum(1).square() / m.square().sum(1)


def share_changed(change: Tensor, garments: Tensor) -> Tensor:
    """The share of the garment's pixels that change visibly (n,)."""
    there = garments.flatten(1) > SEEN
    return ((change.flatten(1).abs() > SEEN) & there).sum(1) / there.sum(1)


def share_outside(change: Tensor, garments: Tensor) -> Tensor:
    """The share of |ΔI| that lies where there is no garment (n,)."""
    m = change.flatten(1).abs()
    return m.masked_fill(garments.flatten(1) > SEEN, 0).sum(1) / m.sum(1)


def share_beside(change: Tensor) -> Tensor:
    """The share of |ΔI| that lies beside the body, where sleeves are (n,); an even change has 16/28."""
    m = change.abs()
    return 1 - m[:, :, BODY].sum((1, 2)) / m.sum((1, 2))


def height(change: Tensor) -> Tensor:
    """The row of the centre of mass of |ΔI| (n,), 0 at the top and 27 at the bottom."""
    return _centre(change)[0]


def spread(change: Tensor) -> Tensor:
    """The root mean square distance of |ΔI| from its centre of mass, in pixels (n,)."""
    (row, column), m = _centre(change), change.abs()
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    squared = (rows - row.view(-1, 1, 1)).square() + (columns - column.view(-1, 1, 1)).square()
    return ((m * squared).sum((1, 2)) / m.sum((1, 2))).sqrt()


def likeness(change: Tensor) -> Tensor:
    """The mean cosine of each garment's change with those of all others (n,): 1 where all change in the same way."""
    unit = F.normalize(change.flatten(1), dim=1)
    known = ~unit.isnan().any(1)
    cosines = unit[known] @ unit[known].T
    found = torch.full((len(change),), torch.nan, dtype=change.dtype)
    found[known] = (cosines.sum(1) - cosines.diagonal()) / (len(cosines) - 1)
    return found


def closed(gap: Callable[[Tensor], Tensor], x: Tensor, changed: Tensor) -> Tensor:
    """The share of the gap s_t − s_p at x that is closed at `changed` (n,): 1 at a tie, below 0 where it widens."""
    before = gap(x)
    return ((before - gap(changed)) / before).clamp(-LARGEST, LARGEST)


def carried(gap: Callable[[Tensor], Tensor], x: Tensor, change: Tensor) -> Tensor:
    """The mean share of the gap that each garment's change closes when it is made to all the others (n,)."""
    n = len(x)
    means = []
    for row in range(n):
        others = x[torch.arange(n) != row]
        means.append(closed(gap, others, others + change[row]).mean())
    return torch.stack(means)


def sized(change: Tensor) -> Tensor:
    """The same changes, each of equal size ‖ΔI‖₂."""
    return change * (SIZE / change.flatten(1).norm(dim=1)).view(-1, *(1,) * (change.ndim - 1))


def _centre(change: Tensor) -> tuple[Tensor, Tensor]:
    m, places = change.abs(), torch.arange(28, dtype=change.dtype)
    total = m.sum((1, 2))
    return (m.sum(2) * places).sum(1) / total, (m.sum(1) * places).sum(1) / total
