"""terminal: texts in colour, or with signs where there is none, for a terminal."""

import os
import sys
import unicodedata
from typing import TextIO

from whybox.core.configs import config_title
from whybox.core.explanation import Explanation
from whybox.core.text import width as terminal_width
from whybox.plot.scale import Scale, number
from whybox.plot.words import Colour, Word, ink, paint, printable, share, words

_SIGNS = {True: "⁺", False: "⁻"}
# Without colour, one sign from this share of the full colour on, two from twice, three from thrice.
_STEP = 0.25
# Of each of the three colours of terminals that know 256, as xterm defines them.
_LEVELS = (0, 95, 135, 175, 215, 255)
# Below the first share of the full colour the letters are coloured and not their ground: in the shade of the second
# share, which can be read on black and on white.
_WEAK, _MIDDLE = 1 / 3, 0.8


def terminal(
    explanation: Explanation,
    sample: int | None = None,
    *,
    colour: bool | None = None,
    width: int | None = None,
    special: bool = True,
) -> str:
    """The texts of an explanation, each token on the colour of its relevance, with what is explained and the scale.

    Red speaks for the target; blue, and underlined, against it; green is strength without direction. Without colour up
    to three raised signs behind a token say the same.

    Args:
        explanation: one of texts, as of `whybox.text.tokens`.
        sample: which text; None for all.
        colour: whether to use colour; None for where the output is a terminal that takes it, unless NO_COLOR is set.
        width: of the lines; None for that of the terminal.
        special: whether to show the tokens that the tokenizer has added.

    Raises:
        InputError: what is explained is no text.
    """
    colour = takes_colour() if colour is None else colour
    width = terminal_width() if width is None else width
    samples = range(len(explanation)) if sample is None else (sample,)
    return "\n\n".join(_drawn(explanation, i, colour, width, special) for i in samples)


def takes_colour(stream: TextIO | None = None) -> bool:
    """Whether what is printed to this stream, or stdout, is seen in colour (https://no-color.org)."""
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream is not None and stream.isatty()


def coloured_text(found: list[Word], scale: Scale, *, colour: bool, width: int, indent: str = "") -> list[str]:
    """The words in lines of this width."""
    lines, line, used = [], indent, len(indent)
    for word in found:
        marks = "" if colour else _marks(share(word.value, scale), scale)
        gap = " " if word.gap and line != indent else ""
        wide = _columns(word.text + marks)
        if used + len(gap) + wide > width and line != indent and (gap or wide < width // 2):
            lines.append(line)
            line, used, gap = indent, len(indent), ""
        line += gap + (_painted(word, scale) if colour else word.text + marks)
        used += len(gap) + wide
    return [*lines, line]


def _drawn(explanation: Explanation, sample: int, colour: bool, width: int, special: bool) -> str:
    found, scale = words(explanation, sample, special=special)
    lines = coloured_text(found, scale, colour=colour, width=width)
    assert explanation.passages is not None
    left_out = explanation.passages[sample].left_out
    if left_out:
        lines[-1] += f" … ({left_out} more tokens, which the model has not read)"
    best = explanation.predictions(sample, 1)
    said = f"{printable(best[0].label.strip())} ({best[0].probability:.0%}). " if best else ""
    score = number(float(explanation.scores[sample]))
    asked = f"{said}{config_title(explanation.method)} of {explanation.target[sample]}, which is {score}."
    return "\n".join([*lines, asked, f"{legend(scale, colour=colour)}; sum {number(sum(w.value for w in found))}."])


def legend(scale: Scale, *, colour: bool) -> str:
    """What the colours, or the signs, mean."""
    if not scale.limit:
        return "No relevance anywhere"
    if colour:
        says = "Red speaks for it, blue and underlined against it" if scale.signed else "Green is strength"
        return f"{says}; {scale.says()}"
    against = ", ⁻ against it" if scale.signed else ""
    return f"⁺ speaks for it{against}; three signs from |R| = {number(3 * _STEP * scale.limit)} on"


def _marks(part: float, scale: Scale) -> str:
    return _SIGNS[part > 0] * min(3, int(abs(part) / _STEP)) if scale.limit else ""


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _painted(word: Word, scale: Scale) -> str:
    """The word on its colour; a weak one in it, since a pale ground would be the loudest on a dark terminal."""
    exact = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    part = share(word.value, scale)
    if not part:
        return f"\x1b[2m{word.text}\x1b[0m" if word.special else word.text
    under = ";4" if scale.signed and part < 0 else ""
    weak = abs(part) < _WEAK
    colour = paint((1 if part > 0 else -1) * scale.limit * _MIDDLE if weak else word.value, scale)
    assert colour is not None
    if not exact:
        red, green, blue = (min(_LEVELS, key=lambda level: abs(level - one)) for one in colour)
        colour = red, green, blue
    ground = "" if weak else f";48;{_code(colour, exact)}"
    return f"\x1b[38;{_code(colour if weak else ink(colour), exact)}{ground}{under}m{word.text}\x1b[0m"


def _code(colour: Colour, exact: bool) -> str:
    """The colour for a terminal: as it is, or as one of the cube of 216, of whose levels it then is made."""
    if exact:
        return f"2;{colour[0]};{colour[1]};{colour[2]}"
    red, green, blue = map(_LEVELS.index, colour)
    return f"5;{16 + 36 * red + 6 * green + blue}"
