"""LRP's cost on transformers."""

from typing import Any

from benchmarks.sections.markdown import met, rows


def attention(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """Time and memory of attn_lrp as ratios to the gradient's."""
    body = []
    for name, found in results.items():
        added = {each: used["added"]["median"] for each, used in found["memory"].items()}
        more = added["attn_lrp"] / added["gradient"]
        fits = found["ratio"]["processor"] <= settings["goal"] and more <= settings["memory goal"]
        figures = (*(f"{found['ratio'][clock]:.2f}" for clock in ("processor", "wall")), f"{more:.2f}")
        body.append((f"{name}, {settings['subjects'][name]}", *figures, met(fits)))
    return f"""## LRP on transformers

The composite attn_lrp, one forward and backward pass with torch's fused kernel for attention, as a ratio to one
forward pass and input gradient in plain PyTorch (goal: {settings["goal"]}), and what comes on top of the loaded model
in a fresh process, as a ratio to what the gradient adds (goal: {settings["memory goal"]}). Weights:
{settings["weights"]}.

{rows(("", "processor", "wall", "memory", "met"), body)}"""
