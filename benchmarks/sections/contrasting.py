"""What a contrast costs, and how far it goes."""

from typing import Any

from benchmarks.sections.markdown import met, percent, rows, seconds

OURS, PLAIN = ("CDeepEx", "CDeepEx, one start"), "augmented Lagrangian"


def contrast(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """CDeepEx over the plain search, and over the contrasts made of other methods' maps."""
    images, goal = settings["images"], settings["share goal"]
    body = [(name, *_outcome(found, images), *_cost(found, images)) for name, found in results.items()]
    against = []
    plain = sum(_evaluations(results[PLAIN]))
    for name in OURS:
        found = results[name]
        share, far = sum(_evaluations(found)) / plain, found["distance over the plain one"]
        good = share <= goal and far["median"] <= 1
        against.append(
            (name, percent(share), f"{far['median']:.2f}", f"{far['max']:.2f}", f"{far['farther']} of {far['images']}",
             met(good))
        )  # fmt: skip
    faster = [
        (f"{name} over {other}", f"{it['processor']:.2f}", f"{it['wall']:.2f}", met(it["processor"] < 1))
        for name in OURS
        for other, it in results[name]["seconds over"].items()
    ]
    return f"""## Contrasts: CDeepEx against the plain search and other methods' maps

{images} handwritten digits in one batch, each against its runner-up; evaluations and seconds are those of one image,
with all that the method does: z0, classes, starts. A backward pass counts each image whose gradient is asked for. PDA
and LIME are weighted contrasts of two maps; they are not found where no weight tells the classes apart.

{rows(("", "found", "third class first", "forwards", "backwards", "processor seconds", "seconds"), body)}
The plain search is the augmented Lagrangian of the paper, 25 rounds of 33 evaluations, without encoder, polish and
early exit. ‖z − z0‖ is compared on the images for which both have found a contrast. Goals: at most {percent(goal)} of
its evaluations, forwards and backwards, at no larger a distance (by the median).

{rows(("", "evaluations, of the plain one's", "distance over its: median", "largest", "farther for", "met"), against)}
Seconds, in the same round; goal: faster, as the paper claims of PDA and LIME. Where no start settles, a search goes on
in rounds of the augmented Lagrangian, for few digits at a time, which is slow for its evaluations.

{rows(("", "processor", "wall", "met"), faster)}"""


def _evaluations(found: dict[str, Any]) -> tuple[float, float]:
    return found["forwards"], found["backwards"]


def _outcome(found: dict[str, Any], images: int) -> tuple[str, str]:
    if "status" not in found:
        return f"{images - found['none kept']} of {images}", "—"
    lost = sum(count for name, count in found["status"].items() if name in ("not found", "diverged"))
    return f"{images - lost} of {images}", str(found["third class"])


def _cost(found: dict[str, Any], images: int) -> tuple[str, ...]:
    times = (found["processor_seconds"] / images, found["seconds"] / images)
    return (*(f"{value:,.0f}" for value in _evaluations(found)), *map(seconds, times))
