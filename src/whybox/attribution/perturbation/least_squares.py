"""Weighted least squares over coalitions, one problem per sample, all solved together from running sums."""

import torch
from torch import Tensor


class Moments:
    """Σ w·uuᵀ of each sample's rows u = (z, 1, y): all that a linear fit of y on z needs to know of them.

    Attributes:
        sums: float64 (n, m + 2, m + 2): Σwzzᵀ is `sums[:, :m, :m]`, Σwz `sums[:, :m, m]`, Σwzy `sums[:, :m, m + 1]`,
            Σw `sums[:, m, m]`, Σwy `sums[:, m, m + 1]`, Σwy² the last entry.
    """

    def __init__(self, samples: int, columns: int) -> None:
        self.sums = torch.zeros(samples, columns + 2, columns + 2, dtype=torch.float64)

    def add(self, sample: Tensor, z: Tensor, weight: Tensor, y: Tensor) -> None:
        """Add rows z (k, m) with weights (k,) and values y (k,), of samples (k,) in ascending order."""
        rows = torch.cat([z.double(), torch.ones(len(z), 1), y.double()[:, None]], 1)
        first, last = int(sample[0]), int(sample[-1])
        own = (torch.arange(first, last + 1)[:, None] == sample)[:, :, None]
        rows_of = rows.where(own, 0.0)
        self.sums[first : last + 1] += (rows_of * weight.double()[:, None]).mT @ rows_of

    def ridge(self, penalty: float, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients (n, m), intercept (n,) and weighted R² (n,) of min Σw(y − a − zβ)² + penalty·‖β‖².

        `used` (n, m) says which columns take part; the coefficients of others are 0. Where there is more than one
        solution it is the shortest. R² is 1 where y does not vary. What is not finite makes its sample's answer NaN.
        """
        finite = torch.isfinite(self.sums).all(2).all(1)
        sums = torch.where(finite[:, None, None], self.sums, torch.eye(self.sums.shape[1], dtype=torch.float64))
        total = sums[:, -2, -2]
        mean = sums[:, -2] / total[:, None]
        centred = sums - total[:, None, None] * mean[:, :, None] * mean[:, None, :]
        both = used[:, :, None] & used[:, None, :]
        gram, moment = centred[:, :-2, :-2] * both, centred[:, :-2, -1] * used
        inverse = torch.linalg.pinv(gram + penalty * torch.diag_embed(used.double()), hermitian=True)
        beta = torch.einsum("nij,nj->ni", inverse, moment) * used
        intercept = mean[:, -1] - (beta * mean[:, :-2]).sum(1)
        spread = centred[:, -1, -1]
        left = spread - 2 * (beta * moment).sum(1) + torch.einsum("ni,nij,nj->n", beta, gram, beta)
        r2 = torch.where(spread > 0, 1 - left / spread, 1.0)
        beta, intercept, r2 = (v.where(finite.view(-1, *(1,) * (v.ndim - 1)), torch.nan) for v in (beta, intercept, r2))
        return beta, intercept, r2
