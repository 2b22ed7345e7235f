"""The metrics against Quantus."""

from collections.abc import Mapping
from typing import Any

from benchmarks.sections.markdown import met, rows, seconds

KINDS = {"quantus": "Quantus", "same": "whybox, same levels", "coarse": "whybox, its own levels"}


def evaluation(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """All parts that have been measured."""
    parts = {
        "suite": _suite,
        "library": _library,
        "several": _several,
        "robustness": _robustness,
        "agreement": _agreement,
    }
    text = "\n".join(part(results[name], settings) for name, part in parts.items() if name in results)
    return f"""## Metrics against Quantus, at the same levels and draws

ResNet-20, {settings["images"]} CIFAR-10 images, input × gradient; medians of {settings["rounds"]} rounds. Quantus
explains again by a plain loop in PyTorch, and runs at the batch size that is fastest for it.

{text}"""


def _suite(found: dict[str, Any], settings: dict[str, Any]) -> str:
    goals, timed, counts = settings["goals"], found["timed"], found["evaluations"]
    body = [
        (
            name,
            *(cell for kind in KINDS for cell in (_asked([counts[kind][name]]), seconds(timed[kind]["parts"][name]))),
        )
        for name in settings["same"]
    ]
    total = {kind: _total(counts[kind].values()) for kind in KINDS}
    body.append(
        ("**all**", *(cell for kind in KINDS for cell in (_asked(counts[kind].values()), _processor(timed[kind]))))
    )
    shares = []
    for kind, label in list(KINDS.items())[1:]:
        forwards, used = total[kind]["forwards"] / total["quantus"]["forwards"], found["ratio"][kind]["processor"]
        reached = (met(forwards <= goals["forwards"]), met(used <= goals["seconds"]))
        shares.append((label, f"{forwards:.2f}", reached[0], f"{used:.2f}", reached[1]))
    alone = found["ratio"]["raw"]["processor"]
    overhead = timed["same"]["processor_seconds"] / timed["raw"]["processor_seconds"]
    return f"""The default suite, as far as Quantus has it, one explanation; forwards + backwards and processor seconds.
*Same levels*: {_levels(settings["same"])}. *Its own*: {_levels(settings["coarse"])}, of the same curves and the same
layers; Quantus has no such choice, it asks at every step. There are no masks for these images, so the square in their
middle stands in for the truth.

{rows(("", *(f"{label}{unit}" for label in KINDS.values() for unit in (": asks", ": time"))), body)}
As a share of Quantus' (goals: {goals["forwards"]} of the forwards, {goals["seconds"]} of the time):

{rows(("", "forwards", "met", "processor time", "met"), shares)}
What bounds it: for a single explanation every level and every draw is one evaluation, for whichever library. A loop in
plain PyTorch over as many ready-made images, at its best chunk size, takes {alone:.2f} of Quantus' time; whybox at the
same levels takes {overhead:.2f} of the loop's. Who asks for no less cannot be faster than the loop. Quantus' batch is
{found["quantus_batch"]}.
"""


def _library(found: dict[str, Any], settings: dict[str, Any]) -> str:
    def forward(kind: str, name: str) -> str:
        return seconds(found["timed"][kind]["parts"][name] / found["evaluations"][kind][name]["forwards"])

    body = [(name, forward("same", name), forward("quantus", name)) for name in found["evaluations"]["same"]]
    return f"""What the libraries themselves take for a forward, with a model in ResNet-20's place that costs nothing:

{rows(("", "whybox", "Quantus"), body)}"""


def _several(found: dict[str, Any], settings: dict[str, Any]) -> str:
    counts, timed, goals = found["evaluations"], found["timed"], settings["goals"]
    quantus = _total(counts["quantus"].values())["forwards"], timed["quantus"]["processor_seconds"]
    body = []
    for kind in ("same", "coarse"):
        for maps in settings["maps"]:
            asked = _total(counts[kind][str(k)] for k in range(maps))["forwards"]
            used = sum(timed[kind]["parts"][str(k)] for k in range(maps))
            shares = asked / maps / quantus[0], used / maps / quantus[1]
            body.append(
                (
                    f"{KINDS[kind]}, {maps}", str(asked), str(maps * quantus[0]),
                    f"{shares[0]:.2f}", f"{shares[1]:.2f}",
                    met(shares[0] <= goals["forwards"] and shares[1] <= goals["seconds"]),
                )
            )  # fmt: skip
    return f"""### Several explanations

What `compare` does: so many explanations of {settings["images where several maps are compared"]} images, scored by the
same suite. They share the answers for the images themselves, for their baseline and for each region hidden by itself;
what is removed in the order of an explanation, and what it explains again, is its own.

{rows(("explanations", "forwards", "Quantus'", "share of forwards", "of processor time", "both goals met"), body)}"""


def _robustness(found: dict[str, Any], settings: dict[str, Any]) -> str:
    counts, timed, goal = found["evaluations"], found["timed"], settings["goals"]["robustness"]
    alone = [name for name in counts if name not in ("six", "quantus")]
    body = []
    for name in alone:
        body.append(
            (
                name, _asked(counts[name].values()), _processor(timed[name]), _asked([counts["quantus"][name]]),
                seconds(timed["quantus"]["parts"][name]),
            )
        )  # fmt: skip
    body.append(
        ("**all six**", _asked(counts["six"].values()), _processor(timed["six"]), _asked(counts["quantus"].values()),
         _processor(timed["quantus"]))
    )  # fmt: skip

    def cost(name: str) -> int:
        return sum(_total(counts[name].values()).values())

    dearest, longest = max(alone, key=cost), max(alone, key=lambda name: timed[name]["processor_seconds"])
    more = cost("six") / cost(dearest), found["ratio"][longest]["processor"]
    quantus = (
        _total(counts["six"].values())["forwards"] / _total(counts["quantus"].values())["forwards"],
        found["ratio"]["quantus"]["processor"],
    )
    return f"""### Six metrics of robustness

{settings["images for robustness"]} images; each alone by whybox, all six together, and each by Quantus.

{rows(("", "whybox asks", "time", "Quantus asks", "time"), body)}
All six over the dearest: {more[0]:.2f} by evaluations ({dearest}), {more[1]:.2f} by processor time ({longest}); goal:
at most {goal}, {"met" if max(more) <= goal else "missed"}. Of Quantus' six: {quantus[0]:.2f} of the forwards,
{quantus[1]:.2f} of the processor time.
"""


def _agreement(found: dict[str, Any], settings: dict[str, Any]) -> str:
    body, different = [], []
    for name, one in found["differences"].items():
        if "different" in one:
            different.append(f"{name}: {one['different']}.")
            continue
        body.append((name, f"{one['absolute']:.1g}", f"{one['relative']:.1g}", f"{one['values']} of {one['of']}"))
    worst = max(one["relative"] for one in found["differences"].values() if "relative" in one)
    goal = settings["goals"]["values"]
    lost = [
        (name, f"{one['mean']:.3f}", f"{one['largest']:.3f}", f"{one['spread of the scores']:.2f}",
         f"{one['rank correlation']:.3f}")
        for name, one in found["levels"].items()
    ]  # fmt: skip
    return f"""### The same values

The largest difference from Quantus' values, of curves at each level and of MPRT at each step, and as a share of the
largest value; Quantus is given the neighbours and the random models that whybox drew, the gradient where whybox is
given input × gradient (Infidelity), and one number a pixel where it would take channels apart. Its Infidelity removes
one patch after the other and puts none back; it is made to put them back. Its relative stabilities are NaN where
one neighbour has another class, whybox leaves out that neighbour: only the others are compared. Goal: {goal:g} of the
value, {"met" if worst <= goal else "missed"}. {" ".join(different)}

{rows(("", "largest difference", "share", "values"), body)}
What fewer levels change, over the images:

{rows(("", "mean difference", "largest", "standard deviation of the scores", "rank correlation"), lost)}"""


def _levels(metrics: Mapping[str, str]) -> str:
    return ", ".join(f"`{metrics[name]}`" for name in ("RegionPerturbation", "Deletion", "MPRT"))


def _total(counts: Any) -> dict[str, int]:
    found = list(counts)
    return {kind: sum(one[kind] for one in found) for kind in ("forwards", "backwards")}


def _asked(counts: Any) -> str:
    total = _total(counts)
    return f"{total['forwards']} + {total['backwards']}"


def _processor(timed: Mapping[str, Any]) -> str:
    return seconds(timed["processor_seconds"])
