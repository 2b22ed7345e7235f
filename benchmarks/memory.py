"""Peak memory of integrated gradients and SmoothGrad against their number of steps, each in a fresh process."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.measure import ROOT, one_thread, save
from benchmarks.subjects import SUBJECTS, Subject
from whybox import IntegratedGradients, SmoothGrad

COUNTS = (8, 32, 128)
TARGET = 3
BATCH = {"SqueezeNet": 4, "ResNet-20": 32}
# Captum's defaults run all steps at once; on SqueezeNet that takes gigabytes, which the shared machine may not have.
ALL_AT_ONCE = {"SqueezeNet": (8, 32), "ResNet-20": COUNTS}
METHODS = ("IntegratedGradients", "SmoothGrad")
CONTENDERS = ("whybox", "Captum, batch set", "Captum, as it comes")


def main() -> None:
    """Measure both models, or, with arguments, one number in this process."""
    one_thread()
    if sys.argv[1:]:
        name, method, contender, count = sys.argv[1:]
        print(json.dumps(peak(SUBJECTS[name](), method, contender, int(count))))
        return
    results: dict[str, Any] = {name: {method: {} for method in METHODS} for name in SUBJECTS}
    for name in SUBJECTS:
        for method in METHODS:
            for contender in CONTENDERS:
                counts = ALL_AT_ONCE[name] if contender == CONTENDERS[2] else COUNTS
                found = {count: in_a_process(name, method, contender, count) for count in counts}
                results[name][method][contender] = {"bytes": found, **growth(found)}
    settings = {"counts": COUNTS, "Captum's batch": BATCH, "goal": 1.05, "images": 1}
    save("memory", settings, results)


def growth(found: dict[int, dict[str, int]]) -> dict[str, float]:
    """The largest over the smallest: of the whole process, and of what the method adds to the loaded model."""
    peaks = [each["peak"] for each in found.values()]
    added = [each["peak"] - each["before"] for each in found.values()]
    return {"ratio": max(peaks) / min(peaks), "ratio_of_added": max(added) / min(added)}


def in_a_process(*arguments: object) -> dict[str, int]:
    """The peak of one run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def peak(subject: Subject, method: str, contender: str, count: int) -> dict[str, int]:
    """Bytes at the peak of the run, and before it (model loaded, one gradient taken)."""
    x = subject.images(0)
    subject.module(x.requires_grad_())[:, TARGET].sum().backward()
    x = x.detach()
    subject.module.zero_grad()
    work = prepare(subject, x, method, contender, count)
    before = high_water()
    work()
    return {"before": before, "peak": high_water()}


def prepare(subject: Subject, x: Any, method: str, contender: str, count: int) -> Callable[[], Any]:
    """What is to be run, with everything imported."""
    if contender == "whybox":
        ours = IntegratedGradients(steps=count) if method == METHODS[0] else SmoothGrad(samples=count)
        return lambda: ours(subject.fresh(), x, TARGET)
    from captum import attr

    batch = BATCH[subject.name] if contender == "Captum, batch set" else None
    if method == METHODS[0]:
        path = attr.IntegratedGradients(subject.module)
        return lambda: path.attribute(x, target=TARGET, n_steps=count, internal_batch_size=batch)
    tunnel, spread = attr.NoiseTunnel(attr.Saliency(subject.module)), 0.15 * float(x.max() - x.min())
    kind = {"nt_samples": count, "nt_samples_batch_size": batch, "stdevs": spread}
    return lambda: tunnel.attribute(x, target=TARGET, abs=False, **kind)


def high_water() -> int:
    """The largest resident size of this process so far, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


if __name__ == "__main__":
    main()
