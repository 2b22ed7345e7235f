"""The experiment on SST: words are grouped as the page says, and the page says what the numbers say."""

import json
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sst(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The experiment's package, with its modules."""
    monkeypatch.syspath_prepend(str(ROOT))
    import experiments.sst.__main__  # it imports all others

    return experiments.sst


def test_words_and_what_negations_reach(sst: ModuleType) -> None:
    words = [
        "this",
        "is",
        "not",
        "a",
        "good",
        "film",
        ",",
        "never",
        "dull",
        "and",
        "it",
        "is",
        "not",
        "at",
        "all",
        "its",
        "very",
        "best",
    ]
    found = {
        group: [words[i] + str(i) for i in range(len(words)) if fits(words, i)]
        for group, (_, fits) in sst.measure.GROUPS.items()
    }
    assert found == {
        "words for": ["best17"],
        "words against": [],
        "negations": ["not2", "never7", "not12"],
        "negations of words for": ["not2"],
        "negations of words against": ["never7"],
    }
    assert not set(sst.measure.FOR) & set(sst.measure.AGAINST)


def test_shares_of_right_signs(sst: ModuleType) -> None:
    words = [["a", "good", "film"], ["good", "and", "great"], ["not", "good"]]
    maps = {"LRP ε": [[0, 1, 0], [1, 0, -1], [-1, 1]], "occlusion": [[0, 1, 0], [1, 0, 1], [1, 1]]}
    found = sst.measure.signs(maps, words)
    assert (found["words for"]["words"], found["words for"]["sentences"]) == (3, 2)
    assert found["words for"]["right"]["LRP ε"][0] == 0.75  # of one sentence all, of the other half
    assert found["words for"]["right"]["occlusion"][0] == 1
    assert found["negations of words for"]["right"] == {"LRP ε": [1], "occlusion": [0]}  # too few for intervals
    assert found["negations"]["LRP agrees with occlusion"][0] == 0


def test_the_page_says_what_the_numbers_say(sst: ModuleType) -> None:
    out = ROOT / "docs/experiments"
    page = (out / "sst.md").read_text(encoding="utf-8")
    between = page.partition(sst.page.BEGIN)[2].partition(sst.page.END)[0].strip()
    assert between == sst.page.tables(json.loads((out / "sst.json").read_text(encoding="utf-8")))


@pytest.mark.skipif("WHYBOX_DATA" not in os.environ, reason="WHYBOX_DATA does not name the folder of real data")
@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_the_kept_nets_on_some_sentences(sst: ModuleType, name: str) -> None:
    vocabulary = sst.nets.Vocabulary()
    model = sst.nets.load(name, vocabulary)
    words, labels = sst.nets.read("test")
    some = sst.nets.read("test")[0][:60]
    right = 0
    with torch.no_grad():
        for rows, numbers in sst.measure.by_length(some, vocabulary):
            right += int((model(numbers).argmax(1) == labels[rows]).sum())
    assert right >= 42
    relevance = sst.measure.MAPS["LRP ε"](model, vocabulary.encode(words[0])[None])
    assert relevance.shape == (1, len(words[0]))
