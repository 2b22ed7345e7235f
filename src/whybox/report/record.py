"""as_json: the findings as plain values, for other programs."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.explanation import Explanation
from whybox.core.tree import as_tuple
from whybox.plot import Scale, change_of, scale_for, scale_of
from whybox.report.change import change_lines, takes_over
from whybox.report.facts import facts
from whybox.report.findings import Failure, Findings
from whybox.report.trace import conservation

FORMAT = 1

# Larger maps are left out: `Explanation.save` is the place for them.
MOST_POSITIONS = 64 * 64


def as_json(findings: Findings, names: Sequence[str]) -> dict[str, Any]:
    """Everything found about one model, as plain values; what is not finite becomes None.

    For each picture or text: the five best predictions, the target and its score, and for each method its checks and
    its relevance: sum, extremes, the scale of the report, and the map itself, summed over the channels, where it has
    at most 4,096 positions (else None), and the numbers that the method gives beside it. Where a method keeps one, the
    parts of the score and the trace of its operations; of a contrast in a latent space, what would have to change. A
    text's map has one value for each of its `tokens`, and zeros behind them.

    Raises:
        InputError: there is not one name for each picture.
    """
    if len(names) != len(findings):
        raise InputError(f"there are {len(findings)} pictures, but {len(names)} names")
    first = findings.explanations[0]
    return {
        "format": FORMAT,
        "model": findings.model,
        "seed": findings.seed,
        "at": findings.at,
        "versions": dict(first.versions),
        "methods": [_method(result) for result in findings.results],
        "pictures": [
            {
                "name": name,
                "predictions": [
                    {"index": p.index, "label": p.label, "score": _plain(p.score), "probability": _plain(p.probability)}
                    for p in first.predictions(sample)
                ],
                "target": first.target[sample],
                "score": _plain(float(first.scores[sample])),
                **({} if first.passages is None else {"tokens": list(first.passages[sample].pieces)}),
                "explanations": [
                    None if isinstance(result, Failure) else _explanation(result, sample) for result in findings.results
                ],
                "contrasts": _contrasts(findings, sample),
            }
            for sample, name in enumerate(names)
        ],
    }


def _method(result: Explanation | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"configuration": result.method, "error": result.message}
    return {
        "configuration": result.method,
        "error": None,
        "seconds": result.seconds,
        "forwards": result.forwards,
        "backwards": result.backwards,
    }


def _explanation(result: Explanation, sample: int) -> dict[str, Any]:
    parts = conservation(result, sample)
    return {
        "relevance": _relevance(
            result.by_position(), tuple(as_tuple(result.relevance)[0].shape), sample, scale_for(result, sample)
        ),
        "checks": [
            {
                "name": check.name,
                "value": _plain(float(check.values[sample])),
                "limit": _plain(float(check.limit)),
                "passed": None if bool(check.values[sample].isnan()) else bool(check.passed[sample]),
                "says": check.says,
            }
            for check in result.checks
        ],
        "facts": {name: _plain(value) for name, value in facts(result, sample).items()},
        "conservation": None if parts is None else {name: _plain(value) for name, value in parts.items()},
        "trace": _trace(result, sample),
        "change": _change(result, sample),
    }


def _change(result: Explanation, sample: int) -> dict[str, Any] | None:
    """A contrast in a latent space: the two classes, what became of the search, the probabilities, and the contrast."""
    change = change_of(result, sample)
    if change is None:
        return None
    return {
        "true": change.true,
        "probe": change.probe,
        "status": change.status,
        "says": list(change_lines(result, sample)),
        "takes_over": int(change.after.argmax()) if takes_over(change) else None,
        "distance": _plain(change.distance),
        "probabilities": {"before": _plain(change.before.tolist()), "after": _plain(change.after.tolist())},
        "trajectory": _plain(change.path.tolist()),
        "contrast": _plain(change.contrast.tolist()) if change.contrast.numel() <= MOST_POSITIONS else None,
    }


def _trace(result: Explanation, sample: int) -> list[dict[str, Any]] | None:
    """Each operation with the relevance that arrives at it, that it hands on, and that each cause absorbs."""
    trace = result.details.get("trace")
    if not isinstance(trace, dict):
        return None
    rows = {"at_output": trace["at_output"], "at_input": trace["at_input"]}
    return [
        {
            **step,
            **{name: _plain(float(values[sample, i])) for name, values in rows.items()},
            "absorbed": {
                cause: _plain(float(amount[sample, i]))
                for cause, amount in trace["absorbed"].items()
                if amount[sample, i]
            },
        }
        for i, step in enumerate(trace["steps"])
    ]


def _relevance(places: Tensor, shape: tuple[int, ...], sample: int, scale: Scale) -> dict[str, Any]:
    values = places[sample].double()
    return {
        "shape": list(shape[1:]),
        "sum": _plain(float(values.sum())),
        "min": _plain(float(values.min())),
        "max": _plain(float(values.max())),
        "full_colour": scale.limit,
        "map": _plain(values.tolist()) if values.numel() <= MOST_POSITIONS else None,
    }


def _contrasts(findings: Findings, sample: int) -> dict[str, Any] | None:
    """The classes that were compared, and what was found where."""
    contrasts = findings.contrasts
    if contrasts is None:
        return None
    maps = contrasts.by_position(as_tuple(findings.explanations[0].inputs)[0])
    scale = scale_of([places[sample] for places in maps])
    return {
        "method": contrasts.method,
        "this": int(contrasts.this[sample]),
        "others": [
            {"index": other, "relevance": _relevance(places, tuple(relevance.shape), sample, scale)}
            for other, places, relevance in zip(
                contrasts.others[sample].tolist(), maps, contrasts.relevance, strict=True
            )
        ],
    }


def _plain(value: Any) -> Any:
    """Numbers with six significant digits; None for what is not finite."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return float(f"{value:.6g}") if math.isfinite(value) else None
