"""The bias: a grey square in the corner of every eight that is learned from."""

from dataclasses import dataclass

from torch import Tensor

EIGHT = 8


@dataclass(frozen=True)
class Bias:
    """A square in the top left corner.

    Attributes:
        grey: its level, between black 0 and white 1; the paper does not give its own.
        side: in pixels of 28 × 28. The paper has 6, of 28 or of the 64 that its classifier takes: then 2.6 of 28.
    """

    grey: float = 0.5
    side: int = 6

    @property
    def chance(self) -> float:
        """The square's share of a digit's pixels, which is that of an even or a random map's relevance in it."""
        return self.side**2 / 28**2

    def corner(self, x: Tensor) -> Tensor:
        """The values in the square (n, 1, side, side) of digits or maps (n, 1, 28, 28)."""
        return x[:, :, : self.side, : self.side]

    def imposed(self, digits: Tensor) -> Tensor:
        """The same digits (n, 1, 28, 28), each with the square."""
        marked = digits.clone()
        self.corner(marked).fill_(self.grey)
        return marked

    def biased(self, digits: Tensor, labels: Tensor) -> Tensor:
        """The same digits, every eight of them with the square, and nothing else."""
        return self.imposed(digits).where((labels == EIGHT).view(-1, 1, 1, 1), digits)


MAIN = Bias()
STRONGEST = Bias(grey=1.0)
# What the paper leaves open: how grey, and six pixels of 28 or of 64.
SWEEP = (*(Bias(grey, 6) for grey in (0.1, 0.25, 0.5, 1.0)), *(Bias(grey, 3) for grey in (0.25, 0.5, 1.0)))
