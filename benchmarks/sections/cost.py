"""What a call costs: the stream, peak memory, starting up, and method by method against Captum."""

from typing import Any

from benchmarks.sections.markdown import rows, seconds


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


def _asked(count: dict[str, int] | None) -> str:
    return "–" if count is None else f"{count['forwards']} + {count['backwards']}"


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
