"""LRP's cost, and what the misses are made of."""

from typing import Any

from benchmarks.sections.markdown import met, rows


def backprop(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """LRP against the gradient and other LRPs, and what the misses are made of."""
    body, peers, memory_body, kept_body, missed = [], [], [], [], []
    for name, found in results.items():
        for composite, goal in settings["goals"][name].items():
            ratio, calm = found["ratio"][composite], found["memory_kept"]["ratio"]
            body.append(
                (f"{name}, {composite}", *(f"{ratio[clock]:.2f}" for clock in ("processor", "wall")),
                 f"{calm[composite]['processor']:.2f}", f"{goal:.2f}", met(ratio["processor"] <= goal))
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
                     met(faster["processor"] >= least), "not finite" if off is None else f"{off:.1g}")
                )  # fmt: skip
            used, base = found["memory"][composite], found["memory"]["gradient"]
            added, whole = (used[key]["median"] / base[key]["median"] for key in ("added", "peak"))
            memory_body.append(
                (f"{name}, {composite}", f"{used['added']['median'] / 2**20:.0f}", f"{added:.2f}", f"{whole:.2f}",
                 met(added <= settings["memory goal"]))
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


def recurrence(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """LRP on LSTMs against their gradient."""
    body = []
    for name, found in results.items():
        (mine, its), calm = found["ratio"]["unrolled"].values(), found["ratio"]["fused"]["processor"]
        body.append((name, f"{its:.2f}", f"{mine:.2f}", f"{calm:.2f}", met(its <= settings["goal"])))
    return f"""## LRP on recurrent nets

One forward and backward pass with the ε rule over {settings["steps"]} time steps, as a ratio to one forward pass and
input gradient of the same net written as a loop over its steps (goal: {settings["goal"]:g}), and to that of torch's
own kernel, whose backward pass is compiled. Weights: {settings["weights"]}.

{rows(("", "to the loop, processor", "wall", "to the kernel, processor", "met"), body)}"""


def _made_of(composite: str, ratio: dict[str, Any], calm: dict[str, Any]) -> str:
    """What is left of a ratio that misses its goal when its causes are taken away one by one."""
    kept = calm.get(f"{composite}, weights kept")
    without = "" if kept is None else f" and {kept['processor']:.2f} with the weights kept as well"
    least = calm["gradient and another forward"]["processor"]
    return (
        f"{ratio['processor']:.2f}, of which {calm[composite]['processor']:.2f} remain without page faults{without}; "
        f"a gradient and another forward pass alone are {least:.2f}"
    )
