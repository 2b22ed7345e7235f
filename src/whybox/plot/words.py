"""Words: the tokens of a text as they are drawn, each with its relevance, its colour, and an ink to be read on it."""

from dataclasses import dataclass
from unicodedata import category

from whybox.core.errors import InputError
from whybox.core.explanation import Explanation
from whybox.plot.colour import AGAINST, FOR, STRENGTH
from whybox.plot.scale import MASK, Scale, scale_of

Colour = tuple[int, int, int]
_WHITE = (255, 255, 255)
_BLACK = (0, 0, 0)  # with which one of the two always has a contrast of 4.5
# What stands for signs that python does not print. What joins signs, as in emoji and in Persian, stays as it is.
_SHOWN = {"\n": "⏎", "\t": "→", "\u200c": "\u200c", "\u200d": "\u200d"}
# Below this share of the full colour nothing is drawn.
FAINT = 0.05


@dataclass(frozen=True)
class Word:
    """A token, or the part of one that can be drawn.

    Attributes:
        gap: what stands in front of it.
        text: what is drawn.
        value: its relevance; of several tokens that share a character, their sum.
        special: whether the tokenizer has added it, as [CLS].
    """

    gap: str
    text: str
    value: float
    special: bool


def words(explanation: Explanation, sample: int = 0, *, special: bool = True) -> tuple[list[Word], Scale]:
    """The tokens of one text in their order, and the scale on which they are drawn.

    Args:
        explanation: one of texts.
        sample: which of them.
        special: whether the tokens are shown that the tokenizer has added.

    Raises:
        InputError: what is explained is no text.
    """
    if explanation.passages is None:
        raise InputError("this explanation is not one of texts; whybox.text.tokens explains these")
    passage = explanation.passages[sample]
    values = explanation.by_position()[sample, : len(passage)].double()
    found: list[Word] = []
    for gap, piece, value, added in zip(passage.gaps, passage.pieces, values.tolist(), passage.special, strict=True):
        if not piece and found and not added:
            last = found.pop()
            found.append(Word(last.gap, last.text, last.value + value, last.special))
        elif special or not added:
            found.append(Word(gap, printable(piece) or "␣", value, added))
    signed = bool((explanation.by_position() < 0).any())
    return found, MASK if explanation.shows == "mask" else scale_of(
        values.new_tensor([w.value for w in found]), signed=signed
    )


def printable(text: str) -> str:
    """The text without signs that would steer a terminal; a line's end can be seen."""
    return "".join(sign if sign.isprintable() or category(sign) == "Zs" else _SHOWN.get(sign, "�") for sign in text)


def share(value: float, scale: Scale) -> float:
    """How much of the full colour a value has, from −1 to 1; 0 where it is not a number."""
    if value != value or not scale.limit:
        return 0.0
    part = max(-1.0, min(1.0, value / scale.limit))
    return 0.0 if abs(part) < FAINT else part


def paint(value: float, scale: Scale) -> Colour | None:
    """The colour on white of a value; None for none."""
    part = share(value, scale)
    if not part:
        return None
    full = STRENGTH if not scale.signed else FOR if part > 0 else AGAINST
    return tuple(round(255 + (end - 255) * abs(part)) for end in full)  # type: ignore[return-value]


def ink(colour: Colour) -> Colour:
    """Black or white, whichever can better be read on this colour."""
    return max(_BLACK, _WHITE, key=lambda one: contrast(one, colour))


def contrast(one: Colour, other: Colour) -> float:
    """The contrast of two colours, from 1 to 21, as the Web Content Accessibility Guidelines define it."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
