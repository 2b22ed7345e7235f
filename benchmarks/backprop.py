"""LRP: its time and memory as ratios to one forward pass and input gradient in plain torch, and against other LRPs."""

import ctypes
import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.measure import ROOT, ROUNDS, interleaved, one_thread, quantiles, ratio, save
from benchmarks.peers import EPSILON, GAMMA, TARGET, captum, gradient, zennit
from benchmarks.subjects import squeezenet
from whybox import LRP, Model, models
from whybox.attribution.backprop import sharing

PROCESSES = 3
# The images at once, the side, and the highest ratio of each composite.
GOALS = {"epsilon": 1.25, "epsilon_plus_flat": 1.5, "epsilon_plus": 1.9, "epsilon_gamma_box": 2.2}
SUBJECTS = {
    "SqueezeNet 1.0": ("squeezenet1_0", 4, 227, GOALS),
    "SqueezeNet 1.1": ("squeezenet1_1", 4, 227, GOALS),
    "ResNet-50": ("resnet50", 2, 224, {**GOALS, "epsilon_gamma_box": 2.6}),
    "VGG16": ("vgg16", 1, 224, GOALS),
}
PEERS = {"zennit": zennit, "Captum": captum}
AT_LEAST = {"zennit": 2.0, "Captum": 1.6}
MEMORY_GOAL = 1.5

Work = Callable[[], Any]


def main() -> None:
    """Measure all models, or, with arguments, the memory of one contender in this process."""
    one_thread()
    if sys.argv[1:]:
        print(json.dumps(peak(*sys.argv[1:])))
        return
    settings = {
        "subjects": {name: {"images": count, "side": side} for name, (_, count, side, _) in SUBJECTS.items()},
        "weights": "SqueezeNet 1.0: ImageNet's; the others: random ones, seed 0",
        "goals": {name: goals for name, (*_, goals) in SUBJECTS.items()},
        "at least as fast as": AT_LEAST,
        "memory goal": MEMORY_GOAL,
        "rounds": ROUNDS,
        "memory kept": "glibc's mallopt: no mmap, no trimming",
        "processes for memory": PROCESSES,
        "epsilon": EPSILON,
        "gamma": GAMMA,
        "zennit": "attributor entered once, before timing; ResNet-50: ResNetCanonizer; activations not in place",
        "Captum": "rules set before each call, which forgets them; activations not in place",
    }
    results = {name: measure(name) for name in SUBJECTS}
    _keep_memory()
    for name in SUBJECTS:
        results[name]["memory_kept"] = ablate(name)
        results[name]["memory"] = {each: memory(name, each) for each in ("gradient", *GOALS)}
    save("backprop", settings, results)


def load(name: str) -> tuple[Model, Tensor]:
    """The model, all images in one chunk, and the images."""
    architecture, count, side, _ = SUBJECTS[name]
    real = squeezenet()
    x = real.images(*range(count))[..., :side, :side].contiguous()
    model = real.model if architecture == "squeezenet1_0" else models.load(f"torchvision:{architecture}", "random")
    return Model(model.module, domain=real.model.domain, chunk=count), x


def measure(name: str) -> dict[str, Any]:
    """Time and agreement on one model."""
    model, x = load(name)
    contenders, absent, agreement = ours(model, x), {}, {}
    for peer, make in PEERS.items():
        for composite in GOALS:
            try:
                work = make(model, x, composite)
                agreement[f"{peer} {composite}"] = distance(work(), LRP(composite)(model, x, TARGET))
                contenders[f"{peer} {composite}"] = work
            except Exception as error:
                absent[f"{peer} {composite}"] = f"{type(error).__name__}: {error}"
    timed = interleaved(contenders)
    return {
        "timed": timed,
        "ratio": {each: ratio(timed, each, "gradient") for each in timed if each != "gradient"},
        "times_as_fast": {each: ratio(timed, each, each.split()[1]) for each in timed if each.split()[0] in PEERS},
        "relative_distance": agreement,
        "absent": absent,
    }


def ablate(name: str) -> dict[str, Any]:
    """What remains where the allocator keeps all memory; the least that is to be done; and with the weights kept."""
    model, x = load(name)
    kept = Kept()
    contenders = ours(model, x) | {
        "gradient and another forward": lambda: _twice(model.module, x),
        "epsilon_plus_flat, weights kept": lambda: kept.call(lambda: LRP("epsilon_plus_flat")(model, x, TARGET)),
    }
    timed = interleaved(contenders)
    return {"timed": timed, "ratio": {each: ratio(timed, each, "gradient") for each in timed if each != "gradient"}}


def ours(model: Model, x: Tensor) -> dict[str, Work]:
    """The gradient, and whybox's composites."""
    asked: dict[str, Work] = {"gradient": lambda: gradient(model.module, x)}
    return asked | {composite: partial(LRP(composite), model, x, TARGET) for composite in GOALS}


def _keep_memory() -> None:
    """Let the allocator of this process give nothing back, so that nobody pays for page faults that others caused."""
    for parameter, value in ((-1, 2**31 - 1), (-4, 0)):  # M_TRIM_THRESHOLD, M_MMAP_MAX
        ctypes.CDLL(None).mallopt(parameter, value)


def distance(theirs: Tensor, own: Tensor) -> float | None:
    """‖theirs − own‖ / ‖own‖: near 0 where both compute the same thing; None where theirs is not finite."""
    found = float((theirs.detach() - own).norm() / own.norm())
    return found if math.isfinite(found) else None


def _twice(module: nn.Module, x: Tensor) -> None:
    """What a rule with its own denominators cannot do without: another forward pass beside the gradient's."""
    gradient(module, x)
    with torch.no_grad():
        module(x)


class Kept:
    """An ablation: folded and clamped weights are kept from call to call (of a model that does not change)."""

    def __init__(self) -> None:
        self.weights: dict[Any, tuple[Tensor, Tensor]] = {}
        self.make, self.mix = sharing.LinearMap.weight.fget, sharing._mixed

    def call(self, work: Work) -> Any:
        """Run with the weights kept."""
        with (
            patch.object(sharing.LinearMap, "weight", property(self._weight)),
            patch.object(sharing, "_mixed", self._mix),
        ):
            return work()

    def _weight(self, linear: Any) -> Tensor:
        return self._find((linear.own.data_ptr(), linear.own.shape), linear.own, lambda: self.make(linear))

    def _mix(self, value: Tensor, mix: Any) -> Tensor:
        if value.ndim == 1:
            return self.mix(value, mix)
        return self._find((value.data_ptr(), value.shape, mix), value, lambda: self.mix(value, mix))

    def _find(self, key: Any, source: Tensor, make: Callable[[], Tensor]) -> Tensor:
        if key not in self.weights:
            self.weights[key] = source, make()
        return self.weights[key][1]


def memory(name: str, contender: str) -> dict[str, Any]:
    """Medians over fresh processes: the peak, and what of it came on top of the loaded model."""
    found = []
    for _ in range(PROCESSES):
        command = [sys.executable, "-m", "benchmarks.backprop", name, contender]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    return {
        "peak": quantiles(each["peak"] for each in found),
        "added": quantiles(each["peak"] - each["before"] for each in found),
    }


def peak(name: str, contender: str) -> dict[str, int]:
    """Bytes in memory with the model loaded, and at the highest while the contender runs twice."""
    model, x = load(name)
    model(x[:1, :, :64, :64])  # loads what torch loads when a model first runs
    if contender == "gradient":
        return peak_of(lambda: gradient(model.module, x))
    return peak_of(lambda: LRP(contender)(model, x, TARGET))


def peak_of(work: Work) -> dict[str, int]:
    """The same for any work, done twice."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew
    before = _status("VmRSS")
    for _ in range(2):
        work()
    return {"before": before, "peak": _status("VmHWM")}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
