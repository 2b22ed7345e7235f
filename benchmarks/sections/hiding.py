"""What hiding parts of the input costs."""

from typing import Any

from benchmarks.sections.markdown import met, rows


def perturbation(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Methods that hide parts of the input, over the forwards they need, and against Captum."""
    body, peers, by_chunk = [], [], []
    goal, least = settings["goal"], settings["share goal"]
    for name, found in results.items():
        for method, each in found["methods"].items():
            asked, ratio = each["evaluations"], each["ratio"]
            whybox = ratio["whybox"]["processor"]
            body.append(
                (f"{name}, {method}", str(asked["whybox"]), f"{whybox:.2f}", f"{ratio['whybox']['wall']:.2f}",
                 ", ".join(map(str, each["chunk_found"])), met(whybox <= goal))
            )  # fmt: skip
            if "captum" in ratio:
                captum = ratio["captum"]["processor"]
                images, at_once = each["captum_images_and_perturbations_at_once"]
                peers.append(
                    (f"{name}, {method}", str(asked["captum"]), f"{images} × {at_once}", f"{captum:.2f}",
                     f"{captum / whybox:.2f}", f"{1 / whybox:.2f}", met(whybox <= 1 / least))
                )  # fmt: skip
        best = min(found["raw_seconds_by_chunk"].values())
        for label, key in (("kept", "raw_seconds_by_chunk"), ("given back", "raw_seconds_by_chunk_memory_given_back")):
            by_chunk.append((f"{name}, {label}", *(f"{value / best:.2f}" for value in found[key].values())))
    sizes = "; ".join(
        f"{name} at {size['pixels']} × {size['pixels']}: {size['samples']} samples, windows of {size['window']}, "
        f"{size['regions']} superpixels"
        for name, size in settings["sizes"].items()
    )
    chunks = ", ".join(f"{found['raw_chunk']} for {name}" for name, found in results.items())
    return f"""## Hiding parts of the input, over the forwards it needs

{settings["images"]} images at once. {sizes}.

Raw is a loop in plain PyTorch over as many ready-made variants at its best chunk size ({chunks}): nothing can be
faster. whybox's seconds over raw's; goal: at most {goal:.2f}.

{rows(("", "evaluations", "over raw (processor)", "(wall)", "chunk", "met"), body)}
Captum at its best number of images × perturbations at once, its seconds over those of a raw loop of as many
evaluations. Its overhead leaves whybox to be that many times as fast at most; how many times as fast an evaluation of
whybox is, and which share of the possible that is (both by processor time; goal: at least {least:.1f}):

{rows(("", "Captum's evaluations", "at once", "over raw (possible)", "times as fast (reached)", "share", "met"), peers)}
Where the time of large chunks goes: the raw loop by chunk size, over its fastest. glibc's malloc gives the memory that
one layer frees back to the system and gets it again, page by page, for the next; whether it does depends on where other
blocks happen to lie. At its first call whybox has it keep up to 64 MiB, so that raw and Captum above have it kept as
well; blocks of more than 32 MiB, which larger chunks of large pictures need, are still given back.

{rows(("", *map(str, settings["chunks tried"])), by_chunk)}"""
