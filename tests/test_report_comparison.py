"""The page of a comparison: all of it is there, nothing runs that was not written here, nothing is loaded."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import whybox
from whybox.report import comparison_page

EVIL = "<script>alert(1)</script>\"'"


class Words(HTMLParser):
    """The text of a page without styles and scripts, and the tags in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.inside = "", [], ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("style", "script"):
            self.text += f" {data}"


def broken(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    relevance = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    relevance[3] = torch.nan
    return relevance


def failing(module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    raise RuntimeError("the tape is <torn>")


@pytest.fixture(scope="module")
def compared() -> whybox.Comparison:
    """Two methods and two callables, one of them broken and the other with an evil name; three labels are wrong."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    inputs, labels = whybox.datasets.load("digits")
    labels = labels.clone()
    labels[:3] = (labels[:3] + 1) % 10
    found = whybox.compare(
        whybox.models.load("digits"),
        (inputs[:12], labels[:12]),
        ["gradient", "lrp", whybox.External(broken, EVIL), whybox.External(failing, "tape")],
        ["deletion(steps=2)", "insertion(steps=2)"],
    )
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module")
def page(compared: whybox.Comparison) -> str:
    return comparison_page(compared, "whybox compare --model digits --data digits --split train --weights=random")


def test_all_of_it_is_there(compared: whybox.Comparison, page: str) -> None:
    text = Words(page).text
    for line in compared.recommendation.splitlines():
        assert line in text
    for name in (*compared.names, "Deletion", "Insertion", "with Zero", "with UniformNoise"):
        assert name in text
    for row in compared.table:
        assert f"n = {row['n']}" in text
    assert "For 3 of 12 samples the model predicts another class than is explained." in text
    assert "relevance that is not finite for 1 of 12 samples." in text
    assert "tape could not be scored: RuntimeError: the tape is <torn>" in text


def test_each_score_stands_between_the_ends_of_its_interval(compared: whybox.Comparison, page: str) -> None:
    bars = re.findall(r'<i style="left: ([\d.]+)%; width: ([\d.]+)%"></i><b style="left: ([\d.]+)%">', page)
    assert len(bars) == len(compared.cells)
    for left, width, mean in bars:
        assert 0 <= float(left) <= float(mean) <= float(left) + float(width) + 0.02 <= 100.04


def test_controls_stand_apart(compared: whybox.Comparison, page: str) -> None:
    rows = re.findall(r'<tr class="(control)?"><th scope="row">([^<]*)', page)
    assert [kind for kind, _ in rows[: len(compared.explained)]] == [""] * 3 + ["control"] * 4


def test_names_are_text_and_nothing_is_loaded(page: str) -> None:
    words = Words(page)
    assert EVIL not in page
    assert EVIL in words.text
    assert [tag for tag, _ in words.tags].count("script") == 2
    assert not [
        attributes
        for tag, attributes in words.tags
        if "src" in attributes or (tag == "link" and attributes["href"] != "data:,")
    ]
    assert "default-src 'none'" in page
    assert "url(" not in page


def test_what_it_takes_to_do_it_again(page: str) -> None:
    text = Words(page).text
    assert "whybox compare --model digits --data digits --split train --weights=random" in text
    assert "model = whybox.models.load('digits', weights='random')" in text
    assert "data = whybox.datasets.load('digits', split='train')" in text
    assert "your own, or another library's" in text
    assert "arXiv 1806.07421" in text


def test_the_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whybox.report.compared import python_lines

    data = whybox.datasets.load("digits")
    found = whybox.compare(whybox.models.load("digits"), data, ["gradient"], ["deletion(steps=2)"], n=6, seed=2)
    monkeypatch.chdir(tmp_path)
    names: dict[str, whybox.Comparison] = {}
    exec(python_lines(found, "whybox compare --model digits --data digits"), names)
    assert {place: cell.values for place, cell in names["comparison"].cells.items()} == {
        place: cell.values for place, cell in found.cells.items()
    }
    assert (tmp_path / "comparison.html").is_file()


def test_a_comparison_without_controls_or_intervals() -> None:
    inputs, labels = whybox.datasets.load("digits")
    model = whybox.models.load("digits")
    found = whybox.compare(model, (inputs, labels), ["gradient"], ["deletion(steps=2)"], n=3, controls=False)
    text = Words(comparison_page(found)).text
    assert "too few samples for an interval" in text
    assert "no controls were scored beside it" in text
    assert "Nothing: every method was scored on every sample" in text
