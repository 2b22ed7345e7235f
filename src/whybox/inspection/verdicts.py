"""Verdicts: which methods do what their formula promises on a model, which only nearly so, and which refuse it."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from whybox.attribution.backprop.lrp import LRP
from whybox.attribution.backprop.trace import CAUSES, Step, Trace
from whybox.attribution.cam import CAM
from whybox.core import registry
from whybox.core.errors import WhyboxError
from whybox.core.method import Attribution, Method
from whybox.core.model import Model
from whybox.core.target import Target
from whybox.core.tree import Inputs, as_tuple
from whybox.inspection.operations import (
    NORMS,
    absorbed_share,
    bends,
    called,
    is_rectifier,
    multiplies_signals,
)

Word = Literal["exact", "approximate", "refused"]

_GAP = 1e-3  # as a share of the magnitudes on the way
_FEW = {"samples": 2}  # what makes a method dear, and enough of it to see whether the method runs


@dataclass(frozen=True)
class Verdict:
    """One method on one model; `word` is "exact", "approximate" or "refused", `why` says what that rests on."""

    method: str
    word: Word
    why: str


@dataclass(frozen=True)
class Case:
    """What the methods are tried on, and what is known of the model's operations.

    Attributes:
        model, inputs, target, options: as in `Method.run`.
        lrp: LRP with the composite that was asked for.
        trace: its trace; where it refuses the model, that with the gradient in place of the missing rules; or None.
    """

    model: Model
    inputs: Inputs
    target: Target
    options: dict[str, Any]
    lrp: LRP
    trace: Trace | None

    @property
    def steps(self) -> Sequence[Step]:
        """The model's operations, if they are known."""
        return () if self.trace is None else self.trace.steps

    def run(self, method: Method) -> Attribution:
        """The method's answer."""
        return method.run(self.model, self.inputs, self.target, **self.options)


Judge = Callable[[Case, Method, Attribution], tuple[Word, str]]


def verdicts(case: Case) -> tuple[Verdict, ...]:
    """The verdict on every registered method."""
    return tuple(Verdict(name, *_verdict(registry.method_class(name), case)) for name in registry.methods())


def _verdict(cls: type[Method], case: Case) -> tuple[Word, str]:
    try:
        method = case.lrp if cls is LRP else cls()
    except TypeError as error:
        return "refused", f"it has to be configured first: {error}"
    samples = _FEW.keys() & {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    if method.needs() == "outputs":
        drawn = ", by random samples" if samples else ""
        why = f"it asks the model for its outputs only{drawn}; whatever is inside, its settings decide"
        return "approximate" if samples else "exact", why
    try:
        judge = _JUDGES.get(registry.name_of(cls), _sampled if samples else _by_checks)
        few = dataclasses.replace(method, **{name: _FEW[name] for name in samples})  # type: ignore[type-var]
        return judge(case, method, case.run(few))
    except WhyboxError as error:
        return "refused", str(error)


def _derivative(_case: Case, _method: Method, _answer: Attribution) -> tuple[Word, str]:
    return "exact", "the derivative that autograd computes"


def _input_x_gradient(case: Case, _method: Method, answer: Attribution) -> tuple[Word, str]:
    """Compared with LRP-0, which it equals on a piecewise-linear model."""
    try:
        other = case.run(LRP("epsilon", epsilon=0.0)).relevance
    except WhyboxError:
        return "exact", "the derivative times the input; whether it decomposes the score, LRP cannot tell: it refuses"
    for mine, theirs in zip(as_tuple(answer.relevance), as_tuple(other), strict=True):
        if not bool(((mine - theirs).abs().max() <= 1e-3 * mine.abs().max()).all()):
            return "exact", "the derivative times the input; it does not decompose the score, from LRP it differs"
    return "exact", "it equals LRP with the ε rule and ε = 0: it decomposes the score, but for what biases take"


def _sampled(_case: Case, _method: Method, _answer: Attribution) -> tuple[Word, str]:
    return "approximate", "a mean over random samples, whose error falls with the root of their number"


def _by_checks(_case: Case, _method: Method, answer: Attribution) -> tuple[Word, str]:
    """What the method itself has measured of its promise."""
    if not answer.checks:
        return "approximate", "it runs; nothing tells how exact it is here"
    worst = max(answer.checks, key=lambda check: float(check.values.max()) / check.limit if check.limit else 0.0)
    said = f"{worst.name} {float(worst.values.max()):.2g}, limit {worst.limit:g}"
    return ("exact" if all(bool(check.passed.all()) for check in answer.checks) else "approximate"), said


def _lrp(case: Case, _method: Method, _answer: Attribution) -> tuple[Word, str]:
    assert case.trace is not None
    return _decomposition(case.trace, conventions(case.steps))


def _deep_taylor(case: Case, _method: Method, _answer: Attribution) -> tuple[Word, str]:
    trace = LRP("deep_taylor").trace(case.model, case.inputs, case.target, **case.options)
    reasons = conventions(trace.steps)
    if bool((trace.absorbed["bias"] != 0).any()):
        reasons = ["its theory asks for biases that are not positive", *reasons]
    return _decomposition(trace, reasons)


def _decomposition(trace: Trace, reasons: list[str]) -> tuple[Word, str]:
    """Exact where the score is accounted for and nothing but rules for ReLU nets was needed."""
    gap = float(max(trace.total_gap.max(), trace.gap.max()))
    said = [] if gap <= _GAP else [f"relevance goes where the rules do not account for it (conservation gap {gap:.1g})"]
    shares = {cause: absorbed_share(trace, amount) for cause, amount in trace.absorbed.items()}
    said += [f"{CAUSES[cause]} absorb {share:.1%} of the score" for cause, share in shares.items() if abs(share) > 5e-4]
    word: Word = "approximate" if reasons or gap > _GAP else "exact"
    return word, "; ".join([*reasons, *said]) or "all of the score arrives at the input"


def conventions(steps: Sequence[Step]) -> list[str]:
    """What of a model the theory of LRP, made for nets of linear maps and ReLUs, does not cover."""
    groups: dict[str, Callable[[Step], bool]] = {
        "relevance passes {} as it does ReLU": bends,
        "relevance is shared by convention at {} of two signals": multiplies_signals,
        "{} is taken by a Taylor expansion": lambda step: step.kind in ("softmax", "logarithm_of_softmax"),
        "the denominators of {} count as constants": lambda step: step.kind in (*NORMS, "quotient_norm"),
        "the gates of {} count as constants": lambda step: step.kind in ("recurrent_net", "recurrent_cell"),
        "no rule is known for {}, so that it is refused as soon as relevance arrives there": lambda step: (
            step.kind == "unknown"
        ),
    }
    found = {words: [step for step in steps if fits(step)] for words, fits in groups.items()}
    return [words.format(f"{len(part)} × {called(part)}") for words, part in found.items() if part]


def _reversed(case: Case, _method: Method, _answer: Attribution) -> tuple[Word, str]:
    if not case.steps:
        return "approximate", "it runs; the model's operations are not known"
    others = [step for step in case.steps if step.kind == "activation" and not is_rectifier(step)]
    if others:
        return "approximate", f"made for ReLUs; {len(others)} × {called(others)} with a gradient of their own"
    return "exact", "all activations are ReLUs"


def _cam(_case: Case, _method: Method, _answer: Attribution) -> tuple[Word, str]:
    return "exact", "the model ends in global average pooling and at most one linear layer"


def _grad_cam(case: Case, _method: Method, answer: Attribution) -> tuple[Word, str]:
    where = f"drawn from {', '.join(answer.details['layers'])}" if "layers" in answer.details else ""
    try:
        layers = case.run(CAM()).details["layers"]
    except WhyboxError:
        return "approximate", f"{where}; gradients are averaged over positions, and CAM, which is exact, refuses"
    if layers != answer.details.get("layers"):
        return "approximate", f"{where}; gradients are averaged over positions, which is exact at {layers[0]} only"
    return "exact", f"{where}; it is CAM's map without what speaks against"


def _guided_grad_cam(case: Case, method: Method, answer: Attribution) -> tuple[Word, str]:
    word, why = _reversed(case, method, answer)
    return word, f"{why}; the class comes in by GradCAM's coarse map alone"


_JUDGES: dict[str, Judge] = {
    "gradient": _derivative,
    "sensitivity_analysis": _derivative,
    "salinet": _derivative,
    "input_x_gradient": _input_x_gradient,
    "cam": _cam,
    "grad_cam": _grad_cam,
    "lrp": _lrp,
    "deep_taylor": _deep_taylor,
    "guided_backprop": _reversed,
    "deconvnet": _reversed,
    "desalinet": _reversed,
    "guided_grad_cam": _guided_grad_cam,
}
"""What is known of single methods; the others are judged by the checks that they make."""
