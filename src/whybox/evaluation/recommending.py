"""Recommending: a comparison in words. What is not certain is not said."""

from collections.abc import Sequence

from whybox.evaluation.bootstrap import FEWEST
from whybox.evaluation.comparison import Comparison
from whybox.evaluation.standing import Disagreement, Standing, ahead_of, disagreements, judged, standings

_SHOWN = 3


def recommendation(comparison: Comparison) -> str:
    """The method to use, if any; the next best; those not to rely on; where the infills disagree."""
    order = standings(comparison)
    usable = [one for one in order if one.light != "fail"]
    lines = [headline(comparison), *_runner_up(comparison, usable), *_unreliable(comparison, order)]
    lines += [disagreement_says(comparison, one) for one in disagreements(comparison) if one.reversed]
    return "\n".join(lines)


def headline(comparison: Comparison) -> str:
    """The first sentence."""
    order = standings(comparison)
    where, n = f"For {comparison.model}", f"n = {comparison.n}"
    if not order or not order[0].of:
        return f"{where}: nothing to recommend, for no measurement says how faithful a method is ({n})."
    best = order[0]
    name = comparison.names[best.row]
    if not comparison.controls:
        return (
            f"{where}: {name} comes first, but whether it means anything is not known, for no controls were scored "
            f"beside it ({n})."
        )
    if comparison.n < FEWEST:
        return f"{where}: nothing to recommend, for {comparison.n} samples tell no method from chance; take more."
    if best.light == "pass":
        return f"{where}: {name}; it {_wins(best)} ({n})."
    if best.light == "open" and len(best.beats) > len(best.behind):
        return f"{where}: {name}, with reservations; it {_wins(best)} only{_losses(best)} ({n})."
    if best.light == "open":
        return f"{where}: none convinces. {name} comes nearest; it {_wins(best)}{_losses(best)} ({n})."
    if any(one.beats for one in order):
        return f"{where}: none. Every method that beats the controls must not be relied on for another reason ({n})."
    return (
        f"{where}: none. No method beats the controls on any of {best.of} measurements ({n}): with none of them is it "
        "shown that the map says more than one that knows nothing of the model."
    )


def reason(comparison: Comparison, one: Standing) -> str:
    """Why a method has its light."""
    parts = [beyond_says(comparison, one.row, column) for column in one.beyond]
    if comparison.controls and one.of:
        parts.append(_wins(one))
    if one.behind:
        ahead = dict.fromkeys(control for column in one.behind for control in ahead_of(comparison, one.row, column))
        parts.append(f"is behind on {len(one.behind)} ({', '.join(comparison.names[control] for control in ahead)})")
    return "; ".join(parts)


def beyond_says(comparison: Comparison, row: int, column: int) -> str:
    """That a method is beyond a limit, with its score."""
    criterion = comparison.criteria[column]
    side = "below" if criterion.higher_is_better else "above"
    score = f"{comparison.criterion_name(column)} {comparison.interval(row, column).mean:.2g}"
    return f"{criterion.limit_says} ({score}, {side} {criterion.limit:g})"


def disagreement_says(comparison: Comparison, one: Disagreement) -> str:
    """What two infills make of the same methods."""
    metric = comparison.metrics[one.first]
    infills = [comparison.criteria[column].infill for column in (one.first, one.second)]
    order = f"{metric} with {infills[0]} and with {infills[1]}: rank correlation {one.correlation:.2f}"
    if not one.reversed:
        return f"{order}; no two methods change places for certain."
    names = comparison.names
    said = _listed([f"{names[a]} is better than {names[b]}" for a, b in one.reversed])
    return f"{order}. With {infills[0]} {said}; with {infills[1]} it is the other way round."


def _wins(one: Standing) -> str:
    return f"beats the controls on {len(one.beats) or 'none'} of {one.of}"


def _losses(one: Standing) -> str:
    return f", and is behind one of them on {len(one.behind)}" if one.behind else ""


def _runner_up(comparison: Comparison, usable: Sequence[Standing]) -> list[str]:
    """The next best, and on how much the two differ."""
    if len(usable) < 2 or not comparison.controls:
        return []
    best, following = usable[0], usable[1]
    signs = [comparison.difference(best.row, following.row, column).sign for column in judged(comparison)]
    ahead, behind = signs.count(1), signs.count(-1)
    first = comparison.names[best.row]
    apart = (
        f"is worse than {first} on {ahead} and better on {behind}"
        if ahead or behind
        else f"cannot be told from {first}"
    )
    return [f"Next: {comparison.names[following.row]}; it {_wins(following)}{_losses(following)}; it {apart}."]


def _unreliable(comparison: Comparison, order: Sequence[Standing]) -> list[str]:
    failed = [one for one in order if one.light == "fail"]
    beyond = [one for one in failed if one.beyond]
    blind = [comparison.names[one.row] for one in failed if not one.beyond]
    lines = [
        f"Do not rely on {comparison.names[one.row]}: "
        f"{', '.join(beyond_says(comparison, one.row, column) for column in one.beyond)}."
        for one in beyond
    ]
    if blind and len(failed) < len(order) and comparison.n >= FEWEST:
        lines.append(
            f"Do not rely on {_listed(blind, len(blind))}: not shown to be better than the controls on anything."
        )
    return lines


def _listed(parts: Sequence[str], most: int = _SHOWN) -> str:
    """ "a, b and c", or "a, b, c and 4 more"."""
    shown = list(parts[:most])
    rest = len(parts) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join(([", ".join(shown[:-1])] if shown[1:] else []) + shown[-1:])
