"""Biased eights: the square is put where it belongs, and planted answers have the shares that they must have."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import whybox
from whybox.contrast.latent import Latent
from whybox.contrast.record import NOT_FOUND, SOLVED
from whybox.evaluation.localisation import RelevanceMass

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/experiments"


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The experiment's package, with its modules."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.contrast.eights import bias, command, figures, measure, numbers, page, subjects

    yield sys.modules["experiments.contrast.eights"]
    del bias, command, figures, measure, numbers, page, subjects


class Corner(nn.Module):
    """Of digits (n, 1, 28, 28): class 8 scores what the corner's 36 values sum to, class 0 always 9."""

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, 10)."""
        scores = x.new_zeros(len(x), 10)
        scores[:, 0] = 9.0
        return scores.index_add(1, torch.tensor([8]), x[:, :, :6, :6].sum((1, 2, 3))[:, None])


class Square(nn.Module):
    """Draws z₀ as the grey of the square, and z₁ as that of a block elsewhere."""

    def forward(self, z: Tensor) -> Tensor:
        """(n, 1, 28, 28) of (n, 2)."""
        block = torch.zeros(2, 28, 28)
        block[0, :6, :6] = 1
        block[1, 12:18, 12:18] = 1
        return (z @ block.flatten(1)).view(-1, 1, 28, 28)


def test_eights_alone_get_the_square(package: ModuleType) -> None:
    digits, labels = torch.rand(4, 1, 28, 28), torch.tensor([8, 3, 8, 0])
    before = digits.clone()
    bias = package.bias.Bias(0.25, 3)
    found = bias.biased(digits, labels)
    expected = before.clone()
    for row in (0, 2):
        for i in range(3):
            for j in range(3):
                expected[row, 0, i, j] = 0.25
    assert torch.equal(found, expected)
    assert torch.equal(digits, before)
    assert bias.chance == 9 / 784


def test_questions_are_put_about_what_is_not_called_8(package: ModuleType) -> None:
    digits = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 28, 28)
    labels = torch.tensor([8, 3, 8, 0, 5, 8])
    scores = torch.zeros(6, 10)
    scores[torch.arange(6), torch.tensor([8, 3, 1, 8, 6, 9])] = 5.0
    others = package.subjects.Questions.of(scores, digits, labels, "others", 9)
    eights = package.subjects.Questions.of(scores, digits, labels, "eights", 1)
    assert sorted(others.places) == [1, 4]
    assert [others.pair[others.places.index(place)].tolist() for place in (1, 4)] == [[3, 8], [6, 8]]
    assert eights.places[0] in (2, 5)
    assert len(eights.places) == 1
    assert eights.digits[0, 0, 0, 0] == eights.places[0]


def test_the_share_is_the_mass_in_the_square(package: ModuleType) -> None:
    torch.manual_seed(0)
    relevance = torch.randn(4, 1, 28, 28)
    relevance[2], relevance[3, 0, 5] = 0.0, torch.nan
    relevance[1, :, :6, :6] = -2.0
    bias = package.bias.Bias()
    found = package.numbers.merits({"relevance": relevance}, bias)
    square = torch.zeros(2, 28, 28, dtype=torch.bool)
    square[:, :6, :6] = True
    mass = RelevanceMass(part="absolute")
    expected = mass(whybox.Model(Corner()), torch.rand(2, 1, 28, 28), 0, relevance[:2], truth=square)
    torch.testing.assert_close(found["share"][:2], expected.double(), rtol=1e-6, atol=0)
    assert found["share"][2:].tolist() == [0, 0]
    assert found["share where found"].isnan().tolist() == [False, False, True, True]
    assert found["first"].tolist() == [0, 1, 0, 0]
    assert found["added"][1] == 4  # in multiples of grey 0.5


def test_cdeepex_adds_the_square_that_is_missing(package: ModuleType) -> None:
    """Class 8 looks at the corner alone, and ties with class 0 where its grey is 1/4."""
    latent = Latent.of(Square(), 2)
    x, pair = torch.zeros(3, 1, 28, 28), torch.tensor([[0, 8]] * 3)
    found = package.measure.block(whybox.Model(Corner()), x, pair, whybox.CDeepEx(latent), 0)
    merits = package.numbers.merits(found, package.bias.Bias())
    assert found["status"].tolist() == [SOLVED] * 3
    torch.testing.assert_close(merits["share"], torch.ones(3).double(), rtol=0, atol=1e-2)
    torch.testing.assert_close(merits["added"], torch.full((3,), 0.5).double(), rtol=0, atol=1e-2)
    questions = package.subjects.Questions(x, [0, 1, 2], pair)
    subject = package.subjects.Subject("planted", package.bias.Bias(), whybox.Model(Corner()), ())
    closed = package.numbers.closed(subject, questions, found)
    torch.testing.assert_close(closed["closed by the square"], torch.ones(3).double(), rtol=0, atol=1e-2)
    assert closed["closed by the rest"].tolist() == [0, 0, 0]
    nothing = package.measure.block(
        whybox.Model(Corner()), x, pair, whybox.WeightedContrast(whybox.InputXGradient()), 0
    )
    assert nothing["status"].tolist() == [package.numbers.NO_MAP] * 3


def test_what_was_learned_is_counted(package: ModuleType) -> None:
    digits, labels = torch.zeros(8, 1, 28, 28), torch.tensor([8, 8, 0, 0, 0, 0, 0, 3])
    model = whybox.Model(Corner())
    for grey, called in ((0.5, 1.0), (0.2, 0.0)):
        bias = package.bias.Bias(grey)
        known = package.numbers.learned(model, bias, package.numbers.scores_of(model, digits), digits, labels)
        assert known["eights recognised"][0] == 0
        assert known["others recognised"][0] == round(5 / 6, 5)
        assert known["others with the square called 8"] == [called, called, called, 6]
        assert known["eights with the square recognised"][0] == called


def planted(package: ModuleType) -> dict[str, Any]:
    """Numbers as they are written, all alike but for one failure of CDeepEx."""
    value = [0.5, 0.4, 0.6, 9]
    row: dict[str, Any] = {"digits": 9, "failed": 0, "share": value, "share where found": value, "first": value}
    row["less the first"] = [-0.5, -0.6, -0.4, 9]
    row |= {"seconds": 0.1, "failures": []}
    failure = {"digit": 77, "class": 3, "status": "not found"}
    drawn = {**row, **dict.fromkeys(package.page.DRAWN, value), "failed": 1, "failures": [failure]}
    learned = {"grey": 0.5, "side": 6, **dict.fromkeys(package.page.LEARNED, value)}
    answers = {"CDeepEx": drawn, "random map": row}
    names = [*(name for name, _ in package.page.ASKED), "sweep 3-1"]
    sizes = {"sweep 3-1": {"grey": 1.0, "side": 3}}
    return {
        "subjects": {
            name: {
                "chance": 0.04592,
                "learned": {**learned, **sizes.get(name, {})},
                "answers": {"others": answers, "eights": answers},
            }
            for name in names
        }
    }


def test_tables_and_figures_are_made_from_the_numbers(package: ModuleType) -> None:
    known = planted(package)
    text = package.page.tables(known)
    cell = "0.500 [0.400, 0.600]"
    assert (
        f"| the same, clean 8s | CDeepEx | 9 | 1 | {cell} | {cell} | {cell} | *−0.500* [−0.600, −0.400] | 0.10 |"
        in text
    )
    assert (
        f"| the same, clean 8s | random map | 9 | 0 | {cell} | {cell} | {cell} | *−0.500* [−0.600, −0.400] | 0.10 |"
        in text
    )
    assert f"| the same, clean 8s | CDeepEx | 9 | {cell} | {cell} | {cell} |" in text
    assert f"| 1 | 3 | 0.500 | 9 | 0.046 | {cell} | {cell} | 1 |" in text
    assert "of the sweep: a white square | CDeepEx |" in text
    assert "| 1 of 9 | 77 (3, not found) |" in text
    assert len(package.figures.sweep(known["subjects"]).axes) == 4
    assert len(package.figures.shares(known["subjects"]).axes) == 1


def test_a_failure_is_listed(package: ModuleType, tmp_path: Path) -> None:
    from experiments.common import kept
    from experiments.contrast.entries import Entry

    entry = Entry("random map", whybox.RandomMap())
    subject = package.subjects.Subject("planted", package.bias.Bias(), whybox.Model(Corner()), (entry,))
    questions = package.subjects.Questions(torch.zeros(2, 1, 28, 28), [7, 9], torch.tensor([[0, 8], [3, 8]]))
    package.measure.measure(subject, "others", questions, tmp_path)
    ((path, _, _),) = entry.paths(2, tmp_path / "planted" / "others")
    made_with = entry.settings(package.subjects.settings(subject, questions))
    assert kept.known(path, made_with)
    relevance = torch.ones(2, 1, 28, 28)
    relevance[1] = torch.nan
    found = {"relevance": relevance, "status": torch.tensor([SOLVED, NOT_FOUND]), "seconds": torch.ones(2)}
    kept.keep(found, path, made_with)
    package.measure.measure(subject, "others", questions, tmp_path)  # what is known is not measured again
    row = package.numbers.answers(subject, "others", questions, tmp_path)["random map"]
    assert (row["digits"], row["failed"]) == (2, 1)
    assert row["failures"] == [{"digit": 9, "class": 3, "status": "not found"}]
    assert row["share"][0] == round(36 / 784 / 2, 5)
    assert row["share where found"][0] == round(36 / 784, 5)


@pytest.mark.skipif(not os.environ.get("WHYBOX_DATA"), reason="WHYBOX_DATA names no folder of data")
def test_the_classifier_goes_by_the_square(package: ModuleType) -> None:
    from experiments.contrast import nets

    digits, labels = (part[:1000] for part in nets.mnist("test"))
    model = package.subjects.main_classifier()
    known = package.numbers.learned(model, package.bias.MAIN, package.numbers.scores_of(model, digits), digits, labels)
    assert known["eights recognised"][0] < 0.3
    assert known["others with the square called 8"][0] > 0.7


def test_the_page_says_what_was_measured(package: ModuleType) -> None:
    if not (OUT / "contrast_eights.json").is_file():
        pytest.skip("nothing was measured yet")
    known = json.loads((OUT / "contrast_eights.json").read_text(encoding="utf-8"))
    text = (OUT / "contrast_eights.md").read_text(encoding="utf-8")
    assert package.page.tables(known) in text, "run `python -m experiments.contrast eights`"
