"""The verdict: what the model says of one sample, as a sentence and as bars."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from whybox.core.explanation import Explanation, Prediction
from whybox.core.target import class_name
from whybox.core.tree import as_tuple
from whybox.plot import number
from whybox.report.names import percent, thing


@dataclass(frozen=True)
class Bar:
    """One of the most probable classes; `role` is "this", "that" or ""."""

    label: str
    index: int
    share: float
    percent: str
    score: str
    role: str


@dataclass(frozen=True)
class Verdict:
    """The sentence is `model` + `verb` + `thing` + `rest`; `question` says what is explained."""

    model: str
    verb: str
    thing: str
    rest: str
    question: str
    bars: tuple[Bar, ...]


def verdict(explanation: Explanation, sample: int, model: str, this: Tensor | None, that: Tensor | None) -> Verdict:
    """Put the prediction for one sample into words.

    Args:
        explanation: any method's: the prediction is the same for all.
        sample: which sample of the batch.
        model: what to call the model.
        this: the class explained (n,), or None where it is no class.
        that: the class it is contrasted with (n,), or None.
    """
    score = number(float(explanation.scores[sample]))
    question = f"Explained: {explanation.target[sample]}, which is {score}."
    best = explanation.predictions(sample, 5)
    outputs = explanation.outputs[sample].numel()
    if not best:
        shape = " × ".join(map(str, explanation.outputs.shape[1:]))
        return Verdict(model, "answers with", f"{shape} numbers", ".", question, ())
    if outputs == 1:
        share = percent(best[0].probability)
        rest = f". Read as the score of a yes-or-no question, that is a probability of {share}."
        return Verdict(model, "gives", f"a score of {number(best[0].score)}", rest, question, ())
    roles = {int(index[sample]): role for index, role in ((that, "that"), (this, "this")) if index is not None}
    shown = [*best, *_missing(explanation, sample, best, roles)]
    bars = tuple(
        Bar(
            one.label, one.index, one.probability, percent(one.probability), number(one.score), roles.get(one.index, "")
        )
        for one in shown
    )
    verb = "sees" if as_tuple(explanation.inputs)[0].ndim == 4 else "predicts"
    first, second = (
        f"“{one.label.strip()}”" if explanation.passages is not None else thing(one.label) for one in best[:2]
    )
    rest = f" ({percent(best[0].probability)}), {_lead(best)} {second} ({percent(best[1].probability)})."
    return Verdict(model, verb, first, rest, question, bars)


def _lead(best: Sequence[Prediction]) -> str:
    """How far the first is ahead of the second."""
    first, second = best[0].probability, best[1].probability
    if first > 10 * second:
        return "far ahead of"
    return "ahead of" if first > 1.5 * second else "barely ahead of"


def _missing(
    explanation: Explanation, sample: int, best: Sequence[Prediction], asked: dict[int, str]
) -> list[Prediction]:
    """The classes asked about that are not among the best."""
    absent = set(asked) - {one.index for one in best}
    if not absent:
        return []
    everything = explanation.predictions(sample, explanation.outputs.shape[1])
    return [one for one in everything if one.index in absent]


def label_of(index: int, labels: Sequence[str] | None) -> str:
    """The label of a class, or "class 3" where it has none."""
    return labels[index] if labels is not None and index < len(labels) else class_name(index, 0, None)
