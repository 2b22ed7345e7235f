"""What is asked: classifiers and latent models of biased and of plain digits, and the questions put to them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from experiments.common.data import SEED, chosen, digest
from experiments.contrast import nets
from experiments.contrast.eights.bias import EIGHT, MAIN, STRONGEST, SWEEP, Bias
from experiments.contrast.entries import VAE, WGAN, Entry
from torch import Tensor, nn

import whybox
from whybox.contrast.latent import Latent

# The classifier that is explained is trained as that of plain digits is; those of the sweep once on fewer digits.
EPOCHS, BRIEF = 4, 20_000
FITTED = 2_000  # training digits that prediction difference analysis is fitted to


@dataclass(frozen=True)
class Subject:
    """A classifier, and what explains it.

    Attributes:
        name: of its folder.
        bias: where the square is looked for.
        model: the classifier.
        rows: what explains it.
        groups: which digits it is asked about, and how many, as a share of those asked for.
    """

    name: str
    bias: Bias
    model: whybox.Model
    rows: tuple[Entry, ...]
    groups: tuple[tuple[str, float], ...] = (("others", 1.0),)


@dataclass(frozen=True)
class Questions:
    """Why t and not 8: digits (n, 1, 28, 28), their places in the test set, and t and 8 of each (n, 2)."""

    digits: Tensor
    places: list[int]
    pair: Tensor

    @classmethod
    def of(cls, scores: Tensor, digits: Tensor, labels: Tensor, group: str, count: int) -> "Questions":
        """The first so many of the test digits, in random order, that are no eights, or are, and are not called 8.

        Args:
            scores: of all test digits (n, 10).
            digits, labels: the test set.
            group: "others", digits of other classes, or "eights".
            count: at most so many.
        """
        wanted = ((labels == EIGHT) == (group == "eights")) & (scores.argmax(1) != EIGHT)
        places = [place for place in chosen(len(digits), len(digits)) if wanted[place]][:count]
        true = scores[places].argmax(1)
        return cls(digits[places], places, torch.stack((true, torch.full_like(true, EIGHT)), 1))


def main_classifier() -> whybox.Model:
    """That of the main bias, which is explained."""
    path = nets.HERE / "eights-classifier.safetensors"
    return nets.classifier_of(path, EPOCHS, lambda: _biased(MAIN))


def main_latents() -> tuple[Latent, Latent]:
    """A WGAN and a VAE of the digits with the main bias."""
    return Latent.load(nets.HERE / "eights.latent"), Latent.load(nets.HERE / "eights-vae.latent")


def brief(bias: Bias, folder: Path) -> whybox.Model:
    """A classifier of the sweep."""

    def data() -> tuple[Tensor, Tensor]:
        digits, labels = _biased(bias)
        return digits[:BRIEF], labels[:BRIEF]

    return nets.classifier_of(folder / f"classifier-{bias.side}-{bias.grey:g}.safetensors", 1, data)


def subjects(folder: Path) -> Iterator[Subject]:
    """The biased classifier, its controls, and those of the sweep; trained where they are not there."""
    biased, plain = main_classifier(), nets.classifier()
    knows = _latent_rows(*main_latents())
    knows_not = _latent_rows(WGAN, VAE)
    maps = (*_map_rows(), *_dear_rows(biased, _biased(MAIN)[0]))
    yield Subject("biased", MAIN, biased, (*knows, *maps), (("others", 1.0), ("eights", 0.5)))
    maps = (*_map_rows(), *_dear_rows(plain, nets.mnist("train")[0]))
    yield Subject("plain", MAIN, plain, (*knows_not, *maps))
    yield Subject("latent model alone biased", MAIN, plain, tuple(entry for entry in knows if entry.share == 1))
    yield Subject("classifier alone biased", MAIN, biased, tuple(entry for entry in knows_not if entry.share == 1))
    for bias in SWEEP:
        yield swept(bias, brief(bias, folder))


def swept(bias: Bias, model: whybox.Model) -> Subject:
    """A classifier of the sweep, with the VAE of the main square repainted; the WGAN too for the strongest bias."""
    wgan, vae = (
        Latent.of(Repainted(known.generator, bias), known.size, encoder=known.encoder) for known in main_latents()
    )
    rows = [entry for entry in _latent_rows(wgan, vae) if entry.share == 1]
    rows = [entry for entry in rows if bias == STRONGEST or entry.name.endswith("VAE")]
    return Subject(f"sweep {bias.side}-{bias.grey:g}", bias, model, (*rows, *_map_rows()), (("others", 0.5),))


class Repainted(nn.Module):
    """A generator whose square is another: what turns the digits with the one square into those with the other.

    Digits have nothing in the corner, so that scaling and cutting the main square there does.
    """

    def __init__(self, generator: nn.Module, bias: Bias) -> None:
        super().__init__()
        scale = torch.ones(1, 1, 28, 28)
        MAIN.corner(scale).zero_()
        bias.corner(scale).fill_(bias.grey / MAIN.grey)
        self.generator = generator
        self.register_buffer("scale", scale)

    def forward(self, z: Tensor) -> Tensor:
        """(n, 1, 28, 28)."""
        return self.generator(z) * self.scale


def settings(subject: Subject, questions: Questions) -> str:
    """What a measurement depends on besides its method: the classifier's weights and the digits."""
    return f"{digest(subject.model)} {questions.places} {questions.pair[:, 0].tolist()}"


def _latent_rows(wgan: Latent, vae: Latent) -> tuple[Entry, ...]:
    return (
        Entry("CDeepEx", whybox.CDeepEx(wgan)),
        Entry("xGEM, boundary", whybox.XGEM(wgan)),
        Entry("xGEM, descent", whybox.XGEM(wgan, form="descent", weight=20.0), share=0.5),
        Entry("CDeepEx, 12 starts", whybox.CDeepEx(wgan, starts=12), share=0.5),
        Entry("CDeepEx, VAE", whybox.CDeepEx(vae)),
        Entry("xGEM, boundary, VAE", whybox.XGEM(vae)),
    )


def _map_rows() -> tuple[Entry, ...]:
    return (
        Entry("gradient of the difference", whybox.Gradient()),
        Entry("GradCAM, weighted", whybox.WeightedContrast(whybox.GradCAM())),
    )


def _dear_rows(model: whybox.Model, training: Tensor) -> tuple[Entry, ...]:
    """Those that ask thousands of times, and a control; prediction difference analysis is fitted to training digits."""
    fitted = whybox.PredictionDifference(stride=2).fit(model, training[chosen(len(training), FITTED)], seed=SEED)
    return (
        Entry("LIME, weighted", whybox.WeightedContrast(whybox.LIME()), share=0.2),
        Entry("PDA, weighted", whybox.WeightedContrast(fitted), share=0.2),
        Entry("random map", whybox.RandomMap()),
    )


def _biased(bias: Bias) -> tuple[Tensor, Tensor]:
    digits, labels = nets.mnist("train")
    return bias.biased(digits, labels), labels
