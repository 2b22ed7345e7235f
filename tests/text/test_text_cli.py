"""`whybox explain TEXT`: texts in, coloured texts and a report out."""

import json

import pytest
import torch
from small_models import bert, byte_pairs, gpt, word_pieces
from typer.testing import CliRunner

from whybox import models
from whybox.cli import app
from whybox.cli.asked import texts


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder each of a classifier, a language model and a classifier without a tokenizer."""
    transformers = pytest.importorskip("transformers", reason="transformers: pip install 'whybox[hf]'")
    root = tmp_path_factory.mktemp("models")
    pieces, pairs = word_pieces(transformers), byte_pairs(transformers)
    for name, model, tokenizer in (
        ("bert", bert(transformers, pieces), pieces),
        ("gpt", gpt(transformers, pairs), pairs),
        ("bare", bert(transformers, pieces), None),
    ):
        model.save_pretrained(root / name)
        if tokenizer is not None:
            tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture
def run(transformers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return lambda *arguments: CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_a_classifier(run, saved, tmp_path):
    result = run(
        "it is not good", "a dull film", "-m", f"hf:{saved / 'bert'}", "--methods", "lrp,generic_attention",
        "--target", "positive", "--json", "r.json", "-o", "r.html",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    shown = [line for line in result.stdout.splitlines() if "[CLS]" in line]
    assert len(shown) == 4
    assert "\x1b" not in result.stdout
    assert "score of 'positive' (1)" in result.stdout
    record = json.loads((tmp_path / "r.json").read_text())
    (model,) = record["models"]
    assert [one["name"] for one in model["pictures"]] == ["it is not good", "a dull film"]
    assert model["pictures"][1]["tokens"] == ["[CLS]", "a", "dull", "film", "[SEP]"]
    assert (tmp_path / "r.html").read_text().count('class="passage"') == 4


def test_a_language_model_and_a_file(run, saved, tmp_path):
    (tmp_path / "text.txt").write_text("the acting is\n")
    result = run("text.txt", "-m", f"hf:{saved / 'gpt'}", "--methods", "input_x_gradient", "--target", " good",
                 "--versus", "boring", "-o", "r.html")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "the score of ' good'" in result.stdout
    assert "minus that of ' boring'" in result.stdout


def test_the_usual_methods(run, saved):
    result = run("a dull film", "-m", f"hf:{saved / 'bert'}", "-o", "r.html")
    assert result.exit_code == 0, result.output
    for name in ("lrp", "integrated_gradients", "occlusion", "generic_attention"):
        assert f"    {name}\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a dull film", "-m", "hf:bare"), "has no tokenizer to read 'a dull film' with"),
        (("a dull film", "-m", "hf:bert", "--target", "fine"), "there is no class 'fine'"),
        (("a dull film", "-m", "hf:bert", "--target", "positive", "--versus", "1"), "name the same class, 1"),
        (("  ", "-m", "hf:bert"), "is empty: it holds no tokens"),
        (("", "-m", "hf:bert"), "is empty: it holds no tokens"),
        (("latin.txt", "-m", "hf:bert"), "'latin.txt' is not in UTF-8"),
        (("film.png", "-m", "hf:bert"), "film.png"),
        (("a dull film", "-m", "digits"), "a dull film"),
        (("a dull film", "-m", "hf:bert", "--layer", "module.nothing"), "no layer 'module.nothing'"),
    ],
)
def test_what_is_asked_wrongly(run, saved, tmp_path, arguments, says):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    given = [f"hf:{saved / one[3:]}" if one.startswith("hf:") else one for one in arguments]
    result = run(*given, "-o", "r.html")
    assert result.exit_code == 2, result.output
    assert says in result.stderr


def test_labels_do_not_steer_the_terminal(run, saved, transformers, tmp_path):
    pieces = word_pieces(transformers)
    model = bert(transformers, pieces)
    model.config.id2label = {0: "bad\x1b[31m", 1: "\x1b]0;title\x07good"}
    model.save_pretrained(tmp_path / "own")
    pieces.save_pretrained(tmp_path / "own")
    result = run("a dull film", "-m", f"hf:{tmp_path / 'own'}", "--methods", "gradient", "-o", "r.html")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "�]0;title�good" in result.stdout


def test_texts_and_pictures_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(b"")
    (tmp_path / "cat").mkdir()
    (tmp_path / "one.txt").write_text(" a text\n")
    assert texts(["is it good?", "one.txt", "x" * 5000], ["hf:some"]) == ["is it good?", "a text", "x" * 5000]
    for arguments in (["cat.png"], ["gone.png"], ["*.jpg"], ["cat"], ["a text", "cat.png"], [], ["gone.txt"]):
        assert texts(arguments, ["hf:some"]) is None
    assert texts(["a text"], ["hf:some", "timm:resnet18"]) is None


def test_hf_language_models_come_with_their_tokenizer(transformers, saved):
    model = models.load(f"hf:{saved / 'gpt'}")
    assert model.labels is None
    assert model.tokenizer("good")["input_ids"]
    assert models.load(f"hf:{saved / 'bert'}").labels == ("negative", "positive")
    assert models.load(f"hf:{saved / 'bare'}").tokenizer is None
