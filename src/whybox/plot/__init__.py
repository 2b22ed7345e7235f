"""Figures: relevance in colour, on a scale that is stated."""

from whybox.plot.change import Change, change_of, is_change
from whybox.plot.colour import AGAINST, FOR, STRENGTH, colour_map, heat
from whybox.plot.comparison import comparison
from whybox.plot.figure import explanation
from whybox.plot.picture import picture
from whybox.plot.scale import PERCENTILE, Scale, number, scale_for, scale_of

__all__ = [
    "AGAINST", "FOR", "PERCENTILE", "STRENGTH", "Change", "Scale", "change_of", "colour_map", "comparison",
    "explanation", "heat", "is_change", "number", "picture", "scale_for", "scale_of",
]  # fmt: skip
