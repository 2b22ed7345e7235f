"""Draw what LRP and its relatives see in photographs: `WHYBOX_DATA=FOLDER python docs/figures/lrp.py`.

Needs CIFAR-10 and the weights of a ResNet-20 in that folder. Prints the figures that stand beside the picture.
"""

import os
import tarfile
import tempfile
from pathlib import Path

import numpy
import scipy.ndimage
import scipy.stats
import torch
from matplotlib.figure import Figure
from torch import Tensor

import whybox
from whybox.plot import heat, scale_of

HERE = Path(__file__).parent
NET = HERE.parents[1] / "tests/models/resnet20_cifar10.py"
CLASSES = ("bird", "deer", "horse", "ship")
DPI = 110
COUNT = 200  # pictures that are measured
METHODS = {
    "SensitivityAnalysis": whybox.SensitivityAnalysis(),
    "LRP epsilon_plus_flat": whybox.LRP(),
    "LRP epsilon_alpha2_beta1": whybox.LRP("epsilon_alpha2_beta1"),
    "LRP epsilon_gamma_box": whybox.LRP("epsilon_gamma_box"),
    "DeepTaylor": whybox.DeepTaylor(),
    "GuidedBackprop": whybox.GuidedBackprop(),
}


def maps(model: whybox.Model, x: Tensor) -> dict[str, Tensor]:
    """The relevance of each position (n, h, w) by every method."""
    return {name: method(model, x).sum(1) for name, method in METHODS.items()}


def grid(pictures: numpy.ndarray, relevance: dict[str, Tensor], labels: list[str]) -> Figure:
    """A row for each picture (n, h, w, 3): itself, and its map by every method."""
    figure = Figure(figsize=(1.55 * (len(relevance) + 1), 1.55 * len(pictures) + 0.4), facecolor="white")
    axes = figure.subplots(len(pictures), len(relevance) + 1, squeeze=False)
    figure.subplots_adjust(
        left=0.02, right=0.995, top=1 - 0.4 / figure.get_figheight(), bottom=0.005, wspace=0.04, hspace=0.04
    )
    for row, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        axes[row, 0].imshow(picture)
        axes[row, 0].set_ylabel(label, fontsize=9)
        for ax, values in zip(axes[row, 1:], (values[row] for values in relevance.values()), strict=True):
            ax.imshow(numpy.full((1, 1, 3), 1.0), extent=(-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5))
            ax.imshow(heat(values, scale_of(values)))
    for ax, name in zip(axes[0], ("picture", *relevance), strict=True):
        ax.set_title(name.replace("LRP ", "LRP\n"), fontsize=8)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure


def measures(pictures: numpy.ndarray, relevance: Tensor) -> tuple[float, float, float]:
    """Medians over pictures of |R|: the share in the strongest tenth of the positions, the share in the central
    square of a quarter of the area, and the rank correlation with the edges of the picture."""
    found = []
    for picture, values in zip(pictures, relevance.abs().double().numpy(), strict=True):
        ordered = numpy.sort(values, axis=None)[::-1]
        height, width = values.shape
        middle = values[height // 4 : height - height // 4, width // 4 : width - width // 4]
        edges = scipy.ndimage.gaussian_gradient_magnitude(picture.astype(float).mean(2), 1.0)
        rank = scipy.stats.spearmanr(values, edges, axis=None).statistic
        total = ordered.sum()
        found.append((ordered[: len(ordered) // 10].sum() / total, middle.sum() / total, rank))
    strongest, centre, edge = numpy.nanmedian(found, axis=0)
    return float(strongest), float(centre), float(edge)


def table(pictures: numpy.ndarray, relevance: dict[str, Tensor]) -> str:
    """The measures of every method, as a table."""
    lines = ["| Map | Strongest tenth | Central quarter | Edges |", "|---|---|---|---|"]
    for name, values in relevance.items():
        strongest, centre, edge = measures(pictures, values)
        lines.append(f"| {name} | {strongest:.0%} | {centre:.0%} | {edge:.2f} |")
    return "\n".join(lines)


def unpacked(data: Path, scratch: str) -> Path:
    """A root that holds the test pictures of CIFAR-10."""
    if not (data / "cifar10/test").is_dir():
        with tarfile.open(data / "cifar10/test.tar.gz") as archive:
            archive.extractall(Path(scratch) / "cifar10", filter="data")
        return Path(scratch)
    return data


def main() -> None:
    """Write the figure beside this file."""
    torch.set_num_threads(1)
    data = Path(os.environ["WHYBOX_DATA"])
    model = whybox.models.load(f"{NET}:resnet20", weights=data / "models/resnet20_cifar10.safetensors")
    with tempfile.TemporaryDirectory() as scratch:
        pictures, labels = whybox.datasets.load("CIFAR10", split="test", root=unpacked(data, scratch))
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.preprocess.mean, model.preprocess.std))
    inputs, shown = (pictures - mean) / std, pictures.permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        right = (model(inputs).argmax(1) == labels).nonzero()[:, 0]
    first = [int(next(i for i in right if model.labels[labels[i]] == name)) for name in CLASSES]
    figure = grid(shown[first], maps(model, inputs[first]), list(CLASSES))
    figure.savefig(HERE / "lrp.png", dpi=DPI, metadata={"Software": None})
    some = right[:: len(right) // COUNT][:COUNT]
    print(table(shown[some], maps(model, inputs[some])))


if __name__ == "__main__":
    main()
