"""Occlusion: hide one window after the other."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from whybox.attribution.perturbation.engine import Choice, Engine
from whybox.attribution.perturbation.partition import Partition
from whybox.attribution.perturbation.windows import Windows
from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Regions
from whybox.core.task import Task


@dataclass(frozen=True)
class Occlusion(Method):
    """Relevance R(p) = mean over the windows W that cover p of f(x) − f(x without W): what is lost by hiding p.

    Signed; size 1 on the channel axis, (n, 1, h, w) for pictures. Windows slide over all axes of positions (time,
    pixels, frames), over columns and tokens one by one; or regions are hidden in their place. On a linear model with
    windows of one value, R = w ⊙ (x − x′), x′ the infill. The drops themselves are in `details`.
    Cost: a forward pass for each window and one more; some 250 a picture by default.
    Limits: what can be replaced by something else in the input gets too little; hidden parts are no natural input, so
    the model may react to the hiding; depends on the window and the infill.
    Source: Zeiler & Fergus 2014, arXiv 1311.2901.

    Args:
        window: width of a window in positions, for all axes or for each; None for an eighth of each axis, and for
            single columns and tokens.
        stride: from one window to the next, at most the window; None for half of it.
        infill: what stands in for what is hidden.
        regions: hide these, one at a time, instead of windows.
    """

    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    infill: Infill = field(default_factory=Zero)
    regions: Regions | None = None

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="dependence")

    def __post_init__(self) -> None:
        if self.regions is not None and not (self.window is None and self.stride is None):
            raise InputError("Occlusion hides windows or regions; give either window and stride, or regions")

    def attribute(self, task: Task) -> Attribution:
        if self.regions is None:
            windows = Windows.of(task, self.window, self.stride)
            counts = torch.tensor([sum(windows.counts)]).expand(task.size)
            drops = _drops(Engine(task, self.infill), counts, lambda _, number: windows.kept(number - 1))
            grids = windows.grids(drops)
            return Attribution(windows.average(drops), {"drops": grids if len(grids) > 1 else grids[0]})
        partition = Partition.of(task, self.regions)
        columns = torch.arange(partition.size)
        engine = Engine(task, self.infill, partition)
        drops = _drops(engine, partition.counts, lambda _, number: columns != number[:, None] - 1)
        return Attribution(partition.spread(drops), {"drops": drops})


def _drops(engine: Engine, counts: Tensor, choose: Choice) -> Tensor:
    """By how much each of the variants 1 … counts falls below variant 0, the original: (n, most), 0 beyond."""
    scores = torch.full((len(counts), int(counts.max()) + 1), torch.nan, dtype=torch.float64)
    for chunk in engine.scores(counts + 1, choose):
        scores[chunk.sample, chunk.number] = chunk.score
    beyond = torch.arange(scores.shape[1] - 1) >= counts[:, None]
    return (scores[:, :1] - scores[:, 1:]).masked_fill(beyond, 0.0)
