"""Texts in colour, for the report and for notebooks."""

from dataclasses import dataclass

from whybox.core.explanation import Explanation
from whybox.plot import ink, number, paint, words
from whybox.plot.words import share


@dataclass(frozen=True)
class Piece:
    """A token as it is shown: on `back` in `ink`, "" for none; `against` where its relevance is below zero."""

    gap: str
    text: str
    value: str
    back: str
    ink: str
    against: bool
    special: bool


@dataclass(frozen=True)
class PassageView:
    """One text in colour.

    Attributes:
        pieces: its tokens in order.
        strongest: those with the most relevance, the strongest first.
        left_out: how many tokens the model has not read.
        signed: whether there are two colours.
    """

    pieces: tuple[Piece, ...]
    strongest: tuple[Piece, ...]
    left_out: int
    signed: bool


STRONGEST = 6


def passage_view(explanation: Explanation, sample: int) -> PassageView:
    """The text of one sample; the scale is that of `whybox.plot.words`."""
    found, scale = words(explanation, sample)
    pieces = []
    for word in found:
        back = paint(word.value, scale)
        pieces.append(
            Piece(
                gap=word.gap,
                text=word.text,
                value=number(word.value),
                back="" if back is None else _css(back),
                ink="" if back is None else _css(ink(back)),
                against=scale.signed and share(word.value, scale) < 0,
                special=word.special,
            )
        )
    order = sorted(range(len(found)), key=lambda i: -abs(found[i].value))
    strongest = tuple(pieces[i] for i in order[:STRONGEST] if pieces[i].back)
    assert explanation.passages is not None
    return PassageView(tuple(pieces), strongest, explanation.passages[sample].left_out, scale.signed)


def _css(colour: tuple[int, int, int]) -> str:
    return f"rgb({colour[0]} {colour[1]} {colour[2]})"
