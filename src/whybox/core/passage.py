"""Passage: what stands at the positions of a text, as it is to be read."""

from dataclasses import dataclass

PADDING = -1
"""The token number of positions that only fill up a row; no tokenizer has it."""


@dataclass(frozen=True)
class Passage:
    """One text and its tokens; token i stands at position i, padding behind the last one.

    Attributes:
        text: the whole text.
        pieces: each token as it stands in the text, or the name of a special one; "" where it holds only some bytes of
            the character that stands in the token before.
        gaps: what stands in front of each, as the white space between words; "" inside a word.
        special: whether each was added by the tokenizer, as [CLS].
        left_out: how many tokens of the text the model has not read, because it reads no more than so many.
    """

    text: str
    pieces: tuple[str, ...]
    gaps: tuple[str, ...]
    special: tuple[bool, ...]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.pieces)
