"""How near the truth so many evaluations come."""

from typing import Any

from benchmarks.sections.markdown import percent, rows


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
