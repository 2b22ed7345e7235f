"""Measuring: the contrast of every input, brought to where the two classes tie. Kept block by block."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from experiments.common.kept import keep, known
from experiments.contrast.entries import Entry
from torch import Tensor

import whybox
from whybox.contrast.latent import Latent

TOLERANCE = 0.02
# A map is imposed on a digit until its strongest pixel has changed by so many times the range from black to white; on
# the row of a table until a column has by so many standard deviations.
LONGEST = 4.0
GRID, HALVINGS = 64, 24
# So many iterations of a search are kept, those behind its end as its last: the rounds of the augmented Lagrangian.
ITERATIONS = 825
NO_MAP = -1

Way = Callable[[Tensor, Tensor], Tensor]
"""From places on the way (k,) and the sample of each (k,) to inputs (k, *features)."""


def measure(model: whybox.Model, digits: Tensor, entries: Sequence[Entry], folder: Path, weights: str) -> None:
    """Measure what is not known yet, and keep it as it comes."""
    for entry in entries:
        for path, start, stop in entry.paths(len(digits), folder):
            if not known(path, entry.settings(weights)):
                began = time.perf_counter()
                keep(block(model, digits[start:stop], entry, start), path, entry.settings(weights))
                print(f"{entry.name}: digits {start} to {stop - 1}, {time.perf_counter() - began:.0f} s", flush=True)


def block(model: whybox.Model, x: Tensor, entry: Entry, seed: int) -> dict[str, Tensor]:
    """What is known of some digits. All noise is keyed by the place of the digit: the block's beginning is the seed."""
    began = time.process_time()
    answer = entry.method.run(model, x, whybox.Contrast(), seed=seed)
    seconds = time.process_time() - began
    details, nothing = answer.details, torch.full((len(x),), torch.nan)
    pair = details.get("classes")
    if pair is None:
        pair = model(x).detach().topk(2, dim=1).indices
    status = details.get("status", torch.where(answer.relevance.flatten(1).isfinite().all(1), 0, NO_MAP))
    found = {
        "classes": pair,
        "status": status,
        "relevance": answer.relevance.detach().float(),
        "distance": details.get("distance", nothing).float(),
        "reconstruction": details.get("reconstruction", nothing).float(),
        "seconds": torch.full((len(x),), seconds / len(x)),
        "forwards": torch.full((len(x),), answer.forwards / len(x)),
        "backwards": torch.full((len(x),), answer.backwards / len(x)),
    }
    if entry.ties:
        found["contrast"] = details["contrast_image"].float()
    else:
        found["contrast"], share = _tied(model, x, pair, _way(model, entry, answer, x))
        found["distance"] = share * found["distance"]  # of the straight way in latent space, where it is one
    if "latents" in details:
        found["latents"] = details["latents"].float()
        found["curve"] = _carried(details["trajectory"].float())
    return found


def _way(model: whybox.Model, entry: Entry, answer: whybox.Attribution, x: Tensor) -> tuple[Way, float]:
    """The way of a contrast: through latent space for what was found there, else the map imposed on the input."""
    if "latents" in answer.details:
        latent: Latent = entry.method.latent  # type: ignore[attr-defined]
        z0, end = answer.details["latents"].float().unbind(1)
        drawn = latent.decode(z0)

        def walk(place: Tensor, sample: Tensor) -> Tensor:
            return x[sample] + latent.decode(torch.lerp(z0[sample], end[sample], place[:, None])) - drawn[sample]

        return walk, 1.0
    relevance = answer.relevance.detach().expand_as(x)
    step = relevance / _wide(relevance.flatten(1).abs().amax(1).clamp_min(1e-12), x)
    low, high = model.domain_of(x).bounds(x)
    return lambda place, sample: (x[sample] - _wide(place, x) * step[sample]).clamp(low, high), LONGEST


def _tied(model: whybox.Model, x: Tensor, pair: Tensor, way: tuple[Way, float]) -> tuple[Tensor, Tensor]:
    """The input where the two classes first tie on the way, and how far on it that is; NaN where they do not."""
    walk, longest = way
    everyone = torch.arange(len(x))

    def gap(place: Tensor) -> Tensor:
        with torch.no_grad():
            scores = model(walk(place, everyone)).gather(1, pair)
        return scores[:, 0] - scores[:, 1]

    places = torch.linspace(0, longest, GRID + 1)
    beyond = torch.stack([gap(place.expand(len(x))) for place in places], 1) <= 0
    first = beyond.int().argmax(1).clamp_min(1)
    low, high = places[first - 1], places[first]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        over = gap(middle) <= 0
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    tied = beyond.any(1) & (gap(high).abs() <= TOLERANCE)
    found = walk(high, everyone).masked_fill(~_wide(tied, x), torch.nan)
    return found, high.masked_fill(~tied, torch.nan)


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """A value of each input (n,), to be broadcast over inputs like x."""
    return values.view(-1, *(1,) * (x.ndim - 1))


def _carried(curve: Tensor) -> Tensor:
    """p_t and p_p of each iteration (n, ITERATIONS, 2); the last one carried on."""
    last = curve.isfinite().all(2).sum(1) - 1
    places = torch.arange(ITERATIONS).expand(len(curve), -1).minimum(last[:, None])
    return curve.gather(1, places[:, :, None].expand(-1, -1, 2))
