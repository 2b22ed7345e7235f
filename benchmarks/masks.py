"""NeuroMask's default against the authors' 2,000 steps, picture by picture; and a batch against pictures one by one.

The pictures are every fifth (ResNet-20, from the fourth) and every tenth (SqueezeNet, from the first) of the hundred
fixed ones; the default was tuned on others. The reference takes minutes for a photograph and does not change with the
default, so it is saved after every picture, and one that is saved is not measured again.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.measure import commit, interleaved, one_thread, ratio, save, saved
from benchmarks.subjects import SUBJECTS, Subject
from whybox import Deletion, Insertion, NeuroMask

PICTURES = {"ResNet-20": range(3, 100, 5), "SqueezeNet": range(0, 100, 10)}
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
        pictures = found["pictures"]
        for number, one in measured(NeuroMask(), subject, PICTURES[name]).items():
            pictures.setdefault(number, {})["default"] = one
        save("masks", settings, results)
        for number in PICTURES[name]:
            if "reference" not in pictures[str(number)]:
                pictures[str(number)]["reference"] = measured(NeuroMask.reference(), subject, [number])[str(number)]
                save("masks", settings, results)
        found["batch"] = together(subject)
        found["commit"] = commit()
        save("masks", settings, results)


def measured(method: NeuroMask, subject: Subject, numbers: Sequence[int]) -> dict[str, dict[str, Any]]:
    """What is found for each of these pictures, and how good it is."""
    model, x = subject.fresh(), subject.images(*numbers)
    found = method.run(model, x)
    target = torch.cat([subject.module(one[None]).argmax(1) for one in x])
    columns = {
        "loss": found.details["losses"].nan_to_num(torch.inf).amin(1),
        "evaluations": found.details["evaluations"],
        "kept": torch.stack([check.passed for check in found.checks]).all(0),
        "probability": found.details["kept_probability"],
        "insertion": Insertion()(model, x, target, found.relevance),
        "deletion": Deletion()(model, x, target, found.relevance),
    }
    return {
        str(number): {**{name: column[row].item() for name, column in columns.items()}, "commit": commit()}
        for row, number in enumerate(numbers)
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
