"""Figures: relevance in colour, on a scale that is stated."""

from whybox.plot.change import Change, change_of, is_change
from whybox.plot.colour import AGAINST, FOR, STRENGTH, colour_map, heat
from whybox.plot.comparison import comparison
from whybox.plot.figure import explanation
from whybox.plot.picture import picture
from whybox.plot.scale import PERCENTILE, Scale, number, scale_for, scale_of
from whybox.plot.terminal import terminal
from whybox.plot.words import Word, ink, paint, words

__all__ = [
    "AGAINST", "FOR", "PERCENTILE", "STRENGTH", "Change", "Scale", "Word", "change_of", "colour_map", "comparison",
    "explanation", "heat", "ink", "is_change", "number", "paint", "picture", "scale_for", "scale_of", "terminal",
    "words",
]  # fmt: skip
