"""DeepLIFT beside Captum's."""

from typing import Any

from benchmarks.sections.markdown import rows


def deep_lift(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Time and summation on every model."""
    lines = [
        (
            name,
            *(f"{found['ratio'][each]['processor']:.2f}" for each in ("rescale", "reveal_cancel")),
            f"{found['times_as_fast']['processor']:.2f}",
            *(f"{found['summation_gap'][each]:.0e}" for each in ("rescale", "reveal_cancel", "Captum rescale")),
        )
        for name, found in results.items()
    ]
    columns = (
        "", "Rescale / gradient", "RevealCancel / gradient", "Captum's Rescale / ours", "gap of Rescale",
        "of RevealCancel", "of Captum",
    )  # fmt: skip
    return f"""## DeepLIFT

Processor time as a ratio to one forward pass and input gradient in plain torch, and how far each sum is from
f(x) − f(x′), as a share of that, in float32. Baseline: {settings["baseline"]}. {settings["subjects"].capitalize()}.
Goal: at least {settings["at least as fast as Captum"]:g} times as fast as Captum where Captum is right.

{rows(columns, lines)}"""
