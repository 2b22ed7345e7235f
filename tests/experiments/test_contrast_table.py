"""Contrasts of tables: planted columns decide, and planted answers have the numbers that they must have."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import whybox
from whybox.contrast.latent import Latent
from whybox.contrast.record import NOT_FOUND, SOLVED

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/experiments"


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The experiment's package, with its modules."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.contrast.table import experiment, figure, numbers, page, subjects

    yield sys.modules["experiments.contrast.table"]
    del experiment, figure, numbers, page, subjects


class First(nn.Module):
    """Of rows (n, 4): s₀ = the first column, s₁ = less that, s₂ = `third` always."""

    def __init__(self, third: float = -9.0) -> None:
        super().__init__()
        self.third = third

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((x[:, 0], -x[:, 0], torch.full_like(x[:, 0], self.third)), 1)


def subject(package: ModuleType, third: float = -9.0) -> object:
    """Rows of which only the first column decides; the latent space is the table itself."""
    rows = torch.tensor([[2.0, 0, 0, 0], [-1.0, 1, 0, 0], [1.0, 0, 3, 0]])
    model = whybox.Model(First(third), domain=whybox.Domain((-3.0,), (3.0,)))
    itself = nn.Linear(4, 4, bias=False)
    nn.init.eye_(itself.weight)
    return package.subjects.Subject(
        "first", list("abcd"), ["p", "q", "r"], model, Latent.of(itself, 4), torch.zeros(1, 4), rows, {}, range(1)
    )


def test_the_planted_columns_decide(package: ModuleType) -> None:
    """The classes are read from the first eight columns, and not from the twelve others."""
    x, labels = package.subjects.planted()
    causes = (x * torch.tensor([1.0, -1.0]).repeat(10)).view(-1, 5, 4).mean(2)
    angles = 2 * torch.pi * torch.arange(3) / 3
    directions = torch.stack((angles.cos(), angles.sin()))
    read = [(causes[:, two : two + 2] @ directions).argmax(1) == labels for two in (0, 2)]
    assert read[0].float().mean() > 0.85
    assert read[1].float().mean() < 0.45
    assert labels.bincount().min() > 150


def test_measured_once_and_put_into_numbers(package: ModuleType, tmp_path: Path) -> None:
    """CDeepEx and the imposed gradient set the first column to zero, and nothing else."""
    one = subject(package)
    found = {entry.name: package.numbers.measured(one, entry, 3, tmp_path) for entry in package.numbers.entries(one)}
    for name in (package.numbers.CDEEPEX, package.numbers.GRADIENT):
        torch.testing.assert_close(found[name]["contrast"][:, 0], torch.zeros(3), rtol=0, atol=2e-2)
        torch.testing.assert_close(found[name]["contrast"][:, 1:], one.test[:, 1:], rtol=0, atol=2e-2)
    again = package.numbers.measured(one, package.numbers.entries(one)[0], 3, tmp_path)
    assert torch.equal(again["seconds"], found[package.numbers.CDEEPEX]["seconds"])
    numbers = package.numbers.numbers(one, found)
    entry = numbers["entries"]["CDeepEx"]
    assert (entry["digits"], entry["status"]["solved"], entry["violated"], entry["third class"]) == (3, 3, 0, 0)
    assert entry["mean"]["share"][0] > 0.98
    assert entry["mean"]["‖ΔI‖₁"][0] == pytest.approx(4 / 3, abs=0.05)
    assert numbers["themselves"]["neighbour"][0] == pytest.approx((2 + 2**0.5 + 10**0.5) / 3, abs=1e-3)
    assert numbers["change"]["CDeepEx"]["first"][0] == pytest.approx(-1.5, abs=0.02)


def test_a_third_class_and_what_was_not_found_are_counted(package: ModuleType, tmp_path: Path) -> None:
    one = subject(package, third=0.5)
    assert one.model(one.test).argmax(1).tolist() == [0, 1, 0]
    found = {entry.name: package.numbers.measured(one, entry, 3, tmp_path) for entry in package.numbers.entries(one)}
    found["CDeepEx"]["status"] = torch.tensor([SOLVED, SOLVED, NOT_FOUND])
    found["CDeepEx"]["contrast"] = torch.tensor([[0.0] * 4, [0.6, 1, 0, 0], [torch.nan] * 4])
    found["CDeepEx"]["classes"] = torch.tensor([[0, 1]] * 3)
    entry = package.numbers.numbers(one, found)["entries"]["CDeepEx"]
    assert (entry["found"], entry["status"]["solved"], entry["violated"], entry["third class"]) == (2, 2, 2, 1)
    assert entry["rates"]["violated"][0] == pytest.approx(2 / 3, abs=1e-4)
    assert entry["mean"]["share"][0] == 1


def test_the_page_says_what_was_measured(package: ModuleType) -> None:
    known = json.loads((OUT / "contrast_table.json").read_text(encoding="utf-8"))
    text = (OUT / "contrast_table.md").read_text(encoding="utf-8")
    assert package.page.tables(known) in text, "run `python -m experiments.contrast table`"
    assert "-0.0" not in text
    assert len(package.figure.draw(known["subjects"]).axes) == 2
