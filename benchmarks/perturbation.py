"""Methods that hide parts of the input: their cost over the forwards that they need, and against Captum's.

Eight images at once. The raw loop is given as many variants ready-made, at the best chunk size: nothing can be faster.
whybox chooses, hides, fills and sums up besides; its chunk size has been found in earlier calls. Captum runs at its
best number of images and `perturbations_per_eval` at once; where it explains one image at a time, image by image.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from captum import attr
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import raw
from benchmarks.measure import commit, evaluations, interleaved, one_thread, ratio, save, saved, tuned
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
from whybox.core.stream import keep_freed_memory

TARGET = 3
IMAGES = 8
CHUNKS = (1, 2, 4, 8, 16, 32, 64)

Work = Callable[[], Any]
# Images and perturbations of each that Captum runs at once.
Setting = tuple[int, int]
Peer = Callable[[nn.Module, Tensor, Tensor, int], Any]


@dataclass(frozen=True)
class Size:
    """How much is asked of a model.

    Attributes:
        pixels: the edge of an image; one that is larger is scaled down.
        samples: variants of an image; KernelSHAP takes twice, ShapleySampling thrice as many.
        window: the edge of a window, without overlap.
        regions: superpixels of an image.
        orders: of the regions, that Captum's Shapley sampling goes through.
        at_once: how many variants Captum is tried with at once.
    """

    pixels: int
    samples: int
    window: int
    regions: int
    orders: int
    at_once: tuple[int, ...]


# At 227 pixels a forward pass of SqueezeNet takes forty times as long as one of ResNet-20: fewer and smaller ones.
SIZES = {"ResNet-20": Size(32, 64, 4, 40, 4, (8, 16, 32, 64)), "SqueezeNet": Size(128, 24, 32, 12, 2, (4, 8, 16))}


def main() -> None:
    """Measure both models, or those named on the command line; each method is saved when it is done."""
    one_thread()
    subjects = [SUBJECTS[name]() for name in sys.argv[1:] or SIZES]
    settings = {
        "images": IMAGES,
        "sizes": {name: vars(size) for name, size in SIZES.items()},
        "chunks tried": CHUNKS,
        "goal": 1.1,
        "share goal": 0.9,
    }
    given_back = {subject.name: tuned(by_chunk(subject), repeats=1)[1] for subject in subjects}
    # As whybox does at its first call; from here on raw and Captum have it as well.
    keep_freed_memory()
    results = saved("perturbation")
    for subject in subjects:
        chunk, seconds = tuned(by_chunk(subject))
        results[subject.name] = {
            "commit": commit(),
            "raw_chunk": chunk,
            "raw_seconds_by_chunk": seconds,
            "raw_seconds_by_chunk_memory_given_back": given_back[subject.name],
            "methods": {},
        }
        for name, found in measure(subject, chunk):
            results[subject.name]["methods"][name] = found
            save("perturbation", settings, results)


def images(subject: Subject) -> Tensor:
    """The images to explain."""
    x, pixels = subject.images(*range(IMAGES)), SIZES[subject.name].pixels
    return x if x.shape[-1] == pixels else functional.interpolate(x, size=(pixels, pixels), mode="area")


def by_chunk(subject: Subject) -> dict[int, Work]:
    """The raw loop at each chunk size."""
    variants = images(subject).repeat_interleave(SIZES[subject.name].samples, 0)
    return {chunk: lambda chunk=chunk: raw.scores(subject.module, variants, TARGET, chunk) for chunk in CHUNKS}


def measure(subject: Subject, chunk: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method on one model."""
    size = SIZES[subject.name]
    samples, w, regions = size.samples, size.window, Superpixels(size.regions)

    def occlusion(f: nn.Module, x: Tensor, _: Tensor, at_once: int) -> Any:
        return attr.Occlusion(f).attribute(
            x, (3, w, w), strides=(3, w, w), target=TARGET, perturbations_per_eval=at_once
        )

    def fitted(explainer: Any, count: int) -> Peer:
        return lambda f, x, labels, at_once: explainer(f).attribute(
            x, target=TARGET, feature_mask=labels, n_samples=count, perturbations_per_eval=at_once
        )

    alone = [(1, at_once) for at_once in size.at_once]
    together = [(IMAGES, at_once // IMAGES) for at_once in size.at_once if at_once >= IMAGES]
    methods: dict[str, tuple[Method, Peer | None, list[Setting]]] = {
        "Occlusion": (Occlusion(window=w, stride=w), occlusion, [*alone, *together]),
        "RISE": (RISE(samples=samples), None, []),
        "LIME": (LIME(samples=samples, regions=regions), fitted(attr.Lime, samples), alone),
        "KernelSHAP": (
            KernelSHAP(samples=2 * samples, regions=regions),
            fitted(attr.KernelShap, 2 * samples),
            alone,
        ),
        "ShapleySampling": (
            ShapleySampling(samples=3 * samples, regions=regions),
            fitted(attr.ShapleyValueSampling, size.orders),
            [*alone, *together],
        ),
        "PredictionDifference": (PredictionDifference(window=w, stride=w, samples=2), None, []),
    }
    x = images(subject)
    labels = regions.labels(x)
    for name, (ours, peer, settings) in methods.items():
        peers = {each: grouped(peer, labels, each) for each in settings if peer}
        yield name, contest(subject, x, chunk, ours, peers)


def grouped(peer: Peer, labels: Tensor, setting: Setting) -> Callable[[nn.Module, Tensor], Any]:
    """Captum's method on so many of the images at a time."""
    images, at_once = setting
    return lambda f, x: [peer(f, x[i : i + images], labels[i : i + images], at_once) for i in range(0, len(x), images)]


def contest(
    subject: Subject,
    x: Tensor,
    chunk: int,
    ours: Method,
    peers: dict[Setting, Callable[[nn.Module, Tensor], Any]],
) -> dict[str, Any]:
    """One method against the raw forwards and Captum at its best setting.

    A ratio is of seconds per evaluation, so that it counts what comes on top of a contender's own forwards.
    """
    model = subject.fresh()
    for _ in range(3):
        answer = ours.run(model, x, TARGET)
    variants = x.repeat_interleave(-(-answer.forwards // len(x)), 0)[: answer.forwards]
    contenders: dict[str, Work] = {
        "raw": lambda: raw.scores(subject.module, variants, TARGET, chunk),
        "whybox": lambda: ours(model, x, TARGET),
    }
    asked = {"whybox": answer.forwards}
    best, by_setting = None, {}
    if peers:
        best, by_setting = tuned(
            {each: lambda peer=peer: peer(subject.module, x) for each, peer in peers.items()}, repeats=1
        )
        contenders["captum"] = lambda: peers[best](subject.module, x)
        asked["captum"] = evaluations(subject.module, lambda f: peers[best](f, x))["forwards"]
    timed = interleaved(contenders)
    return {
        "whybox": repr(ours),
        "chunk_found": sorted({size.size for size in model._chunk_sizes.values()}),
        "captum_images_and_perturbations_at_once": best,
        "captum_seconds_by_setting": by_setting,
        "timed": timed,
        "ratio": {
            name: {clock: value * answer.forwards / count for clock, value in ratio(timed, name, "raw").items()}
            for name, count in asked.items()
        },
        "evaluations": asked,
    }


if __name__ == "__main__":
    main()
