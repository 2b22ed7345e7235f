"""ShapleySampling: Shapley values as mean contributions along random orders of the regions."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Engine
from whybox.attribution.perturbation.partition import Partition
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Regions
from whybox.core.task import Task


@dataclass(frozen=True)
class ShapleySampling(Method):
    """Relevance R_i = mean over random orders π of f(x_{π up to i}) − f(x_{π before i}): the Shapley values, unbiased.

    x_S keeps the regions in S and takes the others from the infill, so along each order the contributions add up, and
    Σ R = f(x) − mean f(x_∅) without error. Orders come in pairs, one and its reverse (antithetic), and every second
    pair is the one before with its halves exchanged, so that who came early comes late. Signed; every place has its
    region's value, and size 1 on axes that regions do not divide. `details` have the values of the regions, their
    standard errors (from the spread of the pairs as if all were independent: a little too large, as the exchange of
    halves helps), the efficiency gap and the evaluations.
    Cost: at most `samples` forward passes: 2·regions − 1 for each pair of orders, and one.
    Limits: an error that falls as 1/√samples; KernelSHAP's is smaller at the same cost. Depends on regions and infill;
    a random one is drawn anew for each pair of orders.
    Source: Castro, Gómez & Tejada 2009, doi 10.1016/j.cor.2008.04.004; pairs: Mitchell, Cooper, Frank & Holmes 2022,
    arXiv 2104.12199.

    Args:
        regions: what is hidden together; None for superpixels, columns, tokens or patches of time.
        infill: what stands in for what is hidden.
        samples: the budget of coalitions, at least that of two pairs of orders, 4·regions − 1.
    """

    regions: Regions | None = None
    infill: Infill = field(default_factory=Zero)
    samples: int = 512

    taxonomy = Taxonomy(shows="regions", needs="outputs", relation="dependence")

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 3:
            raise InputError(f"ShapleySampling needs whole samples ≥ 3, not {self.samples}")

    def attribute(self, task: Task) -> Attribution:
        partition = Partition.of(task, self.regions)
        m, counts = partition.size, partition.counts
        partition.check_budget(self.samples, 4 * m - 1)
        engine = Engine(task, self.infill, partition)
        pairs = (self.samples - 1) // (2 * counts - 1)

        def places(sample: Tensor, pair: Tensor) -> Tensor:
            """At which place of its pair's first order each region comes, (k, m)."""
            count = counts[sample][:, None]
            drawn = engine.uniform(sample, pair // 2, m).masked_fill(~partition.present[sample], 2.0)
            turned = drawn.argsort(1).argsort(1) + (pair % 2)[:, None] * (count // 2)
            return turned % count

        def pair_of(sample: Tensor, number: Tensor) -> Tensor:
            return (number - 1) % pairs[sample]

        def coalition(sample: Tensor, number: Tensor) -> Tensor:
            """Number 0 keeps all; then come nothing, the first 1 … regions of each order, and the last 1 … regions."""
            count, step = counts[sample], (number - 1) // pairs[sample]
            reverse = step >= count
            few = (step - reverse * (count - 1))[:, None]
            place = places(sample, pair_of(sample, number))
            place = torch.where(reverse[:, None], count[:, None] - 1 - place, place)
            return ((place < few) | (number == 0)[:, None]) & partition.present[sample]

        evaluations = 1 + (2 * counts - 1) * pairs
        scores = torch.zeros(task.size, int(evaluations.max()), dtype=torch.float64)
        for chunk in engine.scores(evaluations, coalition, draw=pair_of):
            scores[chunk.sample, chunk.number] = chunk.score
        sample = torch.arange(task.size).repeat_interleave(pairs)
        pair = torch.cat([torch.arange(p) for p in pairs.tolist()])
        place, count = places(sample, pair), counts[sample][:, None]
        length = torch.arange(m + 1)

        def along(step: Tensor) -> Tensor:
            """The scores (rows, m + 1) of what an order keeps after 0, 1, … regions, at these steps."""
            path = scores[sample[:, None], 1 + step.minimum(2 * count - 2) * pairs[sample, None] + pair[:, None]]
            return torch.where(length == count, scores[sample, :1], path)

        forward = along(length.expand(len(sample), -1))
        backward = along(torch.where(length > 0, length + count - 1, 0))
        reverse = count - 1 - place
        first = forward.gather(1, place + 1) - forward.gather(1, place)
        second = backward.gather(1, reverse + 1) - backward.gather(1, reverse)
        both = ((first + second) / 2 * partition.present[sample]).split(pairs.tolist())
        values = torch.stack([rows.mean(0) for rows in both])
        empty = torch.stack([row[1 : 1 + p].mean() for row, p in zip(scores, pairs.tolist(), strict=True)])
        return Attribution(
            partition.spread(values),
            {
                "values": values,
                "standard_errors": torch.stack([rows.std(0) / len(rows) ** 0.5 for rows in both]),
                "efficiency_gap": values.sum(1) - (scores[:, 0] - empty),
                "evaluations": evaluations,
            },
        )
