"""Change: a contrast in a latent space, in words and ready to be shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from whybox.contrast.answer import UNKNOWN
from whybox.core.explanation import Explanation
from whybox.core.tree import as_tuple
from whybox.plot import number, picture, scale_of
from whybox.plot.change import Change, change_of
from whybox.report.images import as_bytes, data_uri, webp
from whybox.report.maps import CRISP, MapView, map_view, overlay
from whybox.report.names import percent
from whybox.report.verdict import label_of

# The size of the drawing of a curve, in its own units, and the margins for its labels.
WIDE, HIGH, LEFT, BELOW = 320, 190, 34, 30


@dataclass(frozen=True)
class Share:
    """The probability of one class, as a number and as text."""

    label: str
    share: float
    percent: str


@dataclass(frozen=True)
class Morph:
    """The way from the input to the contrast.

    Attributes:
        uri: its pictures side by side.
        frames: how many there are.
        width, height: of one, in positions.
        crisp: whether its positions are few enough to be drawn as squares.
        shares: for each picture the probabilities of the two classes and of the strongest other one.
    """

    uri: str
    frames: int
    width: int
    height: int
    crisp: bool
    shares: tuple[tuple[Share, ...], ...]


@dataclass(frozen=True)
class Curve:
    """The probabilities of the two classes over the iterations, as points of polylines."""

    points: tuple[str, str]
    steps: int
    says: str


@dataclass(frozen=True)
class ChangeView:
    """One method's contrast for one sample.

    Attributes:
        title: what to call the method.
        true, probe: the labels of the two classes.
        found: whether there is a contrast; if not there is neither a map nor a morph.
        lines: what came of it, in sentences: the answer, and whether the latent model knows the input.
        shares: the probabilities in the contrast, of the two and of the strongest other class; nothing if not found.
        taken: the class that takes over, or "".
        distance: ‖z_e − z0‖.
        map: what is to be added and removed.
        morph: the way there, where the method has kept it and the inputs are pictures.
        curve: the search.
    """

    title: str
    true: str
    probe: str
    found: bool
    lines: tuple[str, ...]
    shares: tuple[Share, ...]
    taken: str
    distance: str
    map: MapView | None
    morph: Morph | None
    curve: Curve


def change_view(
    explanation: Explanation, sample: int, title: str, preprocess: Callable[..., Any] | None = None
) -> ChangeView | None:
    """One sample of a contrast in a latent space; None for an explanation of another kind."""
    change = change_of(explanation, sample)
    if change is None:
        return None
    true, probe = (label_of(index, explanation.labels) for index in (change.true, change.probe))
    return ChangeView(
        title=title,
        true=true,
        probe=probe,
        found=change.found,
        lines=change_lines(explanation, sample),
        shares=_shares(change, change.after, explanation.labels) if change.found else (),
        taken=label_of(int(change.after.argmax()), explanation.labels) if takes_over(change) else "",
        distance=number(change.distance),
        map=_map(explanation, change, sample, title) if change.found else None,
        morph=_morph(explanation, change, preprocess) if change.found else None,
        curve=_curve(change, true, probe),
    )


def change_question(explanation: Explanation, sample: int) -> str:
    """What a contrast answers: "Why 4 and not 9?"; "" for other explanations."""
    change = change_of(explanation, sample)
    if change is None:
        return ""
    return f"Why {label_of(change.true, explanation.labels)} and not {label_of(change.probe, explanation.labels)}?"


def change_lines(explanation: Explanation, sample: int) -> tuple[str, ...]:
    """What came of a contrast, and whether the latent model knows the input; nothing for other explanations."""
    change = change_of(explanation, sample)
    if change is None:
        return ()
    return _answer(change, explanation.labels), _known(explanation, sample)


def takes_over(change: Change) -> bool:
    """Whether a class other than the two is the most likely one for the contrast."""
    pair = max(float(change.after[change.true]), float(change.after[change.probe]))
    return change.found and float(change.after.max()) > pair * 1.0001


def _answer(change: Change, labels: Sequence[str] | None) -> str:
    status = f"{change.status[:1].upper()}{change.status[1:]}"
    if not change.found:
        return f"{status}. Nothing is shown in place of a contrast."
    moves = []
    for index in (change.true, change.probe):
        before, after = float(change.before[index]), float(change.after[index])
        verb = "falls" if after < before else "rises"
        moves.append(f"{label_of(index, labels)} {verb} from {percent(before)} to {percent(after)}")
    other = _shares(change, change.after, labels)[2:]
    rest = "there is no other class"
    if other:
        rest = f"the strongest other class, {other[0].label}, has {other[0].percent}"
        rest = f"but {other[0].label} takes over with {other[0].percent}" if takes_over(change) else rest
    return f"{status}: {', '.join(moves)}; {rest}."


def _known(explanation: Explanation, sample: int) -> str:
    distance = float(explanation.details["reconstruction"][sample])
    found = [check for check in explanation.checks if check.name == UNKNOWN]
    if not found:
        return (
            f"Whether the latent model knows this input cannot be told, for the spread of its training data was never "
            f"measured; what it draws for it is {number(distance)} off."
        )
    share = float(found[0].values[sample])
    limit = number(distance / share) if share > 0 else "—"
    if share > found[0].limit:
        return (
            f"The latent model does not know this input: what it draws for it is {number(distance)} off, while 99 % of "
            f"its training data are within {limit}. The contrast is one of something else."
        )
    return (
        f"The latent model knows this input: what it draws for it is {number(distance)} off, within the {limit} that "
        f"99 % of its training data keep."
    )


def _shares(change: Change, likely: Tensor, labels: Sequence[str] | None) -> tuple[Share, ...]:
    """The two classes, and of the others the one that is strongest in the contrast, with these probabilities."""
    order = change.after.argsort(descending=True, stable=True).tolist()
    other = [index for index in order if index not in (change.true, change.probe)][:1]
    return tuple(
        Share(label_of(index, labels), float(likely[index]), percent(float(likely[index])))
        for index in (change.true, change.probe, *other)
    )


def _map(explanation: Explanation, change: Change, sample: int, title: str) -> MapView:
    if as_tuple(explanation.inputs)[0].ndim != 4:
        return map_view(explanation, sample, title, signed=True)
    scale = scale_of(change.added, signed=True)
    view = overlay(change.added, scale, title)
    where = f"centred {view.alt.rpartition('centred ')[2]}" if "centred " in view.alt else "nothing"
    added = float(change.added.clamp_min(0).sum() / change.added.abs().sum().clamp_min(1e-12))
    says = f"full colour at a change of {number(scale.limit)}"
    return MapView(**{**vars(view), "alt": f"{title}: {added:.0%} of the change is to be added, {where}", "says": says})


def _morph(explanation: Explanation, change: Change, preprocess: Callable[..., Any] | None) -> Morph | None:
    if change.film is None or as_tuple(explanation.inputs)[0].ndim != 4:
        return None
    frames = [as_bytes(picture(frame, explanation.domains[0], preprocess)) for frame in change.film[0]]
    height, width = frames[0].shape[:2]
    crisp = max(height, width) <= CRISP
    uri = data_uri(webp(np.concatenate(frames, 1), None if crisp else 85))
    shares = tuple(_shares(change, likely, explanation.labels) for likely in change.film[1])
    return Morph(uri, len(frames), width, height, crisp, shares)


def _curve(change: Change, true: str, probe: str) -> Curve:
    steps = len(change.path)
    across, up = (WIDE - LEFT - 8) / max(steps - 1, 1), HIGH - BELOW - 8
    lines = (
        " ".join(f"{LEFT + across * i:.1f},{8 + up * (1 - p):.1f}" for i, p in enumerate(line))
        for line in change.path.T.tolist()
    )
    first, last = (
        ", ".join(
            f"{name} {percent(share)}" for name, share in zip((true, probe), change.path[place].tolist(), strict=True)
        )
        for place in (0, -1)
    )
    return Curve((next(lines), next(lines)), steps, f"{steps} iterations, from {first} to {last}")
