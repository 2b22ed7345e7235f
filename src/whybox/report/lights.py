"""Lights: for one sample and each method, whether its map can be relied on, as far as was measured, and why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whybox.contrast.answer import MISSING, TAKEN, UNKNOWN
from whybox.core.explanation import Explanation
from whybox.evaluation.trials import Trial

Verdict = Literal["pass", "doubt", "fail", "none"]

# What fails in these checks shows nothing, whatever else it passes. What each means for the map, by the check's name.
_RULES_OUT = {
    "likeness to the map of random weights": "it hardly changes when the model's weights are shuffled, so it does not "
    "show what the model has learned",
    "blank map": "it is the same everywhere",
    MISSING: "no contrast was found",
    TAKEN: "a third class takes over, so it does not say why one class and not the other",
    UNKNOWN: "its latent model does not know this input",
    "entries not finite": "it holds NaN or infinity",
}


@dataclass(frozen=True)
class Light:
    """Whether one method's map of one sample can be relied on.

    Attributes:
        method: the method's title.
        verdict: "fail": do not rely on it; "doubt": with care; "pass": nothing measured speaks against it; "none":
            nothing was measured.
        says: the verdict in two or three words.
        reason: why, as a clause without a full stop.
    """

    method: str
    verdict: Verdict
    says: str
    reason: str


def light(explanation: Explanation, place: int, trials: Sequence[Trial], title: str, sample: int) -> Light:
    """The light of one method.

    Args:
        explanation: what the method says.
        place: its place among the explanations of the trials.
        trials: what was tried, or nothing.
        title: what to call the method.
        sample: which sample of the batch.
    """
    failed = [one.name for one in explanation.checks if float(one.values[sample]) > one.limit]
    ruled_out = [_RULES_OUT[name] for name in failed if name in _RULES_OUT]
    tried = [one for one in trials if bool(one.telling[sample]) and not bool(one.scores[place][sample].isnan())]
    ahead = {trial.infill: trial.ahead(place, sample) for trial in tried}
    worthless = [trial for trial in tried if float(trial.scores[place][sample]) <= 0]
    if tried and len(worthless) == len(tried):
        ruled_out.append(
            "what it calls least relevant costs the prediction as much as what it calls most relevant, whatever "
            "replaces it"
        )
    if ruled_out:
        return Light(title, "fail", "do not rely on this", "; ".join(ruled_out))
    doubts = [f"it fails the check of {name}" for name in failed]
    if worthless:
        doubts.append(f"with {_listed([one.infill for one in worthless])} it does no better than chance")
    if not worthless:
        for names in dict.fromkeys(names for names in ahead.values() if names):  # each with the infills that it is of
            where = _listed([infill for infill, same in ahead.items() if same == names])
            doubts.append(f"{_listed(names)} {'does' if len(names) == 1 else 'do'} as well with {where}")
    if doubts:
        return Light(title, "doubt", "with care", "; ".join(doubts))
    measured = sum(float(one.values[sample]) == float(one.values[sample]) for one in explanation.checks)
    good = [f"it passes {measured} check{'s' if measured > 1 else ''}"] if measured else []
    if tried:
        good.append(f"beats all {len(tried[0].controls)} controls with {_listed([trial.infill for trial in tried])}")
    if not good:
        return Light(title, "none", "unchecked", "nothing could be measured")
    return Light(title, "pass", "no objection", " and ".join(good))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
