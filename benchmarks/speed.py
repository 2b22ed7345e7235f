"""The speed of whybox's methods against Captum's, asked for the same thing; Captum at its best batch size."""

from collections.abc import Callable
from typing import Any

from captum import attr
from torch import Tensor, nn

from benchmarks.measure import evaluations, interleaved, one_thread, ratio, save, tuned
from benchmarks.subjects import SUBJECTS, Subject
from whybox import GradCAM, Gradient, InputXGradient, IntegratedGradients, Method, SmoothGrad

TARGET = 3
STEPS = 32
BATCHES = (1, 2, 4, 8, 16, 32)
IMAGES = {"SqueezeNet": 1, "ResNet-20": 16}
LAYERS = {"SqueezeNet": "features.12", "ResNet-20": "layer3"}
# Short calls are repeated, so that what is timed is not the clock.
REPEATS = {"SqueezeNet": 4, "ResNet-20": 8}

Peer = Callable[[nn.Module, Tensor], Any]


def main() -> None:
    """Measure both models."""
    one_thread()
    settings = {
        "steps and samples": STEPS,
        "images": IMAGES,
        "GradCAM's layer": LAYERS,
        "batch sizes tried": BATCHES,
        "repeats of methods of one gradient": REPEATS,
    }
    save("speed", settings, {name: measure(make()) for name, make in SUBJECTS.items()})


def measure(subject: Subject) -> dict[str, Any]:
    """Every method on one model."""
    x = subject.images(*range(IMAGES[subject.name]))
    spread = 0.15 * float(x.max() - x.min())
    several = [size for size in BATCHES if size >= len(x)]  # Captum's batch holds whole steps of all images

    def path(size: int) -> Peer:
        return lambda f, x: attr.IntegratedGradients(f).attribute(
            x, target=TARGET, n_steps=STEPS, internal_batch_size=size
        )

    def tunnel(size: int) -> Peer:
        return lambda f, x: attr.NoiseTunnel(attr.Saliency(f)).attribute(
            x, target=TARGET, abs=False, nt_samples=STEPS, nt_samples_batch_size=size, stdevs=spread
        )

    def cam(f: nn.Module, x: Tensor) -> Tensor:
        layer = dict(f.named_modules()).get(LAYERS[subject.name]) or f.get_submodule(f"module.{LAYERS[subject.name]}")
        coarse = attr.LayerGradCam(f, layer).attribute(x, TARGET, relu_attributions=True)
        return attr.LayerAttribution.interpolate(coarse, x.shape[2:], "bilinear")

    pairs: dict[str, tuple[Method, dict[Any, Peer]]] = {
        "Gradient": (Gradient(), {None: lambda f, x: attr.Saliency(f).attribute(x, TARGET, abs=False)}),
        "InputXGradient": (InputXGradient(), {None: lambda f, x: attr.InputXGradient(f).attribute(x, TARGET)}),
        "GradCAM": (GradCAM(layer=LAYERS[subject.name]), {None: cam}),
        "IntegratedGradients": (
            IntegratedGradients(steps=STEPS),
            {size: path(size) for size in (*several, 2 * max(BATCHES), len(x) * STEPS)},
        ),
        "SmoothGrad": (
            SmoothGrad(samples=STEPS),
            {size: tunnel(size) for size in BATCHES if size * len(x) <= 2 * max(*BATCHES, len(x)) or size == STEPS},
        ),
    }
    return {name: contest(subject, x, ours, peers) for name, (ours, peers) in pairs.items()}


def contest(subject: Subject, x: Tensor, ours: Method, peers: dict[Any, Peer]) -> dict[str, Any]:
    """One method against Captum's at its best setting."""
    best, by_setting = next(iter(peers)), {}
    if len(peers) > 1:
        best, by_setting = tuned({size: lambda peer=peer: peer(subject.module, x) for size, peer in peers.items()})
    peer = peers[best]
    repeats = REPEATS[subject.name] if len(peers) == 1 else 1

    def again(work: Callable[[], Any]) -> Callable[[], None]:
        return lambda: [work() for _ in range(repeats)] and None

    model = subject.fresh()
    for _ in range(3):
        ours(model, x, TARGET)
    timed = interleaved(
        {
            "whybox": again(lambda: ours(model, x, TARGET)),
            "captum": again(lambda: peer(subject.module, x)),
        }
    )
    answer = ours.run(model, x, TARGET)
    layered = isinstance(ours, GradCAM)
    return {
        "whybox": repr(ours),
        "captum_batch": best,
        "captum_seconds_by_batch": by_setting,
        "calls_a_round": repeats,
        "timed": timed,
        "ratio": ratio(timed, "whybox", "captum"),
        "evaluations": {
            "whybox": {"forwards": answer.forwards, "backwards": answer.backwards},
            "captum": evaluations(subject.module, lambda f: peer(f, x)) if not layered else None,
        },
    }


if __name__ == "__main__":
    main()
