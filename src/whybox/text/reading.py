"""Reading: texts as token numbers, and what stands at each position."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whybox.core.errors import InputError
from whybox.core.passage import PADDING, Passage


def encode(tokenizer: Any, texts: Sequence[str], limit: int | None) -> tuple[Tensor, tuple[Passage, ...]]:
    """The texts as rows of token numbers (n, t), filled up with `PADDING` on the right; and what stands where.

    Args:
        tokenizer: one of transformers, fast or not.
        texts: at least one, none of them empty.
        limit: how many tokens the model reads; what is beyond is left out.

    Raises:
        InputError: there is no text, or nothing to read in one.
    """
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError("there is no text to explain; give a string, or a list of several")
    rows, passages = [], []
    for text in texts:
        numbers, passage = _read(tokenizer, text, limit)
        if not text.strip() or all(passage.special):
            raise InputError(f"the text {text!r} is empty: it holds no tokens to explain")
        rows.append(torch.tensor(numbers))
        passages.append(passage)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)
    return padded, tuple(passages)


def _read(tokenizer: Any, text: str, limit: int | None) -> tuple[list[int], Passage]:
    fast = bool(getattr(tokenizer, "is_fast", False))
    spans = {"return_offsets_mapping": True} if fast else {}
    whole = tokenizer(text, verbose=False)["input_ids"]
    cut = {} if limit is None or len(whole) <= limit else {"truncation": True, "max_length": limit}
    read = tokenizer(text, return_special_tokens_mask=True, verbose=False, **cut, **spans)
    numbers = read["input_ids"]
    names = tokenizer.convert_ids_to_tokens(numbers)
    special = [bool(flag) for flag in read["special_tokens_mask"]]
    if fast:
        pieces, gaps = _by_spans(text, names, special, read["offset_mapping"])
    else:
        pieces, gaps = _by_marks(tokenizer, names, special)
    return numbers, Passage(text, tuple(pieces), tuple(gaps), tuple(special), len(whole) - len(numbers))


def _by_spans(
    text: str, names: Sequence[str], special: Sequence[bool], spans: Sequence[tuple[int, int]]
) -> tuple[list[str], list[str]]:
    """Pieces and gaps as the tokenizer has found them in the text."""
    pieces: list[str] = []
    gaps: list[str] = []
    done, apart = 0, False
    for name, added, (start, end) in zip(names, special, spans, strict=True):
        own = added and start == end
        begin = max(start, done)
        if not own and end <= begin:  # bytes of a character that has been read, or of the white space to come
            pieces.append("")
            gaps.append("")
            continue
        piece, gap = (name, "") if own else (text[begin:end], text[done:begin])
        bare = piece.lstrip()
        if bare:
            piece, gap = bare, gap + piece[: len(piece) - len(bare)]
        pieces.append(piece)
        gaps.append(gap or (" " if own and pieces[:-1] else " " * apart))
        done, apart = done if own else end, own
    return pieces, gaps


def _by_marks(tokenizer: Any, names: Sequence[str], special: Sequence[bool]) -> tuple[list[str], list[str]]:
    """Pieces and gaps as the tokens' own marks tell: ## goes on with a word, Ġ and ▁ begin one, </w> ends one."""
    begins = any(name.startswith(("Ġ", "▁")) for name in names)
    ends = any(name.endswith("</w>") for name in names)
    pieces: list[str] = []
    gaps: list[str] = []
    ended = True
    for name, added in zip(names, special, strict=True):
        piece = re.sub(r"^(##|Ġ|▁)|</w>$", "", name)
        if begins and not added:
            piece = tokenizer.convert_tokens_to_string([name]).strip() or piece
        first = name.startswith(("Ġ", "▁")) if begins else ended if ends else not name.startswith("##")
        gaps.append(" " if pieces and (first or added) else "")
        pieces.append(piece)
        ended = added or name.endswith("</w>")
    return pieces, gaps
