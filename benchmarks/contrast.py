"""CDeepEx against the plain augmented Lagrangian and the contrasts made of other methods' maps, on the embedded digits.

Evaluations are counted per image on one batch of 64. The plain search has neither polish nor early exit, and its z0 has
no encoder; both have the same margin, so that their distances are from the same problem. What is compared of the
distances is the images that both solve; how many each solves is counted over all.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from benchmarks.measure import interleaved, one_thread, quantiles, ratio, save
from whybox import LIME, Attribution, CDeepEx, Contrast, Method, Model, PredictionDifference, WeightedContrast
from whybox.contrast.cdeepex import opened
from whybox.datasets import load as load_data
from whybox.models import load as load_model

IMAGES = 64
ROUNDS = 5
SHARE_GOAL = 0.2
PEERS = ("augmented Lagrangian", "PDA", "LIME")


def main() -> None:
    """Count, then time."""
    one_thread()
    model = load_model("digits")
    digits, _ = load_data("digits")
    assert isinstance(digits, Tensor)
    images = digits[:IMAGES]
    polished = CDeepEx()
    bare = replace(opened(None), encoder=None)
    methods: dict[str, Method] = {
        "CDeepEx": polished,
        "CDeepEx, one start": replace(polished, starts=1),
        "augmented Lagrangian": replace(CDeepEx.paper(bare), margin=polished.margin),
        "PDA": WeightedContrast(PredictionDifference()),
        "LIME": WeightedContrast(LIME()),
    }
    answers = {name: method.run(model, images, Contrast()) for name, method in methods.items()}
    results = {name: counted(answer) for name, answer in answers.items()}
    plain = answers["augmented Lagrangian"]
    for name in ("CDeepEx", "CDeepEx, one start"):
        results[name]["distance over the plain one"] = compared(answers[name], plain)
    timed = interleaved({name: work(method, model, images) for name, method in methods.items()}, ROUNDS)
    for name, seconds in timed.items():
        results[name] |= seconds
    for name in ("CDeepEx", "CDeepEx, one start"):
        results[name]["seconds over"] = {other: ratio(timed, name, other) for other in PEERS}
    settings = {"images": IMAGES, "model": "digits", "share goal": SHARE_GOAL}
    settings |= {name: repr(method) for name, method in methods.items()}
    save("contrast", settings, results)


def counted(answer: Attribution) -> dict[str, Any]:
    """Evaluations per image, and of a search how many it solves and how far it goes."""
    found: dict[str, Any] = {"forwards": answer.forwards / IMAGES, "backwards": answer.backwards / IMAGES}
    if "status" in answer.details:
        statuses = answer.details["statuses"]
        names = [statuses[number].partition(":")[0] for number in answer.details["status"].tolist()]
        distance = answer.details["distance"]
        found["status"] = {name: names.count(name) for name in sorted(set(names))}
        found["distance"] = quantiles(distance[~distance.isnan()].tolist())
        found["third class"] = int((~answer.checks[1].passed).sum())
    else:
        found["none kept"] = int((~answer.checks[0].passed).sum())
    return found


def compared(ours: Attribution, plain: Attribution) -> dict[str, Any]:
    """‖z − z0‖ of ours over that of the plain search, where both have found a contrast."""
    both: Tensor = ours.details["distance"] / plain.details["distance"]
    both = both[~both.isnan()]
    # By more than what the search itself leaves of the distance.
    return {**quantiles(both.tolist()), "images": len(both), "farther": int((both > 1.01).sum())}


def work(method: Method, model: Model, images: Tensor) -> Any:
    """One run, to be timed."""
    return lambda: method.run(model, images, Contrast())


if __name__ == "__main__":
    main()
