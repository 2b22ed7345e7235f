"""Texts in colour: what the terminal, notebooks, figures and reports show of them, and that it can be read."""

import json
import re
from dataclasses import replace

import pytest
import torch
from small_models import bert, word_pieces

import whybox
from whybox import Explanation, report
from whybox.core.errors import InputError
from whybox.core.passage import Passage
from whybox.plot import Scale, ink, paint, terminal, words
from whybox.plot.words import contrast

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
EVIL = "<script>alert(1)</script>"


def explanation(values=(0.5, -1.0, 0.0, 0.2), pieces=("not", "bad", "at", "all"), method="input_x_gradient", **fields):
    gaps = fields.pop("gaps", ("", *[" "] * (len(pieces) - 1)))
    special = fields.pop("special", (False,) * len(pieces))
    row = torch.tensor([*values, 0.0])  # one token of padding
    return Explanation(
        relevance=row[None, :, None].expand(1, -1, 2) / 2, inputs=torch.tensor([[*range(len(pieces)), -1]]),
        method=whybox.method(method).config(), target=("the score of 'good' (1)",), scores=torch.ones(1),
        outputs=torch.tensor([[0.0, 2.0]]), model="net", domains=(whybox.Domain((0.0,), (1.0,)),),
        labels=("bad", "good"), passages=(Passage(" ".join(pieces), tuple(pieces), tuple(gaps), special, **fields),),
    )  # fmt: skip


# The terminal.


def test_without_colour_signs_say_how_strongly():
    lines = terminal(explanation(), colour=False, width=80).splitlines()
    assert lines == [
        "not⁺⁺ bad⁻⁻⁻ at all",
        "good (88%). InputXGradient of the score of 'good' (1), which is 1.",
        "⁺ speaks for it, ⁻ against it; three signs from |R| = 0.744 on; sum −0.3.",
    ]


def test_with_colour_it_is_the_same_text(monkeypatch):
    monkeypatch.setenv("COLORTERM", "truecolor")
    drawn = terminal(explanation(), colour=True, width=80)
    assert ESCAPE.sub("", drawn).splitlines()[0] == "not bad at all"
    assert "\x1b[38;2;255;255;255;48;2;33;102;172;4mbad\x1b[0m" in drawn, "white on the full blue, underlined"
    assert ";4mnot" not in drawn
    assert re.search(r"\x1b\[38;2;\d+;\d+;\d+mall\x1b", drawn), "a weak one has coloured letters"
    assert " at " in drawn
    monkeypatch.delenv("COLORTERM")
    assert "48;5;25;4mbad\x1b[0m" in terminal(explanation(), colour=True, width=80), "the nearest of 216"
    assert drawn.splitlines()[2].startswith(
        "Red speaks for it, blue and underlined against it; full colour at |R| ≥ 0.9"
    )


@pytest.mark.parametrize(
    ("tty", "environment", "colour"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colour_only_where_it_is_seen(monkeypatch, capsys, tty, environment, colour):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    assert ("\x1b[" in str(explanation())) == colour


@pytest.mark.parametrize("width", [12, 20, 33, 80])
@pytest.mark.parametrize("colour", [False, True])
def test_lines_fit(width, colour):
    pieces = ("un", "believ", "able", "as", "it", "sounds", "日本語", "end", ".")
    gaps = ("", "", "", " ", " ", " ", " ", " ", "")
    drawn = terminal(explanation([0.1 * i for i in range(9)], pieces, gaps=gaps), colour=colour, width=width)
    text = ESCAPE.sub("", drawn).splitlines()
    text = text[: next(i for i, line in enumerate(text) if "InputXGradient" in line)]
    wide = [sum(1 + (c in "日本語") for c in line) for line in text]
    assert max(wide) <= max(width, 18)
    joined = " ".join(text).replace("⁺", "")
    assert re.sub(r"\s+", "", joined) == "".join(pieces)
    assert width < 20 or "unbelievable" in joined, "a word's pieces stay together"


def test_what_would_steer_a_terminal_is_not_printed():
    drawn = terminal(explanation(pieces=("\x1b[31mred", "\x07", "a\nb", "\u202ex")), colour=False)
    assert "\x1b" not in drawn
    assert "\x07" not in drawn
    assert "\u202e" not in drawn
    assert "a⏎b" in drawn


def test_what_joins_signs_is_printed_and_labels_do_not_steer():
    one = explanation(pieces=("می\u200cخواهم", "👩\u200d👧", "a\u00a0b", "x"))
    drawn = terminal(one, colour=False)
    assert "�" not in drawn
    assert "👩\u200d👧" in drawn
    assert "\x1b" not in terminal(replace(one, labels=("bad", "\x1b[31mgood")), colour=False)


def test_special_tokens_are_shown_or_not():
    one = explanation(special=(True, False, False, False))
    assert ESCAPE.sub("", terminal(one, colour=True)).startswith("not bad")
    assert ESCAPE.sub("", terminal(one, colour=True, special=False)).startswith("bad at all")
    assert words(one, special=False)[1].limit > 0.98


def test_a_mask_zeros_and_what_is_not_finite():
    assert "No relevance anywhere" in terminal(explanation([0.0] * 4), colour=True)
    assert "full colour at R = 1" in terminal(explanation([0.5, 1, 0, 0], method="neuro_mask"), colour=True)
    assert terminal(explanation([float("nan"), 1, 0, 0]), colour=False).startswith("not bad⁺⁺⁺")
    with pytest.raises(InputError, match="not one of texts"):
        terminal(whybox.explain(torch.nn.Linear(2, 2), torch.ones(1, 2), "gradient"))


@pytest.mark.parametrize("value", [0.2, -0.2])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("exact", ["truecolor", ""])
def test_weak_words_can_be_read_on_black_and_on_white(monkeypatch, value, signed, exact):
    monkeypatch.setenv("COLORTERM", exact)
    one = explanation([value if signed else abs(value), -1.0 if signed else 1.0, 0, 0])
    (code,) = re.findall(r"\x1b\[38;([0-9;]*?)(?:;4)?mnot", terminal(one, colour=True))
    kind, *parts = map(int, code.split(";"))
    if kind == 5:
        cube = parts[0] - 16
        parts = [(0, 95, 135, 175, 215, 255)[level] for level in (cube // 36, cube // 6 % 6, cube % 6)]
    assert min(contrast(tuple(parts), (0, 0, 0)), contrast(tuple(parts), (255, 255, 255))) > 3


@pytest.mark.parametrize("signed", [True, False])
def test_every_shade_can_be_read(signed):
    """The Web Content Accessibility Guidelines ask for a contrast of 4.5."""
    shades = [paint(i / 100, Scale(1.0, signed)) for i in range(-100 * signed, 101)]
    assert min(contrast(ink(shade), shade) for shade in shades if shade) > 4.5
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # as the guidelines' tools say


# Notebooks, figures, files.


def test_a_notebook_shows_the_text():
    html = explanation(pieces=("not", EVIL, "at", "all"))._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;: R = −1" in html
    assert 'title="not: R = 0.5" style="padding: 0.15em 0; background: rgb(' in html
    assert html.count("text-decoration: underline") == 1
    assert "<img" not in html
    assert 'title="at: R = 0" style="padding: 0.15em 0;"' in html


def test_bars_have_the_tokens_names():
    axes = explanation(pieces=("not", "$x^", "at", "all")).plot().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == r"\$x^  (1)"
    assert len(axes.patches) == 4, "padding is not drawn"


def test_it_is_saved_whole(tmp_path):
    one = explanation(left_out=3)
    one.save(tmp_path / "one.safetensors")
    again = Explanation.load(tmp_path / "one.safetensors")
    assert again.passages == one.passages
    assert str(again) == str(one)
    assert again.sample(0).tokens() == [("not", 0.5), ("bad", -1.0), ("at", 0.0), ("all", pytest.approx(0.2))]


# The report.


def test_a_report_of_texts(transformers, tmp_path):
    tokenizer = word_pieces(transformers)
    texts = ["it is not good", f"a dull film {EVIL}"]
    question = whybox.text.ask(bert(transformers, tokenizer), tokenizer, texts)
    methods = ["input_x_gradient", "generic_attention", "grad_cam"]
    found = report.collect(question.model, question.inputs, methods, question.target("positive"), at=question.at)
    found = found.of_texts(question.passages)
    path = report.write(tmp_path / "texts.html", [found], texts)
    html = path.read_text()
    assert "<script>alert" not in html
    assert html.count('class="passage"') == 4
    assert "GradCAM could not explain this model" in html
    assert "compare words, not shades" in html
    assert ">blue</span>, underlined, against it" in html
    assert "whybox.text.ask(model, None, texts)" in html
    record = report.as_json(found, texts)
    json.dumps(record, allow_nan=False)
    assert record["pictures"][0]["tokens"] == ["[CLS]", "it", "is", "not", "good", "[SEP]"]
    padded = record["pictures"][0]["explanations"][0]["relevance"]["map"][6:]
    assert padded
    assert not any(padded)
