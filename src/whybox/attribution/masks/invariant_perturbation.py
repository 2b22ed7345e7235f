"""InvariantPerturbation: how little a value may change before the class may."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from whybox.attribution.masks.descent import Adam
from whybox.attribution.masks.lead import Lead
from whybox.attribution.masks.widest_box import Array, widest_box
from whybox.attribution.perturbation.partition import Partition, position_axes
from whybox.core.annotations import check_fields
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Check, Method, Taxonomy
from whybox.core.reference import per_row
from whybox.core.regions import Along, Patches, Pixels, Regions
from whybox.core.task import Block, Task, leaf

# Pictures below this edge have patches of two pixels instead of eight.
SMALL = 64
# So many corners of the box are tried in the end, from just inside: rounding decides on the edge itself.
CORNERS, INSIDE = 8, 0.999
# The authors' λ, for pictures of the size that they have and for the stochastic search.
LARGE_PENALTY, STOCHASTIC_PENALTY = 1e-4, 100.0

# The edges of the box below and above, (n, cells); the slack, and how much was not finite, (n,).
Edges = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class InvariantPerturbation(Method):
    """Relevance R = 2δ − (u + v): how narrow the largest box [x − u, x + v] around x is that keeps the class.

    The box maximises Σ(u + v) − 2dλr, with 0 ≤ u, v ≤ δ and r ≥ 0, such that to first order no rival j overtakes the
    class c by more than r, at x and around each noisy draw x + n: Σ(h⁺v + |h⁻|u) ≤ f_c − f_j + h·n + r, f at x + n and
    h = ∇(f_j − f_c) there. All lengths are shares of the range of valid values. The values of a patch share u and v,
    each channel by itself, those of a token together. R lies in [0, 2δ], 0 where anything goes; its shape is the
    input's, size 1 on the embedding axis of tokens. A single output is the log-odds of its class, with a rival at 0; of
    a target that is no class the score itself must stay positive. Details: `fall` u and `rise` v, `slack` r, the
    `margin` f_c − max f_j at x, `kept` (share of some random corners of the box with the class still on top) and the
    `rivals`. `InvariantPerturbation.stochastic()` asks the model itself at random points of a symmetric box instead.
    Cost: `samples` + 10 forwards and (`samples` + 1)·min(`rivals`, classes − 1) backwards, and a linear program; the
    stochastic search takes `steps`·`samples` forwards and backwards, and 9 forwards.
    Limits: to first order only, and only against `rivals` classes (all of them: exact, but as many backwards); with
    the paper's λ the slack is cheap and is often larger than the margin, so that the box does not keep the class, which
    the checks say; with a large λ a noisy draw that c does not lead at leaves no box at all, so set `samples` to 0.
    u and v are mostly 0 or δ, as in every linear program. The random points of the stochastic search are far from the
    worst ones where many values matter a little. The box may leave the range of valid values.
    Source: Hara, Ikeno, Soma & Maehara 2018, arXiv 1806.07004; the stochastic search Ikeno & Hara 2018, arXiv
    1807.05077; settings from the authors' code, whose h·n has the gradient of one class for that of a difference.

    Args:
        delta: δ, how far a value may fall or rise at most, as a share of the range of its channel.
        penalty: λ, what a rival's lead costs; infinite for the least slack that any box needs, 0 where c leads. None
            for the paper's 10⁻⁴ in pictures from 64 pixels on; elsewhere for that by which an edge gives way just where
            it counts more than the average one, whatever the scale of the scores. In the stochastic search the price of
            a unit of probability, averaged over the classes, 100.
        samples: noisy draws besides x itself; in the stochastic search the points of a step.
        noise: standard deviation of the draws, as a share of the range.
        rivals: only so many classes, those with the highest scores, must not overtake.
        regions: what shares u and v; None for patches of eight pixels, of two in pictures under 64 pixels, and else for
            every token, column or moment; for every pixel in the stochastic search.
        search: "linear" for the linear program, "stochastic" for Adam on a symmetric box.
        steps: of the stochastic search.
    """

    delta: float = 0.1
    penalty: float | None = None
    samples: int = 10
    noise: float = 0.05
    rivals: int = 10
    regions: Regions | None = None
    search: Literal["linear", "stochastic"] = "linear"
    steps: int = 500

    taxonomy = Taxonomy(shows="regions", needs="gradients", relation="dependence")

    def __post_init__(self) -> None:
        check_fields(self)
        if not (0 < self.delta < math.inf and 0 <= self.noise < math.inf):
            raise InputError(f"delta is positive and noise not negative, not {self.delta}, {self.noise}")
        if self.penalty is not None and not 0 < self.penalty <= (math.inf if self.search == "linear" else 1e12):
            raise InputError(f"the penalty is positive, and finite in the stochastic search, not {self.penalty}")
        least = 1 if self.search == "stochastic" else 0
        if self.samples < least or self.rivals < 1 or self.steps < 1:
            raise InputError(
                f"samples is at least {least}, and rivals and steps are at least 1, not {self.samples}, {self.rivals}, "
                f"{self.steps}"
            )

    @classmethod
    def stochastic(cls) -> "InvariantPerturbation":
        """As Ikeno & Hara do it: 500 steps of Adam, rate .01, each with 32 uniform points of a symmetric box [x ± w].

        The mean of w grows, and pays for each point at which others are more probable than the class. No value shares
        its w with others, which may come to the whole range.
        """
        return cls(search="stochastic", samples=32, delta=1.0)

    def attribute(self, task: Task) -> Attribution:
        x = task.inputs
        if isinstance(x, tuple):
            raise InputError("a box belongs to one input; put the model into a module that sets the others")
        if not x.is_floating_point():
            raise InputError(f"{x.dtype} has no box around it; explain the embedding layer with at='…'")
        cells = self._cells(task, x)
        low, high = task.domains()[0].bounds(x)
        span = high - low
        lead = Lead.of(task, self.rivals)
        asked = 1 + self.samples if self.search == "linear" else self.steps * self.samples
        task.cost.planned = task.cost.forwards + task.size * (asked + CORNERS)
        found = (self._linear if self.search == "linear" else self._stochastic)(task, lead, cells, span)
        return self._answer(task, lead, cells, span, *found)

    def _cells(self, task: Task, x: Tensor) -> Partition:
        """What shares an edge of the box: a region, in each channel by itself where there are channels."""
        axes = position_axes(task)[0]
        usual: Regions = Pixels()
        if axes in ((), (1,)):
            usual = Along(1)
        elif len(axes) == 2 and self.search == "linear":
            usual = Patches(8 if _is_large(x, axes) else 2)
        regions = Partition.of(task, self.regions or usual)
        (labels,) = regions.labels
        channels = x.shape[1] if x.ndim > 2 and labels.shape[1] == 1 else 1
        counts = (regions.counts if len(labels) > 1 else regions.counts[:1]).to(x.device)
        channel = torch.arange(channels, device=x.device).view(1, -1, *(1,) * (x.ndim - 2))
        apart = labels + counts.view(-1, *(1,) * (x.ndim - 1)) * channel if channels > 1 else labels
        return Partition((apart,), regions.counts * channels, x)

    def _linear(self, task: Task, lead: Lead, cells: Partition, span: Tensor) -> Edges:
        """The box of the linear program; counts the constraints that are not finite."""
        x = task.inputs
        assert isinstance(x, Tensor)
        draws, rivals = 1 + self.samples, lead.count
        cells.check_memory(2 * task.size * draws * rivals * cells.size * (x.element_size() + 8))
        results = []
        for block in task.blocks(draws):
            noise = block.normal()
            assert isinstance(noise, Tensor)
            noise = noise * self.noise * (block.draw > 0).to(noise).view(-1, *(1,) * (noise.ndim - 1))

            def ask(drawn: Any, sample: Tensor, x: Tensor = x) -> tuple[Tensor, Tensor, Tensor]:
                """Of each draw: the room of its constraints, and what falling and rising takes of it."""
                given = leaf(x[sample.to(x.device)] + span * drawn)
                leads = lead.each(given, sample)
                rows = []
                for rival in range(rivals):
                    (slope,) = task.backward(leads[:, rival], (given,), again=rival + 1 < rivals)
                    h = -slope * span
                    room = leads[:, rival].detach() + (h * drawn).flatten(1).sum(1)
                    rows.append((room, _pooled(cells, (-h).relu(), sample), _pooled(cells, h.relu(), sample)))
                room, falling, rising = (torch.stack(part, 1).detach() for part in zip(*rows, strict=True))
                return room, falling, rising

            results.append(task.map(ask, noise, block.sample, gradient=True))
        room, falling, rising = (
            torch.cat(part).unflatten(0, (task.size, -1)).flatten(1, 2).cpu().double()
            for part in zip(*results, strict=True)
        )
        sound = torch.isfinite(room) & torch.isfinite(falling).all(2) & torch.isfinite(rising).all(2)
        below, above = (torch.full((task.size, cells.size), self.delta, dtype=torch.float64) for _ in range(2))
        slack = torch.zeros(task.size, dtype=torch.float64)
        large = _is_large(x, position_axes(task)[0])
        for i, count in enumerate(cells.counts.tolist()):
            lower, upper = (part[i, sound[i], :count].numpy() for part in (falling, rising))
            price = self.penalty or (LARGE_PENALTY if large else _fair_price(numpy.maximum(lower, upper)))
            box = widest_box(lower, upper, room[i, sound[i]].numpy(), self.delta, price)
            below[i, :count], above[i, :count] = torch.from_numpy(box.fall), torch.from_numpy(box.rise)
            slack[i] = box.slack
        return below.to(x.device), above.to(x.device), slack, (~sound).sum(1)

    def _stochastic(self, task: Task, lead: Lead, cells: Partition, span: Tensor) -> Edges:
        """A symmetric box by descent, without a slack; counts the steps whose gradient is not finite."""
        x = task.inputs
        assert isinstance(x, Tensor)
        penalty = STOCHASTIC_PENALTY if self.penalty is None else self.penalty
        wide = torch.promote_types(x.dtype, torch.float32)
        width = x.new_zeros((task.size, cells.size), dtype=wide)
        counts = cells.counts.to(x.device)[:, None]
        descent = Adam(rate=0.01, last=0.01, momentum=0.9, decay=0.999, epsilon=1e-8)
        state = descent.start(width)
        broken = torch.zeros(task.size, dtype=torch.long)

        def ask(points: Any, sample: Tensor) -> Tensor:
            given = leaf(points)
            return task.backward(lead.excess(given, sample), (given,))[0]

        with task.bar(self.steps) as bar:
            for number in range(self.steps):
                gradient = torch.zeros_like(width)
                for block in task.blocks(self.samples, number * self.samples):
                    points, factor = _points(block, x, cells, width, span)
                    slope = task.map(ask, points, block.sample, gradient=True)
                    pooled = _pooled(cells, slope * factor, block.sample).to(wide)
                    gradient.index_add_(0, block.sample.to(x.device), pooled)
                sound = torch.isfinite(gradient).all(1)
                broken += (~sound).cpu()
                gradient = penalty / self.samples * gradient - 1 / counts
                step = descent.step(torch.where(sound[:, None], gradient, 0.0), state, number + 1, 0.0)
                width = (width - step).clamp(0.0, self.delta)
                bar.update(1)
        return width, width, torch.full((task.size,), torch.nan, dtype=torch.float64), broken

    def _answer(
        self,
        task: Task,
        lead: Lead,
        cells: Partition,
        span: Tensor,
        below: Tensor,
        above: Tensor,
        slack: Tensor,
        broken: Tensor,
    ) -> Attribution:
        x, fall, rise = task.inputs, cells.spread(below), cells.spread(above)
        assert isinstance(x, Tensor)
        assert isinstance(fall, Tensor)
        assert isinstance(rise, Tensor)
        leads = []
        for block in task.blocks(CORNERS):
            here = block.sample.to(x.device)
            signs = per_row(torch.rand, x[here], block.generators(x.device, salt=1))
            corner = INSIDE * torch.where(signs < 0.5, -fall[here], rise[here])
            leads.append(task.map(lead.least, x[here] + span * corner, block.sample, gradient=False))
        kept = (torch.cat(leads).view(task.size, CORNERS) > 0).double().mean(1).cpu()
        details = {"fall": fall, "rise": rise, "margin": lead.margin, "kept": kept}
        if lead.rivals is not None:
            details["rivals"] = lead.rivals
        checks = [
            Check(
                "class not on top",
                (lead.margin <= 0).double(),
                0.0,
                "Whether another class has the higher score at the input itself. Then there is nothing to keep.",
            ),
            Check(
                "class lost in the box",
                1 - kept,
                0.0,
                f"The share of {CORNERS} random corners of the box at which another class has the higher score. Such a "
                "box is too wide: a larger penalty or a smaller delta narrows it.",
            ),
            Check(
                "constraints not finite",
                broken.double(),
                0.0,
                "How many constraints, or steps, had scores or gradients that are not finite, and were left out.",
            ),
        ]
        if self.search == "linear":
            details["slack"] = slack
            checks.append(
                Check(
                    "slack larger than the margin",
                    (slack > lead.margin).double(),
                    0.0,
                    "Whether the program lets a rival, to first order, overtake the class somewhere in the box, since "
                    "the box is worth more to it: a larger penalty forbids that.",
                )
            )
        return Attribution(2 * self.delta - (fall + rise), details, tuple(checks))


def _is_large(x: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether the input is a picture of the size that the authors explain."""
    return len(axes) == 2 and min(x.shape[axis] for axis in axes) >= SMALL


def _fair_price(taken: Array) -> float:
    """The λ by which an edge that takes the mean of all (m, d) is just worth the slack that it needs: 2dλ·mean = 1."""
    total = float(taken.mean(0).sum()) if len(taken) else 0.0
    return 0.5 / total if total > 0 else math.inf


def _points(block: Block, x: Tensor, cells: Partition, width: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
    """Points x + w·ξ, ξ uniform in [−1, 1], and what they change by where w does."""
    noise = 2 * per_row(torch.rand, x[block.sample.to(x.device)], block.generators(x.device)) - 1
    widths = cells.masks(width[block.sample.to(x.device)], block.sample)
    assert isinstance(widths, Tensor)
    factor = span * noise
    return x[block.sample.to(x.device)] + factor * widths.to(x.dtype), factor


def _pooled(cells: Partition, values: Tensor, sample: Tensor) -> Tensor:
    """The sums over the places of each cell (k, cells), of values (k, …) that belong to these samples."""
    labels = cells.labels[0]
    own = labels[sample.to(labels.device)] if len(labels) > 1 else labels
    where = own.expand(values.shape).flatten(1)
    return values.new_zeros((len(values), cells.size)).scatter_add(1, where, values.flatten(1))
