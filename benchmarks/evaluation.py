"""The default suite of metrics and six metrics of robustness, against Quantus at the same levels and draws.

Both score input × gradient on ResNet-20. whybox explains again by its own method, Quantus by a plain loop; Quantus runs
at its best batch size. The raw loop sends as many images forward, and forward and backward, as whybox does at the same
levels and draws, ready-made and at the best chunk size: that much of the time is the model's, whoever asks it.
"""

import gc
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from torch import Tensor, nn

from benchmarks import raw
from benchmarks.agreement import agreement, levels
from benchmarks.measure import commit, one_thread, ratio, save, saved, tuned
from benchmarks.quantus_suite import DRAWS, LAYER, PATCH, PIXELS, RADIUS, REGIONS, SIZE, Question, run
from benchmarks.subjects import Subject, resnet20
from whybox import (
    MPRT,
    AverageSensitivity,
    Completeness,
    Deletion,
    Infidelity,
    InputXGradient,
    LocalLipschitz,
    MaxSensitivity,
    Metric,
    Model,
    Patches,
    PointingGame,
    RegionPerturbation,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
    RelevanceMass,
    RelevanceRank,
    Sparseness,
    Zero,
)
from whybox.core.start import started
from whybox.core.stream import keep_freed_memory
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case
from whybox.evaluation.randomisation import parameter_layers

IMAGES, ROBUST, FEW = 32, 16, 4
ROUNDS = 2
MAPS = (1, 3, 8)
BATCHES = (8, 16, 32)
PARTS = ("agreement", "suite", "library", "robustness", "several")

# Does one part after the other, and says the name of each when it is done.
Suite = Callable[[], Iterator[str]]


def same(module: nn.Module) -> dict[str, Metric]:
    """The suite at the levels and draws of Quantus."""
    return {
        "RegionPerturbation": RegionPerturbation(SIZE, REGIONS, REGIONS, Zero()),
        "Deletion": Deletion(steps=32 * 32 // PIXELS),
        "Infidelity": Infidelity(Patches(PATCH)),
        "MaxSensitivity": MaxSensitivity(DRAWS, RADIUS),
        "MPRT": MPRT(steps=len(parameter_layers(module))),
        "Completeness": Completeness(),
        "Sparseness": Sparseness(),
        "PointingGame": PointingGame("absolute", tolerance=0),
        "RelevanceMass": RelevanceMass("absolute"),
        "RelevanceRank": RelevanceRank("absolute"),
    }


def coarse(module: nn.Module) -> dict[str, Metric]:
    """The suite at whybox's own number of levels, of the same curves."""
    return {
        **same(module),
        "RegionPerturbation": RegionPerturbation(SIZE, REGIONS, infill=Zero()),
        "Deletion": Deletion(),
        "MPRT": MPRT(),
    }


SIX: dict[str, Metric] = {
    "MaxSensitivity": MaxSensitivity(DRAWS, RADIUS),
    "AverageSensitivity": AverageSensitivity(DRAWS, RADIUS),
    "LocalLipschitz": LocalLipschitz(DRAWS, RADIUS),
    "RelativeInputStability": RelativeInputStability(DRAWS, RADIUS),
    "RelativeOutputStability": RelativeOutputStability(DRAWS, RADIUS),
    "RelativeRepresentationStability": RelativeRepresentationStability(DRAWS, RADIUS),
}


def main() -> None:
    """Measure all parts, or those named on the command line; each is saved when it is done."""
    one_thread()
    keep_freed_memory()
    subject = resnet20()
    settings = {
        "images": IMAGES,
        "images for robustness": ROBUST,
        "images where several maps are compared": FEW,
        "batch sizes tried": BATCHES,
        "rounds": ROUNDS,
        "maps": MAPS,
        "goals": {"forwards": 0.5, "seconds": 0.25, "robustness": 1.3, "values": 1e-4},
        "layer": LAYER,
        "same": {name: repr(metric) for name, metric in same(subject.module).items()},
        "coarse": {name: repr(metric) for name, metric in coarse(subject.module).items()},
    }
    measures = dict(zip(PARTS, (values, suite, library, robustness, several), strict=True))
    results = saved("evaluation")
    for part in sys.argv[1:] or PARTS:
        results[part] = {"commit": commit(), **measures[part](subject)}
        save("evaluation", settings, results)


def question(subject: Subject, count: int) -> Question:
    """The first images of the hundred, spread over the classes, each explained for the class predicted."""
    x = subject.images(*range(0, 3 * count, 3))
    return Question(subject.module, x, subject.module(x).argmax(1))


def values(subject: Subject) -> dict[str, Any]:
    """The largest difference from Quantus' values, and what is lost by fewer levels."""
    asked = question(subject, IMAGES)
    return {
        "differences": agreement(asked, {**same(subject.module), **SIX}),
        "levels": levels(asked, same(subject.module), coarse(subject.module)),
    }


def suite(subject: Subject) -> dict[str, Any]:
    """The whole suite: Quantus, whybox at the same levels, whybox at its own, and the model alone."""
    asked = question(subject, IMAGES)
    names = tuple(same(subject.module))
    batch, by_batch = tuned({size: lambda size=size: [*run(asked, size, names)] for size in BATCHES}, repeats=1)
    model = subject.fresh()
    contenders: dict[str, Suite] = {
        "quantus": lambda: run(asked, batch, names),
        "same": lambda: ours(model, asked, same(subject.module)),
        "coarse": lambda: ours(model, asked, coarse(subject.module)),
    }
    counts = {name: counted(subject.module, work) for name, work in contenders.items()}
    contenders["raw"] = model_alone(asked, counts["same"])
    timed = in_turns(contenders)
    return {
        "quantus_batch": batch,
        "quantus_seconds_by_batch": by_batch,
        "evaluations": counts,
        "timed": timed,
        "ratio": {name: ratio(timed, name, "quantus") for name in ("same", "coarse", "raw")},
    }


class Nothing(nn.Module):
    """A model that costs nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """The first ten values."""
        return x.flatten(1)[:, :10]


def library(subject: Subject) -> dict[str, Any]:
    """What the libraries themselves take for each forward of the metrics that are all forwards."""
    asked = replace(question(subject, IMAGES), module=Nothing().eval())
    names = ("RegionPerturbation", "Deletion")
    metrics = {name: same(subject.module)[name] for name in names}
    model = Model(asked.module, domain=subject.model.domain, chunk=IMAGES)
    contenders: dict[str, Suite] = {
        "quantus": lambda: run(asked, IMAGES, names),
        "same": lambda: ours(model, asked, metrics),
    }
    counts = {name: counted(asked.module, work) for name, work in contenders.items()}
    return {"evaluations": counts, "timed": in_turns(contenders)}


def robustness(subject: Subject) -> dict[str, Any]:
    """Six metrics of robustness together, each alone, and all six by Quantus."""
    asked = question(subject, ROBUST)
    batch, by_batch = tuned(
        {size: lambda size=size: [*run(asked, size, ["MaxSensitivity"])] for size in BATCHES if size <= ROBUST},
        repeats=1,
    )
    model = subject.fresh()
    contenders: dict[str, Suite] = {
        "quantus": lambda: run(asked, batch, SIX),
        "six": lambda: ours(model, asked, SIX),
        **{name: lambda name=name: ours(model, asked, {name: SIX[name]}) for name in SIX},
    }
    counts = {name: counted(subject.module, work) for name, work in contenders.items()}
    timed = in_turns(contenders)
    return {
        "quantus_batch": batch,
        "quantus_seconds_by_batch": by_batch,
        "evaluations": counts,
        "timed": timed,
        "ratio": {name: ratio(timed, "six", name) for name in (*SIX, "quantus")},
    }


def several(subject: Subject) -> dict[str, Any]:
    """What one map after the other costs; Quantus starts afresh with each, so that it pays the same again."""
    asked = question(subject, FEW)
    names = tuple(same(subject.module))
    model = subject.fresh()

    def by_map(metrics: Mapping[str, Metric]) -> Iterator[str]:
        for number, _ in enumerate(ours(model, asked, metrics, max(MAPS))):
            yield str(number // len(metrics))

    contenders: dict[str, Suite] = {
        "quantus": lambda: run(asked, FEW, names),
        "same": lambda: by_map(same(subject.module)),
        "coarse": lambda: by_map(coarse(subject.module)),
    }
    counts = {name: counted(subject.module, work) for name, work in contenders.items()}
    return {"quantus_batch": FEW, "evaluations": counts, "timed": in_turns(contenders)}


def ours(model: Any, asked: Question, metrics: Mapping[str, Metric], maps: int = 1) -> Iterator[str]:
    """whybox's suite; further maps are the first one moved along, so that their orders differ."""
    with started(model, asked.x, asked.y) as task:
        samples = Samples(task)
        for number in range(maps):
            relevance = asked.relevance.roll(number, 3)
            case = as_case(samples, relevance, InputXGradient(), asked.truth)
            for name, metric in metrics.items():
                metric.score(case)
                yield name


def model_alone(asked: Question, counts: Mapping[str, Mapping[str, int]]) -> Suite:
    """As many forwards, and forwards with backwards, as were counted, in a loop at the best chunk size."""
    total, backwards = (sum(part[kind] for part in counts.values()) for kind in ("forwards", "backwards"))
    sizes = (8, 16, 32, 64)

    def work(ask: Callable[[nn.Module, Tensor, int, int], Tensor], times: int, size: int) -> None:
        for _ in range(times // len(asked.x)):
            ask(asked.module, asked.x, 3, size)

    batch = asked.x.repeat(2, 1, 1, 1)
    chunk = {
        ask: tuned({size: lambda ask=ask, size=size: ask(asked.module, batch, 3, size) for size in sizes}, 3)[0]
        for ask in (raw.scores, raw.gradients)
    }

    def both() -> Iterator[str]:
        work(raw.scores, total - backwards, chunk[raw.scores])
        yield "forwards"
        work(raw.gradients, backwards, chunk[raw.gradients])
        yield "gradients"

    return both


def in_turns(contenders: Mapping[str, Suite]) -> dict[str, dict[str, Any]]:
    """Time the contenders' parts, the contenders in turns; all have run before, when they were counted."""
    clocks = {"seconds": time.perf_counter, "processor_seconds": time.process_time}
    totals: dict[str, dict[str, list[float]]] = {name: {clock: [] for clock in clocks} for name in contenders}
    parts: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in contenders}
    for _ in range(ROUNDS):
        for name, suite in contenders.items():
            gc.collect()
            this_round: dict[str, float] = defaultdict(float)
            began = before = {clock: now() for clock, now in clocks.items()}
            for part in suite():
                after = {clock: now() for clock, now in clocks.items()}
                this_round[part] += after["processor_seconds"] - before["processor_seconds"]
                before = after
            for clock in clocks:
                totals[name][clock].append(before[clock] - began[clock])
            for part, seconds in this_round.items():
                parts[name][part].append(seconds)
    return {
        name: {
            **{clock: median(found) for clock, found in totals[name].items()},
            **{f"all_{clock}": found for clock, found in totals[name].items()},
            "parts": {part: median(found) for part, found in parts[name].items()},
        }
        for name in contenders
    }


def counted(module: nn.Module, suite: Suite) -> dict[str, dict[str, int]]:
    """How many images each part sends forward and backward, through the module and through copies of it."""
    counts = {"forwards": 0, "backwards": 0}

    def backward(gradient: Tensor) -> None:
        counts["backwards"] += len(gradient)

    def forward(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts["forwards"] += len(inputs[0])
        if output.requires_grad:
            output.register_hook(backward)

    hook = module.register_forward_hook(forward)
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"forwards": 0, "backwards": 0})
    try:
        for part in suite():
            for kind, count in counts.items():
                found[part][kind] += count
                counts[kind] = 0
    finally:
        hook.remove()
    return dict(found)


if __name__ == "__main__":
    main()
