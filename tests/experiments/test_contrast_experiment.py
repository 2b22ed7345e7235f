"""The contrast experiment: contrasts are brought to a tie, judged and counted as planted ones must be."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import whybox
from whybox import Attribution, Contrast, Method, Taxonomy
from whybox.contrast.record import NOT_FOUND, SOLVED

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/experiments"


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The experiment's package, with its modules."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.contrast import entries, figures, measure, numbers, page

    yield sys.modules["experiments.contrast"]
    del entries, figures, measure, numbers, page


class Sums(nn.Module):
    """Of digits (n, 1, 28, 28): s₀ = the sum of the upper half, s₁ = 100 less that, s₂ = `third` always."""

    def __init__(self, third: float = 0.0) -> None:
        super().__init__()
        self.third = third

    def forward(self, x: Tensor) -> Tensor:
        upper = x[:, 0, :14].sum((1, 2))
        return torch.stack((upper, 100 - upper, torch.full_like(upper, self.third)), 1)


class Upper(Method):
    """A map that is one in the upper half, whatever is explained."""

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="dependence")

    def attribute(self, task: whybox.core.task.Task) -> Attribution:
        relevance = torch.zeros_like(task.inputs)
        relevance[:, :, :14] = 2.0
        return Attribution(relevance)


class Nowhere(Upper):
    """A map without any relevance."""

    def attribute(self, task: whybox.core.task.Task) -> Attribution:
        return Attribution(torch.zeros_like(task.inputs))


def digits() -> Tensor:
    """The upper half of each is evenly grey, the lower black; s₀ = 392 times the grey."""
    x = torch.zeros(3, 1, 28, 28)
    x[:, :, :14] = torch.tensor([0.25, 0.2, 0.15]).view(3, 1, 1, 1)
    return x


def test_a_map_is_imposed_until_the_classes_tie(package: ModuleType) -> None:
    found = package.measure.block(whybox.Model(Sums()), digits(), package.entries.Entry("upper", Upper()), 0)
    expected = digits()
    expected[:, :, :14] = 50 / 392
    torch.testing.assert_close(found["contrast"], expected, rtol=0, atol=1e-4)
    assert found["classes"].tolist() == [[0, 1]] * 3


def test_where_no_tie_is_met_there_is_no_contrast(package: ModuleType) -> None:
    found = package.measure.block(whybox.Model(Sums()), digits(), package.entries.Entry("none", Nowhere()), 0)
    assert found["contrast"].isnan().all()


def jury(package: ModuleType, third: float) -> object:
    """The classifier judges alone; what is drawn is what is given."""
    return package.numbers.Jury(whybox.Model(Sums(third)), Sums(), [nn.Identity()] * 4, digits().flatten(1))


def tied(value: float = 50 / 392) -> dict[str, Tensor]:
    x = digits()
    x[:, :, :14] = value
    nothing = torch.zeros(3)
    return {
        "contrast": x,
        "classes": torch.tensor([[0, 1]] * 3),
        "status": torch.tensor([SOLVED, SOLVED, NOT_FOUND]),
        "reconstruction": nothing,
    }


@pytest.mark.parametrize(
    ("third", "value", "violated", "taken"),
    [(0.0, 50 / 392, 0, 0), (60.0, 50 / 392, 3, 3), (0.0, 60 / 392, 3, 0), (49.99, 50 / 392, 0, 0)],
)
def test_constraints_are_counted(package: ModuleType, third: float, value: float, violated: int, taken: int) -> None:
    counts = jury(package, third).counts(tied(value))
    assert (counts["digits"], counts["found"]) == (3, 3)
    assert (counts["violated"], counts["third class"]) == (violated, taken)
    assert counts["status"]["solved"] == 2


def test_what_was_not_found_is_counted_and_listed(package: ModuleType) -> None:
    found = tied()
    found["contrast"][2] = torch.nan
    one = jury(package, 0.0)
    counts = one.counts(found)
    assert (counts["digits"], counts["found"], counts["violated"], counts["third class"]) == (3, 2, 0, 0)
    (failure,) = package.numbers.failures(one, found, [7, 8, 9])
    assert (failure["digit"], failure["status"], failure["excess"]) == (9, "not found", None)


def test_figures_of_merit(package: ModuleType) -> None:
    """Contrasts that are training digits, and autoencoders that give back what they get, or nothing."""
    found, nothing = tied(0.2), nn.Sequential(nn.Flatten(), nn.Linear(784, 784), nn.Unflatten(1, (1, 28, 28)))
    for parameter in nothing.parameters():
        nn.init.zeros_(parameter)
    same = nn.Identity()
    one = package.numbers.Jury(whybox.Model(Sums()), Sums(), [same, nothing, same, same], digits().flatten(1))
    figures = one.figures(found["contrast"], digits(), found["classes"])
    total = 392 * 0.2**2
    torch.testing.assert_close(figures["neighbour"], torch.zeros(3).double(), rtol=0, atol=1e-2)
    torch.testing.assert_close(figures["‖ΔI‖₁"], torch.tensor([19.6, 0, 19.6]).double())
    torch.testing.assert_close(figures["IM1"], torch.full((3,), total / 1e-3).double())
    torch.testing.assert_close(figures["IM2"], torch.full((3,), total / (78.4 + 1e-3)).double())
    assert figures["other: two"].tolist() == [1, 1, 1]


def test_all_tables_are_made_from_what_was_kept(package: ModuleType, tmp_path: Path) -> None:
    """Every entry has the same planted ties, but that CDeepEx has found nothing for the third digit."""
    from experiments.common import kept

    entries, places = package.entries, [7, 8, 9]
    for entry in (*entries.ROWS, *entries.CURVES):
        found = {**tied(), "distance": torch.ones(3), "relevance": torch.zeros(3, 1, 28, 28)}
        found |= {name: torch.full((3,), 2.0) for name in ("forwards", "backwards", "seconds")}
        if entry is entries.CDEEPEX:
            found["contrast"][2] = torch.nan
        if "latent" in entry.method.config():
            found["curve"] = torch.full((3, package.measure.ITERATIONS, 2), 0.25)
        for path, start, stop in entry.paths(3, tmp_path):
            rows = {name: value[start:stop] for name, value in found.items()}
            kept.keep(rows, path, entry.settings("weights"))
    numbers = package.numbers.numbers(jury(package, 0.0), digits(), places, tmp_path)
    known = numbers["entries"]
    assert known["CDeepEx"]["found"] == 2
    assert known["xGEM, boundary"]["found"] == 3
    assert known["PDA, weighted"]["digits"] == 1
    assert known["xGEM, boundary"]["less CDeepEx"]["‖ΔI‖₁"][0] == 0
    numbers["accuracy"] = {"classifier": 0.99, "other": 0.99, "on the digits": 1.0}
    text = package.page.tables(numbers)
    assert "| CDeepEx | 3 | 66.7% | 66.7% | 0.0% (0) | 0.0% (0) | 33.3% (1) | 2 | 2 | 2.00 |" in text
    assert "| CDeepEx | 9 | 0 / 1 | not found |  | — |" in text
    assert len(package.figures.curves(numbers["curves"]).axes) == 2


def test_a_curve_goes_on_as_it_ended(package: ModuleType) -> None:
    curve = torch.tensor([[[0.9, 0.1], [0.6, 0.4], [torch.nan, torch.nan]], [[0.8, 0.2], [0.7, 0.3], [0.5, 0.5]]])
    carried = package.measure._carried(curve)
    assert carried.shape == (2, package.measure.ITERATIONS, 2)
    torch.testing.assert_close(
        carried[0, [0, 1, 2, 824]], torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])
    )
    torch.testing.assert_close(carried[1, 3:], torch.full((822, 2), 0.5))


def test_digits_are_chosen_by_rule(package: ModuleType) -> None:
    likely = torch.tensor([[0.9, 0.1, 0.0], [0.75, 0.25, 0.0], [0.5, 0.5, 0.0], [0.0, 0.8, 0.2], [0.2, 0.8, 0.0]])
    rows, pair = package.figures.ambiguous(likely)
    assert rows[:2] == [1, 3]
    assert pair[:2].tolist() == [[0, 1], [1, 2]]
    rows, pair = package.figures.first(likely, torch.tensor([1, 0, 0, 1, 1]), ((0, 1), (1, 2)), 2)
    assert rows == [1, 2, 3, 4]
    assert pair.tolist() == [[0, 1], [0, 1], [1, 2], [1, 2]]


@pytest.mark.skipif(not os.environ.get("WHYBOX_DATA"), reason="WHYBOX_DATA names no folder of data")
def test_the_classifier_is_as_good_as_the_papers(package: ModuleType) -> None:
    from experiments.contrast import nets

    digits, labels = nets.mnist("test")
    classifier = nets.classifier()
    assert nets.accuracy(classifier.module, digits[:2000], labels[:2000]) > 0.98
    answer = whybox.CDeepEx(package.entries.WGAN).run(classifier, digits[:4], Contrast())
    assert answer.details["status"].tolist() == [SOLVED] * 4


def test_the_page_says_what_was_measured(package: ModuleType) -> None:
    if not (OUT / "contrast_mnist.json").is_file():
        pytest.skip("nothing was measured yet")
    known = json.loads((OUT / "contrast_mnist.json").read_text(encoding="utf-8"))
    text = (OUT / "contrast.md").read_text(encoding="utf-8")
    assert package.page.tables(known) in text, "run `python -m experiments.contrast mnist`"
