"""The paper's Figures 2 to 5 from what the nets draw; no picture of the data is shown, only G(z0) and G(z_e)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from experiments.common.kept import keep, known
from experiments.contrast.entries import BOUNDARY, CDEEPEX, PLAIN, PLAIN_FREE, WGAN, Entry
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor

import whybox
from whybox.plot import Scale, heat, scale_of

# The pairs of the paper's Figures 3 and 4: why the one and not the other.
PAIRS = ((4, 9), (0, 6), (5, 6), (3, 8))
AGAINST_XGEM = ((4, 9), (6, 5), (7, 9), (1, 6), (9, 8))
# Ambiguous digits: those whose runner-up comes nearest to this probability from below; nearer to a tie little changes.
AMBIGUOUS, MANY = 0.3, 8
STYLES: dict[str, dict[str, Any]] = {
    "true": {"color": "#b2182b", "label": "true class"},
    "probe": {"color": "#2166ac", "label": "probe class"},
}


@dataclass(frozen=True)
class Drawn:
    """What is drawn: G(z0) and G(z_e) (n, 2, 28, 28), the pair (n, 2), all probabilities at z_e (n, 10)."""

    pictures: Tensor
    pair: Tensor
    likely: Tensor

    @classmethod
    def of(cls, model: whybox.Model, x: Tensor, pair: Tensor, entry: Entry, path: Path, weights: str) -> "Drawn":
        """Found, or read where it was found before."""
        settings = entry.settings(f"{weights} {pair.tolist()} {x.double().sum().item()}")
        if not known(path, settings):
            answer = entry.method.run(model, x, whybox.Contrast(pair[:, 0], pair[:, 1]))
            with torch.no_grad():
                likely = model(answer.details["contrast_image"]).softmax(1)
            keep({"latents": answer.details["latents"].float(), "likely": likely}, path, settings)
        found = load_file(path)
        z = found["latents"]
        return cls(WGAN.decode(z.flatten(0, 1)).view(len(z), 2, 28, 28), pair, found["likely"])

    def map(self, number: int) -> Tensor:
        """What is to be added, above zero, and removed, below: G(z_e) − G(z0) (28, 28)."""
        return self.pictures[number, 1] - self.pictures[number, 0]

    def says(self, number: int) -> str:
        """The probabilities of the pair at z_e, under that of another class where one is first."""
        likely, pair = self.likely[number], self.pair[number].tolist()
        if bool(likely.isnan().any()):
            return "not found"
        first = int(likely.argmax())
        two = "  ".join(f"{c}: {likely[c]:.2f}" for c in pair)
        return two if first in pair else f"{first}: {likely[first]:.2f}\n{two}"


def write(model: whybox.Model, digits: Tensor, labels: Tensor, found: dict[str, Any], folder: Path, out: Path) -> None:
    """All of them, as WebP; `digits` are the whole test set."""
    with torch.no_grad():
        likely = torch.cat([model(part).softmax(1) for part in digits.split(250)])
    weights = found["weights"]

    def drawn(rows: list[int], pair: Tensor, entry: Entry, name: str) -> Drawn:
        path = folder / "mnist" / f"drawn-{name}-{entry.name.partition(',')[0]}.safetensors"
        return Drawn.of(model, digits[rows], pair, entry, path, weights)

    rows, pair = ambiguous(likely)
    figures = {"2": films([("", drawn(rows, pair, CDEEPEX, "2"))])}
    rows, pair = first(likely, labels, PAIRS, 2)
    figures["3"] = films([("", drawn(rows, pair, CDEEPEX, "3"))])
    rows, pair = first(likely, labels, AGAINST_XGEM, 1)
    figures["4"] = films(
        [(entry.name.partition(",")[0], drawn(rows, pair, entry, "4")) for entry in (CDEEPEX, BOUNDARY)]
    )
    figures["5"] = curves(found["curves"])
    for name, figure in figures.items():
        figure.savefig(out / f"contrast_mnist_{name}.webp", dpi=90, pil_kwargs={"quality": 90, "method": 6})


def ambiguous(likely: Tensor) -> tuple[list[int], Tensor]:
    """The most ambiguous digits, each of another pair of classes, and their pairs."""
    two = likely.topk(2, dim=1)
    rows: list[int] = []
    pairs: set[frozenset[int]] = set()
    for row in two.values[:, 1].where(two.values[:, 1] <= AMBIGUOUS, 0).argsort(descending=True).tolist():
        pair = frozenset(two.indices[row].tolist())
        if pair not in pairs and len(rows) < MANY:
            pairs.add(pair)
            rows.append(row)
    return rows, two.indices[rows]


def first(likely: Tensor, labels: Tensor, pairs: tuple[tuple[int, int], ...], count: int) -> tuple[list[int], Tensor]:
    """The first so many digits of each pair's first class that the classifier gets right: none is picked by hand."""
    right = likely.argmax(1) == labels
    rows = [row for true, _ in pairs for row in ((labels == true) & right).nonzero()[:count, 0].tolist()]
    return rows, torch.tensor(pairs).repeat_interleave(count, 0)


def films(parts: list[tuple[str, Drawn]]) -> Figure:
    """A column for each digit: G(z0), then for each method what changes, on G(z0), and G(z_e)."""
    count = len(parts[0][1].pair)
    figure = Figure(figsize=(0.9 + 1.12 * count, 0.5 + 1.25 * (1 + 2 * len(parts))), layout="constrained")
    axes = figure.subplots(1 + 2 * len(parts), count, squeeze=False)
    maps = [one.map(number) for _, one in parts for number in range(count)]
    scale = scale_of(maps, signed=True)
    for number, (true, probe) in enumerate(parts[0][1].pair.tolist()):
        ink(axes[0, number], parts[0][1].pictures[number, 0])
        axes[0, number].set_title(f"why {true}\nand not {probe}?", fontsize=8)
        for place, (_, one) in enumerate(parts):
            change, end = axes[1 + 2 * place : 3 + 2 * place, number]
            ink(change, 0.5 * one.pictures[number, 0])
            lay(change, one.map(number), scale)
            ink(end, one.pictures[number, 1])
            end.set_xlabel(one.says(number), fontsize=7)
    names = ["G(z₀)", *(f"{name}\n{what}".strip() for name, _ in parts for what in ("change", "G(zₑ)"))]
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, fontsize=8)
    return figure


def curves(found: dict[str, Any]) -> Figure:
    """Figure 5b: the mean likelihood of true class and probe against iteration, with and without constraints."""
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    searches = ((PLAIN, PLAIN_FREE, "augmented Lagrangian"), (CDEEPEX, BOUNDARY, "polished (the default)"))
    for ax, (bound, free, name) in zip(axes, searches, strict=True):
        for entry, dashes, said in ((bound, "-", "with"), (free, "--", "without")):
            one = found[entry.name]
            for which, style in STYLES.items():
                ax.plot(
                    one["iteration"],
                    one[which],
                    dashes,
                    color=style["color"],
                    label=f"{style['label']}, {said} constraints",
                )
        ax.set_title(f"{name}, {one['digits']} digits", fontsize=9)
        ax.set_xlabel("iteration", fontsize=9)
        ax.set_ylim(0, 1)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    axes[1].set_xlim(0, 40)
    axes[0].set_ylabel("mean likelihood", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def ink(ax: Axes, picture: Tensor) -> None:
    """A digit, black on white."""
    ax.imshow(1 - picture.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_linewidth(0.4)


def lay(ax: Axes, change: Tensor, scale: Scale) -> None:
    """A map, transparent where it is zero, over what is there."""
    ax.imshow(heat(change, scale), interpolation="nearest")
