"""The stream: how much slower whybox runs many variants through a model than the best loop in plain PyTorch.

The raw loop is given its variants ready-made, and the best chunk size; whybox makes its own noise, guards the model,
checks inputs and relevance, and finds the chunk size itself: "cold" in the same call, "warm" in an earlier one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import raw
from benchmarks.measure import interleaved, one_thread, ratio, save, tuned
from benchmarks.subjects import SUBJECTS, Subject
from whybox import Gradient, Method, Model, SmoothGrad, Task

CHUNKS = (1, 2, 4, 8, 16, 32, 64)
# Samples and noisy copies of each.
SIZES = {"SqueezeNet": (1, 32), "ResNet-20": (16, 32)}
TARGET = 3


@dataclass(frozen=True)
class Score(Method):
    """Asks for the scores only, as a perturbation method does."""

    taxonomy = Gradient.taxonomy

    def attribute(self, task: Task) -> Tensor:
        """The score of every input, in the shape of a relevance."""
        return task.score(task.inputs).view(-1, 1, 1, 1)


def measure(subject: Subject) -> dict[str, Any]:
    """All contenders on one model."""
    samples, copies = SIZES[subject.name]
    x = subject.images(*range(samples))
    generator = torch.Generator().manual_seed(0)
    variants = x.repeat_interleave(copies, 0)
    variants = variants + 0.5 * torch.randn(variants.shape, generator=generator)

    def gradient(model: Model) -> Any:
        return Gradient()(model, variants, TARGET)

    def smooth(model: Model) -> Any:
        return SmoothGrad(samples=copies)(model, x, TARGET)

    def score(model: Model) -> Any:
        return Score()(model, variants, TARGET)

    return {
        "variants": len(variants),
        "gradient": contest(subject, variants, raw.gradients, {"Gradient": gradient, "SmoothGrad": smooth}),
        "forward": contest(subject, variants, raw.scores, {"score": score}),
    }


def contest(
    subject: Subject,
    variants: Tensor,
    loop: Callable[[Any, Tensor, int, int], Tensor],
    asked: dict[str, Callable[[Model], Any]],
) -> dict[str, Any]:
    """The raw loop at its best chunk against whybox, warm and cold."""
    chunk, by_chunk = tuned({c: lambda c=c: loop(subject.module, variants, TARGET, c) for c in CHUNKS})
    warm = {name: subject.fresh() for name in asked}
    for name, ask in asked.items():
        for _ in range(3):  # as many as it takes to settle
            ask(warm[name])
    contenders: dict[str, Callable[[], Any]] = {"raw": lambda: loop(subject.module, variants, TARGET, chunk)}
    for name, ask in asked.items():
        contenders[f"{name} warm"] = lambda ask=ask, name=name: ask(warm[name])
        contenders[f"{name} cold"] = lambda ask=ask: ask(subject.fresh())
    timed = interleaved(contenders)
    found = {name: sorted({size.size for size in model._chunk_sizes.values()}) for name, model in warm.items()}
    return {
        "raw_chunk": chunk,
        "raw_seconds_by_chunk": by_chunk,
        "chunk_found": found,
        "timed": timed,
        "ratio": {name: ratio(timed, name, "raw") for name in timed if name != "raw"},
    }


def main() -> None:
    """Measure both models."""
    one_thread()
    settings = {"chunks": CHUNKS, "samples and copies": SIZES, "goal": 1.1}
    save("stream", settings, {name: measure(make()) for name, make in SUBJECTS.items()})


if __name__ == "__main__":
    main()
