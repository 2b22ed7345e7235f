"""Figures: relevance in colour, on a scale that is stated."""

from whybox.plot.colour import AGAINST, FOR, STRENGTH, colour_map, heat
from whybox.plot.comparison import comparison
from whybox.plot.figure import explanation
from whybox.plot.picture import picture
from whybox.plot.scale import PERCENTILE, Scale, number, scale_for, scale_of

__all__ = [
    "AGAINST", "FOR", "PERCENTILE", "STRENGTH", "Scale", "colour_map", "comparison", "explanation", "heat", "number",
    "picture", "scale_for", "scale_of",
]  # fmt: skip
