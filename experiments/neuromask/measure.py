"""Measuring, and keeping what was measured: a file for every block of pictures and entry.

A run goes on where another was stopped, and measures anew what was measured with other settings.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from experiments.common.kept import keep, known
from experiments.neuromask.entries import NEUROMASK, ROWS, SEARCHES, Entry, Row, Search
from experiments.neuromask.subjects import Subject, in_chunks
from safetensors.torch import load_file
from torch import Tensor

import whybox
from whybox.core.reference import Black, Blur
from whybox.core.start import started
from whybox.evaluation.case import Case, Samples
from whybox.evaluation.metric import case
from whybox.evaluation.removal import Ranks

STEPS = 10
SHARES = (0.1, 0.25)
SMALLEST_FACTOR, LARGEST_FACTOR, HALVINGS = -12.0, 24.0, 60  # powers of ten between which a factor is searched


def metrics(subject: Subject) -> dict[str, whybox.Metric]:
    """The curves, by name."""
    infills = {"black": Black(), "blur": Blur(subject.blur)}
    return {
        f"{name}, {hidden}": metric(steps=STEPS, infill=infill)
        for hidden, infill in infills.items()
        for name, metric in (("insertion", whybox.Insertion), ("deletion", whybox.Deletion))
    }


def measure(subject: Subject, folder: Path) -> None:
    """Measure what is not known yet, and keep it as it comes."""
    todo: dict[tuple[int, int], list[tuple[Entry, Path]]] = {}
    for entry in (*ROWS, *SEARCHES):  # NeuroMask is first: the others are compared at its masks' size
        for path, start, stop in entry.paths(subject, folder):
            if not known(path, _settings(subject, entry)):
                todo.setdefault((start, stop), []).append((entry, path))
    for (start, stop), missing in sorted(todo.items(), key=lambda one: (one[0][0], -one[0][1])):
        began = time.perf_counter()
        with _asked(subject, start, stop) as block:
            for entry, path in missing:
                found = block.row(entry, folder) if isinstance(entry, Row) else block.search(entry)
                keep(found, path, _settings(subject, entry))
        done = f"{subject.name}: pictures {start} to {stop - 1}, {len(missing)} entries"
        print(f"{done}, {time.perf_counter() - began:.0f} s", flush=True)


def _settings(subject: Subject, entry: Entry) -> dict[str, str]:
    """What is measured depends on this, besides the code."""
    settings = {
        **asdict(entry),
        "method": entry.method.config(),
        "compared with": NEUROMASK.method.config(),
        "metrics": {name: metric.config() for name, metric in metrics(subject).items()},
        "shares": SHARES,
        "weights": subject.weights,
    }
    return {"settings": json.dumps(settings, sort_keys=True)}


@dataclass(frozen=True)
class _Block:
    """Some pictures, the classes that the model predicts for them, and all who are asked about them.

    All noise is keyed by the place of the picture: the block's beginning is the seed.
    """

    subject: Subject
    start: int
    inputs: Tensor
    target: Tensor
    asked: dict[str, Samples]

    @property
    def model(self) -> whybox.Model:
        """The model that is explained."""
        return self.subject.model

    def row(self, entry: Row, folder: Path) -> dict[str, Tensor]:
        """A row of the table: curves, and what is said of the pictures with only the map's best places shown."""
        found: dict[str, Tensor] = {}
        if entry.use == "moved":
            found["map"] = self._masks(folder)
        else:
            found = self._explained(entry, self.model, self.inputs, self.target, self.start)
        relevance = entry.relevance(found["map"])
        found["map"] = relevance[:, 0].contiguous()
        samples = self.asked[""]
        one = case(samples, relevance)
        for name, metric in metrics(self.subject).items():
            found[name] = metric.score(one).values
        masks = relevance if entry is NEUROMASK else self._masks(folder)
        light = masks.double().flatten(1).sum(1)
        places = relevance[0].numel()
        shown = {
            "dimmed": dimmed(relevance, light),
            "equal": highest(one, light),
            **{f"{share:.0%}": highest(one, torch.full_like(light, share * places)) for share in SHARES},
        }
        for how, mask in shown.items():
            found |= self._answers(how, mask)
        found |= self._whole()
        found["correct"] = self.target == self.subject.labels[self.start : self.start + len(self.inputs)]
        return found

    def search(self, entry: Search) -> dict[str, Tensor]:
        """A further search: its masks and what is said of the pictures under them."""
        model = in_chunks(self.model, max(1, self.subject.block // entry.chunks)) if entry.chunks > 1 else self.model
        inputs, target = self.inputs, self.target
        if entry.noise:
            generator = torch.Generator().manual_seed(self.start)
            spread = inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)
            noise = torch.randn(inputs.shape, generator=generator)
            inputs = inputs + entry.noise * spread.view(-1, 1, 1, 1) * noise
        if entry.other:
            target = other_class(target, len(model.labels or ()))
        found = self._explained(entry, model, inputs, target, self.start + entry.seed)
        masks = found["map"]
        with _asked(self.subject, self.start, self.start + len(inputs), target) as block:
            found |= block._answers("dimmed", masks)
            found |= block._whole()
        return found | {"map": masks[:, 0].contiguous()}

    def _masks(self, folder: Path) -> Tensor:
        """NeuroMask's masks of these pictures."""
        paths = NEUROMASK.paths(self.subject, folder)
        return load_file(next(path for path, start, _ in paths if start == self.start))["map"][: len(self.inputs), None]

    def _explained(
        self, entry: Entry, model: whybox.Model, inputs: Tensor, target: Tensor, seed: int
    ) -> dict[str, Tensor]:
        """The map, what it cost for each picture, and what is known of it where it is a mask."""
        began = time.process_time()
        answer = entry.method.run(model, inputs, target, seed=seed)
        seconds = time.process_time() - began
        assert isinstance(answer.relevance, Tensor)
        each = torch.ones(len(inputs), dtype=torch.float64) / len(inputs)
        found = {
            "map": answer.relevance.contiguous(),
            "seconds": seconds * each,
            "evaluations": (answer.forwards + answer.backwards) * each,
        }
        if isinstance(entry.method, whybox.NeuroMask):
            found["area"] = (answer.relevance > 0.5).double().flatten(1).mean(1)
            found["light"] = answer.relevance.double().flatten(1).mean(1)
            found["loss"] = answer.details["losses"].nan_to_num(torch.inf).amin(1)
            found["lost"] = torch.stack([~check.passed for check in answer.checks]).any(0)
        if "film" in answer.details:
            found["film"] = answer.details["film"].contiguous()
        return found

    def _whole(self) -> dict[str, Tensor]:
        """The probability of the class for the pictures themselves, by the model and by its judges."""
        return {_key("whole", who): samples.originals.probability for who, samples in self.asked.items()}

    def _answers(self, how: str, mask: Tensor) -> dict[str, Tensor]:
        """The probability of the class for x m + black (1 − m), by the model and by its judges."""
        black = Black().fill(self.inputs, self.model.domain_of(self.inputs), [])
        shown = torch.lerp(black, self.inputs, mask.to(self.inputs.dtype))
        return {
            _key(how, who): samples.ask(1, lambda sample, _: shown[sample]).probability[:, 0]
            for who, samples in self.asked.items()
        }


def _key(how: str, who: str) -> str:
    return f"{how}|{who}" if who else how


@contextmanager
def _asked(subject: Subject, start: int, stop: int, target: Tensor | None = None) -> Iterator[_Block]:
    """A block of pictures, for this target or the class predicted, while the models are guarded."""
    inputs = subject.inputs(start, stop)
    with ExitStack() as stack:
        task = stack.enter_context(started(subject.model, inputs, target, seed=start))
        pinned = torch.as_tensor(task.target.index)
        asked = {"": Samples(task)}
        for name, judge in subject.judges.items():
            asked[name] = Samples(stack.enter_context(started(judge, inputs, pinned, seed=start)))
        yield _Block(subject, start, inputs, pinned, asked)


def other_class(index: Any, classes: int) -> Any:
    """The class half of all classes further on."""
    return (index + classes // 2) % classes


def highest(one: Case, count: Tensor) -> Tensor:
    """1 at so many of a map's highest places (n,), at least one, else 0: (n, 1, h, w)."""
    ranks = one.once(Ranks(whybox.Pixels()))
    kept = ranks < count.round().clamp_min(1)[:, None]
    return kept.view(len(count), 1, *one.task.inputs.shape[2:]).double()


def dimmed(relevance: Tensor, light: Tensor) -> Tensor:
    """min(1, a R⁺) with a such that it sums to `light` (n,), or as near as it gets: maps as masks of equal light."""
    positive = relevance.double().clamp_min(0)
    positive = positive / positive.flatten(1).amax(1).clamp_min(torch.finfo(torch.double).tiny).view(-1, 1, 1, 1)
    low, high = torch.full_like(light, SMALLEST_FACTOR), torch.full_like(light, LARGEST_FACTOR)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        more = (positive * 10 ** middle.view(-1, 1, 1, 1)).clamp_max(1).flatten(1).sum(1) < light
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (positive * 10 ** low.view(-1, 1, 1, 1)).clamp_max(1)
