"""DeepLIFT: its time as a ratio to one forward pass and input gradient in plain torch, and against Captum's."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import ROUNDS, interleaved, one_thread, ratio, save
from benchmarks.peers import TARGET, gradient
from whybox import DeepLIFT, Model, models

AT_LEAST = 2.0


def main() -> None:
    """Measure on nets where Captum's DeepLIFT is right and on one where it is not."""
    one_thread()
    settings = {
        "subjects": "random weights, seed 0; no activation in place, no module used twice",
        "baseline": "zero, the same for all images",
        "at least as fast as Captum": AT_LEAST,
        "rounds": ROUNDS,
    }
    save("deep_lift", settings, {name: measure(*subject) for name, subject in subjects().items()})


def subjects() -> dict[str, tuple[nn.Module, Tensor]]:
    """Models and images. SqueezeNet's pools overlap, where Captum's rule for them loses its sum."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return {
        "plain net, 16 images of 64": (plain.eval(), torch.randn(16, 3, 64, 64)),
        "VGG11, 4 images of 128": (_load("vgg11"), torch.randn(4, 3, 128, 128)),
        "SqueezeNet 1.1, 4 images of 128": (_load("squeezenet1_1"), torch.randn(4, 3, 128, 128)),
    }


def _load(name: str) -> nn.Module:
    module = models.load(f"torchvision:{name}", "random").module
    for part in module.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    return module


def measure(module: nn.Module, x: Tensor) -> dict[str, Any]:
    """Seconds, and how far each sum is from the difference of the scores, as a share of that."""
    from captum.attr import DeepLift

    model, theirs, zero = Model(module, chunk=len(x)), DeepLift(module), torch.zeros_like(x)
    contenders = {
        "gradient": lambda: gradient(module, x),
        "rescale": lambda: DeepLIFT()(model, x, TARGET),
        "reveal_cancel": lambda: DeepLIFT("reveal_cancel")(model, x, TARGET),
        "Captum rescale": lambda: theirs.attribute(x, zero, target=TARGET).detach(),
    }
    with torch.no_grad():
        change = (module(x) - module(zero))[:, TARGET]
    gaps = {
        name: float(((work().flatten(1).sum(1) - change).abs() / change.abs()).max())
        for name, work in contenders.items()
        if name != "gradient"
    }
    timed = interleaved(contenders)
    return {
        "timed": timed,
        "ratio": {name: ratio(timed, name, "gradient") for name in timed if name != "gradient"},
        "times_as_fast": ratio(timed, "Captum rescale", "rescale"),
        "summation_gap": gaps,
    }


if __name__ == "__main__":
    main()
