"""Methods that hide parts of the input: their cost over the forwards that they need, and against Captum's.

Eight images at once. The raw loop is given as many variants ready-made, at the best chunk size: nothing can be faster.
whybox chooses, hides, fills and sums up besides; its chunk size has been found in earlier calls. Captum runs at its
best `perturbations_per_eval`, its LIME image by image, because it explains one at a time.
"""

from collections.abc import Callable
from typing import Any

from captum import attr
from torch import Tensor, nn

from benchmarks import raw
from benchmarks.measure import evaluations, interleaved, one_thread, ratio, save, tuned
from benchmarks.subjects import SUBJECTS, Subject
from whybox import (
    LIME,
    RISE,
    KernelSHAP,
    Method,
    Occlusion,
    PredictionDifference,
    ShapleySampling,
    Superpixels,
)

TARGET = 3
IMAGES = 8
SAMPLES = 64
CHUNKS = (1, 2, 4, 8, 16, 32, 64)
# Windows of a picture: 8 × 8 of them without overlap.
WINDOWS = {"SqueezeNet": 29, "ResNet-20": 4}
REGIONS = Superpixels(40)

Peer = Callable[[nn.Module, Tensor], Any]


def main() -> None:
    """Measure both models."""
    one_thread()
    settings = {
        "images": IMAGES,
        "samples": SAMPLES,
        "windows": WINDOWS,
        "regions": repr(REGIONS),
        "chunks tried": CHUNKS,
        "goal": 1.1,
    }
    save("perturbation", settings, {name: measure(make()) for name, make in SUBJECTS.items()})


def measure(subject: Subject) -> dict[str, Any]:
    """Every method on one model."""
    x = subject.images(*range(IMAGES))
    w = WINDOWS[subject.name]
    labels = REGIONS.labels(x)

    def occlusion(at_once: int) -> Peer:
        return lambda f, x: attr.Occlusion(f).attribute(
            x, (3, w, w), strides=(3, w, w), target=TARGET, perturbations_per_eval=at_once
        )

    def lime(at_once: int) -> Peer:
        return lambda f, x: [
            attr.Lime(f).attribute(
                x[i : i + 1],
                target=TARGET,
                feature_mask=labels[i : i + 1],
                n_samples=SAMPLES,
                perturbations_per_eval=at_once,
            )
            for i in range(len(x))
        ]

    methods: dict[str, tuple[Method, Callable[[int], Peer] | None, tuple[int, ...]]] = {
        "Occlusion": (Occlusion(window=w, stride=w), occlusion, (1, 2, 4, 8)),
        "RISE": (RISE(samples=SAMPLES), None, ()),
        "LIME": (LIME(samples=SAMPLES, regions=REGIONS), lime, (1, 4, 8, 16, 32)),
        "KernelSHAP": (KernelSHAP(samples=2 * SAMPLES, regions=REGIONS), None, ()),
        "ShapleySampling": (ShapleySampling(samples=3 * SAMPLES, regions=REGIONS), None, ()),
        "PredictionDifference": (PredictionDifference(window=w, stride=w, samples=2), None, ()),
    }
    variants = x.repeat_interleave(SAMPLES, 0)
    chunk, by_chunk = tuned({c: lambda c=c: raw.scores(subject.module, variants, TARGET, c) for c in CHUNKS})
    found = {
        name: contest(subject, x, chunk, ours, {size: peer(size) for size in sizes} if peer else {})
        for name, (ours, peer, sizes) in methods.items()
    }
    return {"raw_chunk": chunk, "raw_seconds_by_chunk": by_chunk, "methods": found}


def contest(subject: Subject, x: Tensor, chunk: int, ours: Method, peers: dict[int, Peer]) -> dict[str, Any]:
    """One method against the raw forwards and Captum at its best setting."""
    model = subject.fresh()
    for _ in range(3):
        answer = ours.run(model, x, TARGET)
    variants = x.repeat_interleave(-(-answer.forwards // len(x)), 0)[: answer.forwards]
    contenders: dict[str, Callable[[], Any]] = {
        "raw": lambda: raw.scores(subject.module, variants, TARGET, chunk),
        "whybox": lambda: ours(model, x, TARGET),
    }
    best, by_setting = None, {}
    if peers:
        best, by_setting = tuned(
            {size: lambda peer=peer: peer(subject.module, x) for size, peer in peers.items()}, repeats=1
        )
        contenders["captum"] = lambda: peers[best](subject.module, x)
    timed = interleaved(contenders)
    asked = {"whybox": answer.forwards}
    if best is not None:
        asked["captum"] = evaluations(subject.module, lambda f: peers[best](f, x))["forwards"]
    return {
        "whybox": repr(ours),
        "chunk_found": sorted({size.size for size in model._chunk_sizes.values()}),
        "captum_perturbations_per_eval": best,
        "captum_seconds_by_setting": by_setting,
        "timed": timed,
        "ratio": {name: ratio(timed, name, "raw") for name in timed if name != "raw"},
        "evaluations": asked,
    }


if __name__ == "__main__":
    main()
