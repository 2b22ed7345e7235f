"""NeuroMask's default against the authors' way."""

from statistics import fmean
from typing import Any

from benchmarks.sections.markdown import met, rows, seconds

WAYS = ("default", "reference")


def masks(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Both models, as far as they have been measured."""
    return f"""## NeuroMask: the default against the authors' 2,000 steps

The loss is the same; goals for every picture: no higher than the reference's, the class kept, insertion no lower and
deletion no higher, at most an eighth of its evaluations (a forward and a backward pass). The pictures are others than
those that the search was tuned on.

{"".join(_one(name, found, settings) for name, found in results.items())}"""


def _one(name: str, found: dict[str, Any], settings: dict[str, Any]) -> str:
    pictures = {number: both for number, both in found["pictures"].items() if all(way in both for way in WAYS)}
    if not pictures:
        return ""
    body = [
        (
            number,
            *(f"{both[way]['loss']:.3f}" for way in WAYS),
            *(str(both[way]["evaluations"]) for way in WAYS),
            *(met(both[way]["kept"]) for way in WAYS),
            *(f"{both[way][key]:.3f}" for key in ("insertion", "deletion") for way in WAYS),
        )
        for number, both in pictures.items()
    ]
    shown = ("loss", "evaluations", "kept", "insertion", "deletion")
    header = ("picture", *(f"{what}, {way}" for what in shown for way in WAYS))
    goals = {
        "loss": lambda ours, theirs: ours["loss"] <= theirs["loss"],
        "class": lambda ours, theirs: ours["kept"] >= theirs["kept"],
        "insertion": lambda ours, theirs: ours["insertion"] >= theirs["insertion"],
        "deletion": lambda ours, theirs: ours["deletion"] <= theirs["deletion"],
        "evaluations": lambda ours, theirs: ours["evaluations"] <= settings["share goal"] * theirs["evaluations"],
    }
    ways = [[both[way] for both in pictures.values()] for way in WAYS]
    reached = ", ".join(f"{goal} {sum(map(good, *ways))}" for goal, good in goals.items())
    means = "; ".join(
        f"{key} {fmean(one[key] for one in ways[0]):.3f} against {fmean(one[key] for one in ways[1]):.3f}"
        for key in ("loss", "insertion", "deletion")
    )
    early = sum(one["evaluations"] < max(each["evaluations"] for each in ways[0]) for one in ways[0])
    return f"""**{name}.** Goals met, of {len(pictures)} pictures: {reached}. Means: {means}. Pictures that left before
the last step: {early}.

{rows(header, body)}
{_batch(found, settings["timed"][name])}
"""


def _batch(found: dict[str, Any], timed: dict[str, Any]) -> str:
    if "batch" not in found:
        return ""
    batch, once = (found["batch"]["timed"][key]["processor_seconds"] for key in ("batch", "one by one"))
    share = found["batch"]["ratio"]["processor"]
    return f"""{timed["pictures"]} pictures, {timed["steps"]} steps each, in one batch: {seconds(batch)} of the
processor; one by one: {seconds(once)}. Ratio in the same round {share:.2f} (goal: at most 1; met: {met(share <= 1)}).
"""
