"""docs/benchmarks.md, written from benchmarks/results/*.json: `python -m benchmarks.table`."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT

PAGE = ROOT / "docs/benchmarks.md"
HEADER = """<!-- Written by `python -m benchmarks.table` from benchmarks/results/*.json. Do not edit. -->

# Benchmarks

`make bench` measures everything anew, with `WHYBOX_DATA` set to the folder of real data. Each benchmark runs in a
process of its own on one thread; contenders take turns (A B A B …), five rounds after a warm-up; seconds are medians,
and a ratio is the median over the rounds of one contender's seconds over the other's in the same round. The machine's
cores are shared, so ratios are given by the wall clock and by processor time, which other work on the machine disturbs
less. Captum and the plain loops run at the batch size that was fastest for them. *Evaluations* are samples sent
forward and backward; they do not depend on the machine.
"""


def write() -> Path:
    """Write the page, from what has been measured so far."""
    parts = [HEADER]
    for name, section in SECTIONS.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            content = json.loads(file.read_text())
            parts.append(f"{section(content['results'], content['settings'])}\n{footer(content)}")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(parts))
    return PAGE


def footer(content: dict[str, Any]) -> str:
    """On what it was measured."""
    it = content["environment"]
    versions = ", ".join(
        f"{name} {it[name]}" for name in ("whybox", "torch", "captum", "zennit", "python") if it.get(name)
    )
    return (
        f"<small>{it['date']}, commit {it['commit']}, {versions}; {it['cores']} shared cores ({it['processor']}), one "
        f"thread, mean load of the machine {it['load']}. All numbers and settings: "
        f"`benchmarks/results/{content['benchmark']}.json`.</small>\n"
    )


def rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seconds(value: float) -> str:
    """Three digits, in s or ms."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def percent(value: float) -> str:
    """Two digits of a share."""
    return f"{100 * value:.2g} %"


def stream(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Overhead of the stream."""
    body = []
    for name, found in results.items():
        for kind, best in (("gradient", found["gradient"]), ("forward", found["forward"])):
            raw = best["timed"]["raw"]["seconds"]
            label = "forward and gradient" if kind == "gradient" else "forward only"
            body.append(
                (f"{name}, plain loop, {label}", str(found["variants"]), seconds(raw), "1", "1", str(best["raw_chunk"]))
            )
            for contender, ratio in best["ratio"].items():
                chunk = best["chunk_found"][contender.split()[0]]
                body.append(
                    (
                        f"{name}, {contender}",
                        str(found["variants"]),
                        seconds(best["timed"][contender]["seconds"]),
                        f"{ratio['wall']:.2f}",
                        f"{ratio['processor']:.2f}",
                        ", ".join(map(str, chunk)) if contender.endswith("warm") else "found meanwhile",
                    )
                )
    return f"""## The stream against the best plain loop

Many variants through the model, against a loop in plain PyTorch over ready-made variants at the best of the chunk sizes
{", ".join(map(str, settings["chunks"]))}. whybox guards the model, checks inputs and relevance, makes SmoothGrad's
noise, and finds the chunk size itself: in the same call (cold) or an earlier one (warm). Goal: at most
{settings["goal"]:.2f}.

{rows(("", "variants", "time", "ratio (wall)", "ratio (processor)", "chunk"), body)}"""


def integrated(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Gaps, gradients and maps of integrated gradients."""
    gaps, maps = [], []
    for name, found in results.items():
        lines = {"whybox, tolerance 1 %": found["whybox"]}
        lines |= {f"Captum, {steps} steps": each for steps, each in found["captum"].items()}
        for label, each in lines.items():
            gaps.append(
                (
                    f"{name}, {label}",
                    f"{each['gradients']['mean']:.1f}",
                    percent(each["gap"]["median"]),
                    percent(each["gap"]["mean"]),
                    percent(each["gap"]["max"]),
                    percent(each["within_1_percent"]),
                )
            )
        for label, each in found["maps"].items():
            maps.append(
                (
                    f"{name}, {label}",
                    f"{each['gradients']['mean']:.1f}",
                    f"{each['relative_distance']['median']:.2f}",
                    f"{each['rank_correlation']['median']:.2f}",
                )
            )
    share = "; ".join(
        f"{name}: whybox {found['whybox']['gradients']['mean']:.1f}, Captum {between(found)}"
        + ("" if found["captum_reaches_the_gap"] else f", which has not reached it with {found['captum_steps']}")
        for name, found in results.items()
    )
    columns = ("", "gradients (mean)", "median gap", "mean gap", "largest", "images within 1 %")
    return f"""## Integrated gradients: completeness per gradient

The relative completeness gap |Σ R − Δf| / |Δf| over {settings["images"]} fixed images. whybox's default stops each
sample at its own gap of 1 %; Captum is given as many Gauss–Legendre steps as its median needs to be no larger.
Goals: median at most 1 %, with at most half of Captum's gradients.

Gradients for the same median gap: {share}.

{rows(columns, gaps)}
A small gap is not yet a good map: a rule that stops when the gap is small may stop by luck. The same maps against a
reference ({settings["reference"]}): relative distance ‖R − R*‖ / ‖R*‖ (smaller is better) and rank correlation (larger
is better), medians over the images.

{rows(("", "gradients (mean)", "relative distance", "rank correlation"), maps)}"""


def between(found: dict[str, Any]) -> str:
    """Between which two rungs of the ladder Captum reaches the gap, and whybox's share of its gradients there."""
    rungs = [int(steps) for steps in found["captum"]]
    ours = found["whybox"]["gradients"]["mean"]
    if len(rungs) < 2:
        return f"at most {rungs[-1]}"
    low, high = rungs[-2], rungs[-1]
    return f"more than {low}, at most {high} (whybox's share: {ours / high:.2f} to {ours / low:.2f})"


def memory(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Peak memory against the number of steps."""
    body = []
    for name, methods in results.items():
        for method, contenders in methods.items():
            for contender, found in contenders.items():
                sizes = [
                    f"{found['bytes'][str(count)]['peak'] / 2**20:.0f}" if str(count) in found["bytes"] else "–"
                    for count in settings["counts"]
                ]
                body.append((f"{name}, {method}, {contender}", *sizes, f"{found['ratio']:.2f}"))
    counts = [f"{count} (MiB)" for count in settings["counts"]]
    return f"""## Peak memory against the number of steps

The largest resident size of a fresh process that explains one image, with so many steps (samples). Goal for whybox: at
most {settings["goal"]:.2f} times as much for the most as for the fewest. Captum's memory is bounded by its batch size
where one is set, and grows with the number of steps as it comes.

{rows(("", *counts, "largest / smallest"), body)}"""


def shapley(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Errors of Shapley values at equal evaluations."""
    goals, body = [], []
    for name, found in results.items():
        for estimator, by_budget in found.items():
            errors = (percent(by_budget[str(budget)]["error"]) for budget in settings["budgets"])
            body.append((f"{name}, {estimator}", *errors))
        for own in ("KernelSHAP", "ShapleySampling"):
            for peer in ("shap", "Captum"):
                shares = []
                for budget in map(str, settings["budgets"]):
                    best = min(each[budget]["error"] for rival, each in found.items() if rival.startswith(f"{peer} "))
                    shares.append(f"{found[f'whybox {own}'][budget]['error'] / best:.2f}")
                goals.append((f"{name}, whybox {own} over the best of {peer}", *shares))
    budgets = [f"{budget:,} evaluations" for budget in settings["budgets"]]
    pixels = ", ".join(f"{name} at {size} × {size}" for name, size in settings["pixels"].items())
    return f"""## Shapley values: accuracy per evaluation

{settings["regions"]} superpixels, hidden by the mean colour; the exact values from all {2 ** settings["regions"]:,}
coalitions of {settings["pictures"]} pictures for each model ({pixels}); {settings["seeds"]} seeds. The error is the
root mean square over regions, pictures and seeds, relative to that of the picture's values. Every estimator has its
largest setting within the budget of evaluations, counted (shap {settings["shap"]}). The last two lines of each model
exchange one part: the same coalitions with the usual weighted least squares show what KernelSHAP owes to its estimate,
and KernelSHAP's estimate from the coalitions of ShapleySampling what the plain mean over orders leaves lying.

{rows(("", *budgets), body)}
Goal: at most half the error of the best of each peer.

{rows(("", *budgets), goals)}"""


def start_up(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Import and help."""
    goals = settings["goals"]
    body = [
        (f"`{name}`" if name.startswith("whybox") else name, seconds(found["seconds"]), seconds(goals[name]))
        if name in goals
        else (name, seconds(found["seconds"]), "")
        for name, found in results.items()
    ]
    return f"""## Starting up

Medians of {settings["rounds"]} fresh processes, interleaved.

{rows(("", "time", "goal"), body)}"""


def speed(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Method by method against Captum."""
    body = []
    for name, methods in results.items():
        for method, found in methods.items():
            calls, asked = found["calls_a_round"], found["evaluations"]
            ours, theirs = (found["timed"][who]["seconds"] / calls for who in ("whybox", "captum"))
            body.append(
                (
                    f"{name}, {method}",
                    seconds(ours),
                    seconds(theirs),
                    f"{found['ratio']['wall']:.2f}",
                    f"{found['ratio']['processor']:.2f}",
                    *(_asked(asked[who]) for who in ("whybox", "captum")),
                    str(found["captum_batch"] or "all"),
                )
            )
    images = ", ".join(f"{count} for {name}" for name, count in settings["images"].items())
    columns = ("", "whybox", "Captum", "ratio (wall)", "ratio (processor)", "whybox asks", "Captum asks", "its batch")
    return f"""## The same methods, the same settings, against Captum

Seconds a call; images at once: {images}; {settings["steps and samples"]} steps or samples. Below 1 whybox is faster.
"Asks" is the number of samples sent forward + backward; with integrated gradients whybox's two more forwards a sample
are for the completeness gap, which Captum computes on demand.

{rows(columns, body)}"""


def _made_of(composite: str, ratio: dict[str, Any], calm: dict[str, Any]) -> str:
    """What is left of a ratio that misses its goal when its causes are taken away one by one."""
    kept = calm.get(f"{composite}, weights kept")
    without = "" if kept is None else f" and {kept['processor']:.2f} with the weights kept as well"
    least = calm["gradient and another forward"]["processor"]
    return (
        f"{ratio['processor']:.2f}, of which {calm[composite]['processor']:.2f} remain without page faults{without}; "
        f"a gradient and another forward pass alone are {least:.2f}"
    )


def backprop(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """LRP against the gradient and other LRPs, and what the misses are made of."""
    body, peers, memory_body, kept_body, missed = [], [], [], [], []
    for name, found in results.items():
        for composite, goal in settings["goals"][name].items():
            ratio, calm = found["ratio"][composite], found["memory_kept"]["ratio"]
            body.append(
                (f"{name}, {composite}", *(f"{ratio[clock]:.2f}" for clock in ("processor", "wall")),
                 f"{calm[composite]['processor']:.2f}", f"{goal:.2f}", _met(ratio["processor"] <= goal))
            )  # fmt: skip
            if ratio["processor"] > goal:
                missed.append(f"{name}, {composite}: {_made_of(composite, ratio, calm)}")
            for peer, least in settings["at least as fast as"].items():
                label = f"{peer} {composite}"
                if label not in found["times_as_fast"]:
                    continue
                faster, off = found["times_as_fast"][label], found["relative_distance"][label]
                peers.append(
                    (f"{name}, {label}", f"{found['ratio'][label]['processor']:.2f}",
                     *(f"{faster[clock]:.2f}" for clock in ("processor", "wall")), f"{least:.1f}",
                     _met(faster["processor"] >= least), "not finite" if off is None else f"{off:.1g}")
                )  # fmt: skip
            used, base = found["memory"][composite], found["memory"]["gradient"]
            added, whole = (used[key]["median"] / base[key]["median"] for key in ("added", "peak"))
            memory_body.append(
                (f"{name}, {composite}", f"{used['added']['median'] / 2**20:.0f}", f"{added:.2f}", f"{whole:.2f}",
                 _met(added <= settings["memory goal"]))
            )  # fmt: skip
        for label in ("gradient and another forward", "epsilon_plus_flat", "epsilon_plus_flat, weights kept"):
            kept_body.append((f"{name}, {label}", f"{found['memory_kept']['ratio'][label]['processor']:.2f}"))
    absent = sorted({f"{label}: {why}" for found in results.values() for label, why in found["absent"].items()})
    subjects = "; ".join(f"{name} {it['images']} × {it['side']}²" for name, it in settings["subjects"].items())
    columns = ("", "processor", "wall", "processor, memory kept", "goal", "met")
    return f"""## LRP against the gradient

One forward and backward pass with the rules, as a ratio to one forward pass and input gradient in plain PyTorch:
{subjects} pixels. Weights: {settings["weights"]}.

"Memory kept" is the same where the allocator gives nothing back to the system ({settings["memory kept"]}):
contenders that take turns else pay for each other's page faults. The goals are met, or not, as it comes.

{rows(columns, body)}
What a rule with denominators of its own must do is at least one more forward pass beside those of the gradient; what
it saves is the gradient's way through batch norm and, with the flat rule, to the colours. Keeping folded and split
weights from call to call, which would need proof at each call that the model has not changed, is here for comparison:

{rows(("", "processor, memory kept"), kept_body)}
Missed: {"; ".join(missed) or "nothing"}.

Against the LRP of other libraries: their ratio to the gradient, and how many times as fast whybox is. The last
column is ‖theirs − whybox's‖ / ‖whybox's‖: where it is not small, they compute something else.

- zennit: {settings["zennit"]}.
- Captum: {settings["Captum"]}.

{rows(("", "theirs", "times as fast (processor)", "(wall)", "goal", "met", "distance"), peers)}
Not compared: {"; ".join(absent)}.

Peak memory in a fresh process, two calls: what comes on top of the loaded model, as a ratio to what the gradient adds
(goal: {settings["memory goal"]}), and the same of the whole process.

{rows(("", "added (MiB)", "added, ratio", "whole, ratio", "met"), memory_body)}"""


def _asked(count: dict[str, int] | None) -> str:
    return "–" if count is None else f"{count['forwards']} + {count['backwards']}"


def _met(yes: bool) -> str:
    return "yes" if yes else "no"


def perturbation(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Methods that hide parts of the input, over the forwards they need."""
    body = []
    for name, found in results.items():
        for method, each in found["methods"].items():
            for contender, ratio in each["ratio"].items():
                setting = each["captum_perturbations_per_eval"] if contender == "captum" else each["chunk_found"][0]
                body.append(
                    (
                        f"{name}, {method}, {contender}",
                        str(each["evaluations"][contender]),
                        seconds(each["timed"][contender]["seconds"]),
                        f"{ratio['wall']:.2f}",
                        f"{ratio['processor']:.2f}",
                        str(setting),
                    )
                )
    chunks = ", ".join(f"{found['raw_chunk']} for {name}" for name, found in results.items())
    columns = ("", "evaluations", "time", "over raw (wall)", "over raw (processor)", "at once")
    return f"""## Hiding parts of the input, over the forwards it needs

{settings["images"]} images, some {settings["samples"]} variants of each. Raw is a loop in plain PyTorch over as many
ready-made variants at its best chunk size ({chunks}): nothing can be faster. Goal for whybox: at most
{settings["goal"]:.2f}. Captum runs at its best `perturbations_per_eval`, its LIME image by image.

{rows(columns, body)}"""


SECTIONS: dict[str, Callable[[dict[str, Any], dict[str, Any]], str]] = {
    "stream": stream,
    "integrated_gradients": integrated,
    "shapley": shapley,
    "memory": memory,
    "speed": speed,
    "backprop": backprop,
    "perturbation": perturbation,
    "start_up": start_up,
}


if __name__ == "__main__":
    print(write())
