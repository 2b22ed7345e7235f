"""NeuroMask's default against the authors' 2,000 steps, picture by picture; and a batch against pictures one by one.

The pictures are every fifth (ResNet-20) and every tenth (SqueezeNet) of the hundred fixed ones, from the first; the
default was tuned on others. What is measured is saved after every picture. The reference takes minutes for a
photograph and does not change with the default, so that one that is saved is not measured again.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import commit, interleaved, one_thread, ratio, save, saved
from benchmarks.subjects import SUBJECTS, Subject
from whybox import Deletion, Insertion, NeuroMask

PICTURES = {"ResNet-20": range(0, 100, 5), "SqueezeNet": range(0, 100, 10)}
# How many pictures at once, and how many steps each, where a batch is timed.
TIMED = {"ResNet-20": (8, 40), "SqueezeNet": (4, 8)}


def main() -> None:
    """Measure both models, or those named on the command line."""
    one_thread()
    settings = {
        "default": repr(NeuroMask()),
        "reference": repr(NeuroMask.reference()),
        "share goal": 1 / 8,
        "timed": {name: {"pictures": pictures, "steps": steps} for name, (pictures, steps) in TIMED.items()},
    }
    results = saved("masks")
    for name in sys.argv[1:] or PICTURES:
        subject = SUBJECTS[name]()
        found = results.setdefault(name, {"pictures": {}})
        for number in PICTURES[name]:
            picture = found["pictures"].setdefault(str(number), {})
            x = subject.images(number)
            picture["default"] = measured(NeuroMask(), subject, x)
            if "reference" not in picture:
                picture["reference"] = measured(NeuroMask.reference(), subject, x)
            save("masks", settings, results)
        found["batch"] = together(subject)
        found["commit"] = commit()
        save("masks", settings, results)


def measured(method: NeuroMask, subject: Subject, x: Tensor) -> dict[str, Any]:
    """What is found for one picture, and how good it is."""
    model = subject.fresh()
    found = method.run(model, x)
    target = subject.module(x).argmax(1)
    return {
        "loss": float(found.details["losses"].nan_to_num(torch.inf).amin()),
        "evaluations": int(found.details["evaluations"]),
        "kept": bool(all(check.passed.all() for check in found.checks)),
        "probability": float(found.details["kept_probability"]),
        "insertion": float(Insertion()(model, x, target, found.relevance)),
        "deletion": float(Deletion()(model, x, target, found.relevance)),
        "commit": commit(),
    }


def together(subject: Subject) -> dict[str, Any]:
    """The pictures in one batch against one by one; the chunk size is known."""
    pictures, steps = TIMED[subject.name]
    x, model, method = subject.images(*range(pictures)), subject.fresh(), NeuroMask(steps=steps)
    timed = interleaved(
        {
            "batch": lambda: method(model, x),
            "one by one": lambda: [method(model, x[i : i + 1]) for i in range(pictures)],
        }
    )
    return {"timed": timed, "ratio": ratio(timed, "batch", "one by one")}


if __name__ == "__main__":
    main()
