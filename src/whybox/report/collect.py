"""collect: run every method on the same question, and gather what they say."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core import registry
from whybox.core.configs import config_title
from whybox.core.errors import InputError, TargetError, WhyboxError
from whybox.core.explanation import Explanation
from whybox.core.guard import guard
from whybox.core.method import Check, Method
from whybox.core.model import Model
from whybox.core.start import check_inputs, start
from whybox.core.target import Contrast, Logit, Target, as_target
from whybox.core.tree import Inputs, as_tuple, each
from whybox.evaluation.trials import Trial, outside_the_tile, trials
from whybox.explaining import explain
from whybox.plot import is_change
from whybox.report.findings import Contrasts, Failure, Findings

logger = logging.getLogger(__name__)

TOP = 5
# How far, as a share of its size, a map may be from changing its sign when the classes are exchanged.
REVERSES = 0.05
# Up to this share of its size a map is the same one, in chunks of whatever size it was made.
SAME = 1e-4


def collect(
    model: Model | nn.Module,
    inputs: Inputs,
    methods: Sequence[Method | str],
    target: Any = None,
    *,
    versus: Any = None,
    at: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """Explain one question with several methods, and contrast its class with the model's other favourites.

    Args:
        model, inputs, at, seed, progress: as in `whybox.explain`.
        methods: methods, their names, or text such as "smooth_grad(of=gradient, samples=16)".
        target: as in `whybox.explain`; pinned once, for all methods alike.
        versus: explain the target's class against this one: `Contrast(target, versus)`.

    Returns:
        the findings. A method that cannot explain this model becomes a Failure in its place.

    Raises:
        InputError, TargetError, UnknownNameError: the question itself is wrong.
        WhyboxError: no method could explain the model; the first one's error.

    Cost: that of `whybox.explain` for every method, of the cheapest ones five or six times more, and that of
        `whybox.evaluation.trials.trials`.
    """
    model = Model.wrap(model)
    chosen = [registry.method(method) if isinstance(method, str) else method for method in methods]
    if not chosen:
        raise InputError("there is no method to explain with; `whybox methods` lists them")
    check_inputs(inputs, model, differentiable=False)
    asked = as_target(target) if versus is None else _versus(as_target(target), versus)
    with guard(model.module, seed), torch.inference_mode(False), torch.no_grad():
        pinned = start(model, inputs, asked, {}, seed, progress, None).target
    results: list[Explanation | Failure] = []
    errors: list[WhyboxError] = []
    for method in chosen:
        try:
            results.append(explain(model, inputs, method, pinned, seed=seed, progress=progress, at=at))
        except WhyboxError as error:
            logger.warning("%s: %s", config_title(method.config()), error)
            errors.append(error)
            results.append(Failure(method.config(), str(error)))
    if len(errors) == len(chosen):
        raise errors[0]
    able = [(m, r) for m, r in zip(chosen, results, strict=True) if isinstance(r, Explanation)]
    tried, tiles = _tried(model, inputs, able, pinned, at=at, seed=seed, progress=progress)
    if tiles:
        further = iter(tiles)
        results = [
            replace(one, checks=(*one.checks, next(further))) if isinstance(one, Explanation) and _is_map(one) else one
            for one in results
        ]
    maps = [(method, one) for method, one in able if _is_map(one)]
    contrasts, note = _contrasts(model, inputs, maps, able[0][1].outputs, pinned, at=at, seed=seed, progress=progress)
    return Findings(
        model=model.name,
        labels=model.labels,
        domain=able[0][1].domains[0],
        preprocess=model.preprocess,
        target=pinned,
        results=tuple(results),
        contrasts=contrasts,
        contrast_note=note,
        trials=tried,
        seed=seed,
        at=at,
    )


def _versus(target: Target, versus: Any) -> Contrast:
    """The target's class against another one."""
    other = as_target(versus)
    if type(target) is not Logit or type(other) is not Logit or other.index is None:
        raise TargetError("versus contrasts two classes: give both as indices, or leave the target out")
    return Contrast(target.index, other.index)


def _contrasts(
    model: Model,
    inputs: Inputs,
    able: list[tuple[Method, Explanation]],
    outputs: Tensor,
    target: Target,
    **options: Any,
) -> tuple[Contrasts | None, str]:
    """The contrast maps of every sample, by the cheapest method that can make them; else None and the reason.

    Preferred are methods that tell for from against: exchange the classes, and their map changes its sign. Masks have
    none, and no share in the difference between two classes.
    """
    this, others = _classes(outputs, target)
    if this is None or others is None:
        return None, "The model's answer is not a choice between classes, so there is no other class to compare with."
    amounts = [answer for answer in able if answer[1].shows != "mask"]
    if not amounts:
        return None, "A mask says where, not how much speaks for one class and how much for another."
    note, instead = "", None
    for method, explanation in sorted(amounts, key=_cost):
        name = config_title(method.config())

        def contrast(one: Tensor, other: Tensor, method: Method = method) -> Tensor:
            return as_tuple(method(model, inputs, Contrast(one, other), **options))[0].detach().cpu()

        try:
            first, reverse = contrast(this, others[:, 0]), contrast(others[:, 0], this)
            telling = float((first + reverse).norm()) <= REVERSES * float(first.norm())
            if not telling and instead is not None:
                continue
            found = Contrasts(
                method.config(), this, others, (first, *(contrast(this, other) for other in others.T[1:]))
            )
        except WhyboxError as error:
            logger.warning("contrasts by %s: %s", name, error)
            note = note or f"{name} cannot contrast two classes of this model: {error}"
        else:
            if telling:
                return found, ""
            own = () if isinstance(target, Contrast) else (as_tuple(explanation.relevance)[0],)
            maps = (*found.relevance, *own)
            if len(maps) > 1 and all(float((map - first).norm()) <= SAME * float(first.norm()) for map in maps):
                note = note or f"The map of {name} is the same for every class: it shows no difference between two."
            else:
                instead = found
    return instead, "" if instead is not None else note


def _tried(
    model: Model,
    inputs: Inputs,
    able: list[tuple[Method, Explanation]],
    target: Target,
    *,
    at: str | None,
    seed: int,
    progress: bool,
) -> tuple[tuple[Trial, ...], tuple[Check, ...]]:
    """The explanations beside controls and on mosaics; nothing where they are of a layer inside, or cannot be tried."""
    if at is not None:
        return (), ()
    relevances = [each(lambda r, x: r.to(x.device), explanation.relevance, inputs) for _, explanation in able]
    given = (model, inputs, target, relevances)
    maps = [place for place, (_, one) in enumerate(able) if _is_map(one)]
    try:
        return (
            trials(*given, seed=seed, progress=progress),
            outside_the_tile(
                *given[:3], [relevances[i] for i in maps], [able[i][0] for i in maps], seed=seed, progress=progress
            ),
        )
    except WhyboxError as error:
        logger.warning("the explanations cannot be tried: %s", error)
        return (), ()


def _is_map(explanation: Explanation) -> bool:
    """Whether it is a map of where the evidence lies: a contrast in a latent space is shown in its own way."""
    return not is_change(explanation)


def _cost(answer: tuple[Method, Explanation]) -> int:
    return answer[1].forwards + answer[1].backwards


def _classes(outputs: Tensor, target: Target) -> tuple[Tensor | None, Tensor | None]:
    """The class of each sample (n,), and those to contrast it with (n, k).

    These are the class asked for with `versus`, then the other ones of the five most probable.
    """
    this = target.a if isinstance(target, Contrast) else target.index if isinstance(target, Logit) else None
    if not isinstance(this, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
        return None, None
    ranked = outputs.argsort(dim=1, descending=True, stable=True)
    favourites = ranked[:, :TOP]
    versus = target.b if isinstance(target, Contrast) and isinstance(target.b, Tensor) else None
    inside = (favourites == this[:, None]).any(1)
    count = TOP - 1 if versus is None and bool(inside.all()) else TOP
    rows = []
    for row, mine, other in zip(ranked, this, this if versus is None else versus, strict=True):
        rest = row[(row != mine) & (row != other)]
        rows.append((rest if versus is None else torch.cat([other[None], rest]))[:count])
    return this, torch.stack(rows)
