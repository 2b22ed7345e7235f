"""Prediction difference analysis with its paper's settings: `python experiments/prediction_difference.py` (minutes).

One CIFAR-10 picture (ResNet-20, stride 1) and one ImageNet photograph (SqueezeNet, stride 10, for stride 1 is hours on
a CPU). The Gaussians are fitted to CIFAR-10's training pictures and to the other photographs. Data and weights are read
from the folder that WHYBOX_DATA names. Writes docs/experiments/prediction_difference.md, and the maps of the CIFAR-10
picture beside it; the pictures themselves are no part of the documentation: `--pictures FOLDER` draws them there, with
their maps.
"""

import argparse
import io
import os
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import whybox
from whybox.plot import heat, scale_of

matplotlib.use("Agg")
ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/experiments"
DATA = Path(os.environ.get("WHYBOX_DATA", "data"))

FITTED_TO = {"CIFAR-10": 2_000, "ImageNet": 250}
PICTURE = {"CIFAR-10": 7, "ImageNet": 140}  # the number among the test pictures, and among the photographs
STRIDE = {"CIFAR-10": 1, "ImageNet": 10}
CHUNK = {"CIFAR-10": 32, "ImageNet": None}  # of so small a net the best size is hard to measure on a busy machine


@dataclass(frozen=True)
class Measured:
    """One picture's maps by what they show, and what they took."""

    data: str
    model: str
    x: Tensor
    probability: float
    maps: dict[str, Tensor]
    fit_seconds: float
    seconds: float
    forwards: int
    raw: float  # seconds per forward at the same chunk size, nothing else

    def row(self) -> str:
        """The row of the table."""
        size, stride = self.x.shape[-1], STRIDE[self.data]
        windows = (-(-(size - 10) // stride) + 1) ** 2
        own = self.seconds / self.forwards
        return (
            f"| {self.data}, {size} × {size} | {self.model} | {self.probability:.2f} | {self.fit_seconds:.1f} "
            f"| {stride} | {windows:,} | {self.forwards:,} | {self.seconds:.0f} | {1e3 * own:.1f} "
            f"| {1e3 * self.raw:.1f} |"
        )


def cifar10() -> tuple[whybox.Model, Tensor, Tensor]:
    """ResNet-20, pictures to fit to, and the picture."""
    model = whybox.models.load(
        f"{ROOT / 'tests/models/resnet20_cifar10.py'}:resnet20", weights=DATA / "models/resnet20_cifar10.safetensors"
    )
    return (
        model,
        _from_archive(model, "train", 50_000 // FITTED_TO["CIFAR-10"]),
        _from_archive(model, "test", 500)[PICTURE["CIFAR-10"]][None],
    )


def _from_archive(model: whybox.Model, split: str, every: int) -> Tensor:
    """Every so many of the pictures, in the order of their names."""
    with tarfile.open(DATA / f"cifar10/{split}.tar.gz") as archive:
        content = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.name.endswith(".jpg")}
    names = sorted(content)[::every]
    return torch.stack([model.preprocess(Image.open(io.BytesIO(content[name])).convert("RGB")) for name in names])


def imagenet() -> tuple[whybox.Model, Tensor, Tensor]:
    """SqueezeNet, photographs to fit to, and the photograph."""
    model = whybox.models.load("torchvision:squeezenet1_0", weights=DATA / "models/squeezenet1_0_imagenet.safetensors")
    model.preprocess = replace(model.preprocess, crop=(227, 227))
    files = sorted((DATA / "imagenet").glob("*.jpg"))
    chosen = files.pop(PICTURE["ImageNet"])
    read = [model.preprocess(Image.open(file).convert("RGB")) for file in (chosen, *files[::2])]
    return model, torch.stack(read[1:]), read[0][None]


def measure(data: str, model: whybox.Model, others: Tensor, x: Tensor) -> Measured:
    """Fit, explain the predicted class (and the runner-up), and time the model alone."""
    method = whybox.PredictionDifference(stride=STRIDE[data])
    began = time.process_time()
    fitted = method.fit(model, others)
    fit_seconds = time.process_time() - began
    with torch.inference_mode():
        p = model(x).softmax(1)[0]
    first, second = p.topk(2).indices.tolist()
    began = time.process_time()
    answer = fitted.run(model, x, first, progress=True)
    seconds = time.process_time() - began
    maps = {f"{model.labels[first]}, drawn given its surroundings": answer.relevance}
    if data == "CIFAR-10":  # the other one takes too long
        maps |= {
            f"{model.labels[first]}, the picture's pixels shuffled": method(model, x, first, progress=True),
            f"{model.labels[second]}, drawn given its surroundings": fitted(model, x, second, progress=True),
        }
    chunk = model.chunk_size((x,), gradient=False).size
    batch = x.expand(chunk, -1, -1, -1).contiguous()
    times = []
    with torch.inference_mode():
        for _ in range(max(20, 400 // chunk)):
            began = time.process_time()
            model(batch)
            times.append((time.process_time() - began) / chunk)
    raw = sorted(times)[len(times) // 2]
    name = "SqueezeNet 1.0" if data == "ImageNet" else "ResNet-20"
    return Measured(data, name, x, float(p[first]), maps, fit_seconds, seconds, answer.forwards, raw)


def figure(measured: Measured, model: whybox.Model | None) -> Figure:
    """The maps side by side, each on its own scale; before them the picture, if its model is given."""
    count = len(measured.maps) + (model is not None)
    drawn = Figure(figsize=(3.2 * count, 3.6), layout="constrained")
    axes = list(drawn.subplots(1, count, squeeze=False)[0])
    if model is not None:
        axes[0].imshow(model.preprocess.display(measured.x[0]))
        axes.pop(0).set_axis_off()
    for ax, (title, relevance) in zip(axes, measured.maps.items(), strict=True):
        values = relevance[0, 0]
        scale = scale_of(values)
        ax.imshow(heat(values, scale))
        ax.set_axis_off()
        head, _, tail = title.partition(", ")
        ax.set_title(f"{head}\n{tail}\n{float(values.min()):+.2f} to {float(values.max()):+.2f} bits", fontsize=9)
    return drawn


PAGE = """# Prediction difference analysis: the paper's settings

Windows of 10 × 10 pixels, drawn ten times from the Gaussian of the patches of 14 × 14 around them; weight of evidence
for the predicted class (of probability p), averaged over the windows that cover a pixel. The Gaussians are fitted to
20,000 patches of {small:,} training pictures of CIFAR-10, and of {large} other photographs. Times are of one CPU core;
written by `experiments/prediction_difference.py`.

| Picture | Model | p | Fit, s | Stride | Windows | Model evaluations | Explain, s | ms each | ms of the model alone |
|---|---|---|---|---|---|---|---|---|---|
{rows}

A photograph at stride 1 has 218² = 47,524 windows: 475,241 evaluations, at {ms:.1f} ms each {hours:.1f} hours. The
last column is the median of the model's own forward passes in chunks of the same size.

The Laplace correction caps the odds at N/(K − 1), which is 6.6 bits for 1,000 classes: of a photograph whose class has
a probability very close to 1, no window gives any evidence (a boxer, tried first, gave ±0.00 bits throughout).
This one's has {probability:.2f}: it was chosen among those rightly predicted with less than 0.85. The rows are of
separate runs.

The maps of the CIFAR-10 picture, each on its own scale: green speaks for the class, blue against it. Where a window
is drawn given what is around it, the evidence is smaller than where it is filled with the picture's pixels, shuffled.

![Three maps of one picture of {picture}.](prediction_difference.png)
"""


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=Path, help="draw the pictures with their maps into this folder")
    folder = parser.parse_args().pictures
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    found = []
    for data, load in (("CIFAR-10", cifar10), ("ImageNet", imagenet)):
        model, others, x = load()
        model.chunk = CHUNK[data]
        found.append(measure(data, model, others, x))
        print(found[-1].row(), flush=True)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure(found[-1], model).savefig(folder / f"prediction_difference_{data}.png", dpi=110, bbox_inches="tight")
    small, large = found
    figure(small, None).savefig(OUT / "prediction_difference.png", dpi=110, bbox_inches="tight")
    own = large.seconds / large.forwards
    picture = next(iter(small.maps)).partition(",")[0]
    page = PAGE.format(
        small=FITTED_TO["CIFAR-10"],
        large=FITTED_TO["ImageNet"],
        rows="\n".join(each.row() for each in found),
        ms=1e3 * own,
        hours=475_241 * own / 3600,
        probability=large.probability,
        picture=f"class {picture!r}",
    )
    (OUT / "prediction_difference.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
