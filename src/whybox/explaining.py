"""explain: run a method on real input, measure how far it can be trusted, and keep the record."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core import registry
from whybox.core.errors import WhyboxError
from whybox.core.explanation import Explanation
from whybox.core.layout import by_position
from whybox.core.method import Attribution, Check, Method
from whybox.core.model import Model
from whybox.core.passage import PADDING
from whybox.core.start import check_outputs, started
from whybox.core.target import Target
from whybox.core.tree import Inputs, as_tuple, each
from whybox.evaluation.controls import edges
from whybox.evaluation.randomisation import randomised
from whybox.evaluation.similarity import rank_correlation

# So many ways to shuffle the weights are tried until the copy gives a map that is not blank.
SHUFFLES = 4


def explain(
    model: Model | nn.Module,
    inputs: Inputs,
    method: Method | str = "integrated_gradients",
    target: Any = None,
    *,
    forward_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = False,
    at: str | None = None,
    checks: bool = True,
) -> Explanation:
    """Explain a prediction and say how far the answer can be trusted.

    Args:
        model, inputs, target, forward_kwargs, seed, progress, at: as in `Method.run`.
        method: a method, its name, or text such as "smooth_grad(of=gradient, samples=16)".
        checks: besides the method's own checks and evidence, run the method once more on a copy of the model with
            shuffled weights (not for a contrast that was searched for: it is held against the model itself), and
            compare pictures with an edge detector.

    Returns:
        the record of the answer, on the CPU: `.relevance`, `.predictions()`, `.checks`, `.plot()`, `.save(path)`.

    Cost: one forward pass, the method, and with `checks` the method once more (up to four times, where the copies with
    shuffled weights are dead) and its own evidence: for LRP a trace, a few times the method.
    """
    model = Model.wrap(model)
    chosen = registry.method(method) if isinstance(method, str) else method
    options: dict[str, Any] = {"forward_kwargs": forward_kwargs, "seed": seed, "progress": progress, "at": at}
    differentiable = chosen.needs() != "outputs" and at is None
    with (
        started(model, inputs, target, **{**options, "at": None}, differentiable=differentiable) as task,
        torch.no_grad(),
    ):
        outputs = task.map(task.output, task.inputs, gradient=False)
        check_outputs(outputs)
        scores = task.target.score(outputs) if task.target.layer is None else task.score(task.inputs)
    answer = chosen.run(model, inputs, task.target, **options)
    details, evidence = chosen.evidence(model, inputs, task.target, **options) if checks else ({}, ())
    measured = (
        *answer.checks,
        *evidence,
        *(_trust(model, inputs, chosen, task.target, answer, options) if checks else ()),
    )
    return Explanation(
        relevance=each(_to_cpu, answer.relevance),
        inputs=each(lambda x: x.detach().cpu().clone(), inputs),
        method=chosen.config(),
        target=tuple(task.target.describe(i, model.labels) for i in range(task.size)),
        scores=_to_cpu(scores),
        outputs=_to_cpu(outputs),
        model=model.name,
        domains=task.domains(),
        labels=model.labels,
        checks=tuple(measured),
        details=_details_to_cpu({**answer.details, **details}),
        seconds=answer.seconds,
        forwards=answer.forwards,
        backwards=answer.backwards,
        seed=seed,
        at=at,
    )


def _trust(
    model: Model, inputs: Inputs, method: Method, target: Target, answer: Attribution, options: dict[str, Any]
) -> list[Check]:
    """The checks that any method must stand, on the first input."""
    picture = as_tuple(inputs)[0]
    first = by_position(as_tuple(answer.relevance)[0], picture)
    found = []
    # A contrast that was searched for has been held against the model itself: without its weights there is no tie.
    # Maps of two such steps in one latent space are alike whatever they mean, and the copy mostly has no contrast.
    if "contrast_image" not in answer.details:
        found.append(_of_weights(model, inputs, method, target, first, options))
    if picture.ndim == 4 and options["at"] is None:
        found.append(
            Check(
                "likeness to an edge detector",
                torch.where(_is_blank(edges(picture)), torch.nan, _likeness(first.abs(), edges(picture)[:, 0])),
                0.5,
                "Rank correlation of the map's strength with the edges in the picture. A map that resembles them may "
                "show the picture rather than the model.",
            )
        )
    if bool(_is_blank(first).any()):
        says = "The map is the same everywhere, so it says nothing of where the evidence lies."
        found.append(Check("blank map", _is_blank(first).double(), 0.5, says))
    return found


def _of_weights(
    model: Model, inputs: Inputs, method: Method, target: Target, first: Tensor, options: dict[str, Any]
) -> Check:
    """Whether the first input's map is alike for a copy of the model with shuffled weights."""
    picture = as_tuple(inputs)[0]
    says = (
        "Rank correlation with the same method's map for a copy of the model whose weights are shuffled. A map "
        "that hardly changes does not show what the model has learned."
    )
    try:
        destroyed = _of_random_weights(model, inputs, method, target, options)
        likeness = _likeness(first, destroyed, None if picture.is_floating_point() else picture != PADDING)
        if bool(_is_blank(destroyed).any()):
            says = f"{says} However its weights are shuffled, the copy's own map is the same everywhere."
    except WhyboxError as error:  # the answer itself stands; say why this check does not
        likeness = torch.full((len(first),), torch.nan, dtype=torch.float64)
        says = f"{says} Not measured: {error}"
    return Check("likeness to the map of random weights", likeness, 0.5, says)


def _of_random_weights(model: Model, inputs: Inputs, method: Method, target: Target, options: dict[str, Any]) -> Tensor:
    """The first input's map, by position, for a copy of the model with shuffled weights.

    The copy may be dead, with a score of zero and a map that is blank: then it is shuffled in another way, for the
    samples for which it is, so that no sample's answer depends on the others.
    """

    def explained(seed: int) -> Tensor:
        relevance = method.run(randomised(model, seed), inputs, target, **options).relevance
        return by_position(as_tuple(relevance)[0], as_tuple(inputs)[0])

    map = explained(options["seed"])
    for seed in range(options["seed"] + 1, options["seed"] + SHUFFLES):
        blank = _is_blank(map).to(map.device)
        if not bool(blank.any()):
            break
        map = torch.where(blank.view(-1, *(1,) * (map.ndim - 1)), explained(seed), map)
    return map


def _likeness(map: Tensor, other: Tensor, real: Tensor | None = None) -> Tensor:
    """|Rank correlation| of each sample's map (n, *grid) with another one; NaN for a map that is blank.

    Where there are tokens that are not `real`, on those alone that are: padding is alike in all maps.
    """
    if real is not None and real.shape == map.shape and not bool(real.all()):
        rows = zip(map, other, real.cpu(), strict=True)
        return torch.cat([_likeness(one[None, keep], two[None, keep]) for one, two, keep in rows])
    return torch.where(_is_blank(map), torch.nan, rank_correlation(map[:, None], other[:, None]).abs())


def _is_blank(map: Tensor) -> Tensor:
    """Whether each sample's map is the same everywhere (n,), on the CPU."""
    flat = map.flatten(1).cpu()
    return (flat == flat[:, :1]).all(1)


def _details_to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _to_cpu(value)
    if isinstance(value, dict):
        return {key: _details_to_cpu(part) for key, part in value.items()}
    return tuple(map(_details_to_cpu, value)) if isinstance(value, (tuple, list)) else value


def _to_cpu(x: Tensor) -> Tensor:
    return x.detach().cpu()
