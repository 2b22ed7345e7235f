"""Measuring, and keeping what was measured: a file for every block of pictures, infill and entry of the table.

A file is written whole or not at all, and says what it was measured with; a run goes on where another was stopped, and
measures anew what was measured with something else.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from experiments.common.kept import blocks, keep, known
from experiments.samek2017.subjects import Subject
from torch import Tensor

import whybox
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.controls import CentreBlob, EdgeDetector, InputMagnitude, RandomMap
from whybox.evaluation.metric import case

BLOCK = 25
FOLLOWED = ("probability", "score", "right")


@dataclass(frozen=True)
class Entry:
    """A row of the table: a method and what becomes of its relevance before the regions are ordered by it.

    Attributes:
        name: in the table.
        method: what explains.
        use: the relevance "as it is", its "magnitude", or the largest "magnitude of any channel".
    """

    name: str
    method: whybox.Method
    use: str = "as it is"

    def relevance(self, raw: Tensor) -> Tensor:
        """The relevance that counts."""
        if self.use == "as it is":
            return raw
        return raw.abs() if self.use == "magnitude" else raw.abs().amax(1, keepdim=True)

    def path(self, folder: Path, subject: Subject, infill: str, start: int, stop: int) -> Path:
        """Where its curves of a block of pictures are kept."""
        return folder / "curves" / subject.name / infill / self.name / f"{start:05d}-{stop:05d}.safetensors"

    def settings(self, subject: Subject, infill: str) -> dict[str, str]:
        """What the curves depend on, besides the code."""
        metric = replace(subject.metric, infill=subject.infills[infill]).config()
        settings = {"method": self.method.config(), "use": self.use, "metric": metric, "weights": subject.weights}
        return {"settings": json.dumps(settings, sort_keys=True)}


SENSITIVITY = Entry("sensitivity analysis", whybox.SensitivityAnalysis())
LRPS = (
    Entry("LRP ε", whybox.LRP("epsilon")),
    Entry("LRP α2β1", whybox.LRP("epsilon_alpha2_beta1")),
    Entry("LRP z⁺, flat", whybox.LRP("epsilon_plus_flat")),
)
CONTROLS = (
    Entry("random map", RandomMap()),
    Entry("centre blob", CentreBlob()),
    Entry("edges", EdgeDetector()),
    Entry("input magnitude", InputMagnitude()),
)
MAIN = (SENSITIVITY, *LRPS, Entry("DeconvNet", whybox.DeconvNet()), *CONTROLS)
ABLATIONS = (
    Entry("gradient, signed", whybox.Gradient()),
    Entry("sensitivity, largest channel", whybox.SensitivityAnalysis(), "magnitude of any channel"),
    Entry("|LRP ε|", whybox.LRP("epsilon"), "magnitude"),
    Entry("LRP ε = 0.25", whybox.LRP("epsilon", epsilon=0.25)),
    Entry("LRP α2β1, flat", whybox.LRP("epsilon_alpha2_beta1_flat")),
    Entry("|DeconvNet|", whybox.DeconvNet(), "magnitude"),
)
COMPARED = (SENSITIVITY, *LRPS, CONTROLS[0], *ABLATIONS)  # what the table of ablations is made of


def measure(subject: Subject, entries: tuple[Entry, ...], folder: Path) -> None:
    """Measure what is not known yet, and keep it as it comes."""
    for start, stop in blocks(len(subject.labels), BLOCK):
        missing = [
            (infill, entry)
            for infill in subject.infills
            for entry in entries
            if not known(entry.path(folder, subject, infill, start, stop), entry.settings(subject, infill))
        ]
        if missing:
            began = time.perf_counter()
            _measure(subject, missing, folder, start, stop)
            done = f"{subject.name}: pictures {start} to {stop - 1}, {len(missing)} curves"
            print(f"{done}, {time.perf_counter() - began:.0f} s", flush=True)


def _measure(subject: Subject, missing: list[tuple[str, Entry]], folder: Path, start: int, stop: int) -> None:
    """One block of pictures. All noise is keyed by the place of the picture: the block's beginning is the seed."""
    inputs = subject.inputs(start, stop)
    explained: dict[whybox.Method, Tensor] = {}
    with started(subject.model, inputs, None, seed=start) as task:
        samples = Samples(task)
        target = torch.as_tensor(task.target.index)
        for infill, entry in missing:
            began = time.process_time()
            if entry.method not in explained:
                explained[entry.method] = entry.method(subject.model, inputs, target, seed=start)
            one = case(samples, entry.relevance(explained[entry.method]))
            metrics = [replace(subject.metric, infill=subject.infills[infill], follows=each) for each in FOLLOWED]
            first, *rest = [metric.score(one) for metric in metrics]  # the curve is measured once
            found = {f"AOPC {metric.follows}": s.values for metric, s in zip(metrics, (first, *rest), strict=True)}
            found |= {name: first.details[name].double() for name in ("removed", *FOLLOWED)}
            found |= {
                "picture": torch.arange(start, stop),
                "correct": target == subject.labels[start:stop],
                "flat": one.constant(),
                "forwards": torch.tensor(first.forwards),
                "seconds": torch.tensor(time.process_time() - began),
            }
            keep(found, entry.path(folder, subject, infill, start, stop), entry.settings(subject, infill))
