"""The Fashion-MNIST experiment: measures of planted changes, nets that react as planted, and the page."""

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

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs/experiments"


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The experiment's package, with its modules."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.contrast.fashion import asked, experiment, figures, generality, measure, nets, numbers, page

    yield sys.modules["experiments.contrast.fashion"]
    del asked, experiment, figures, generality, measure, nets, numbers, page


def planted() -> Tensor:
    """A square of 4 × 4 in the middle of the body, one of 2 × 2 beside it, and nothing."""
    change = torch.zeros(3, 28, 28, dtype=torch.float64)
    change[0, 12:16, 12:16] = -0.5
    change[1, 4:6, 0:2] = 2.0
    change[2] = torch.nan
    return change


def test_area_counts_the_pixels_that_change_alike(package: ModuleType) -> None:
    assert package.generality.area(planted())[:2].tolist() == pytest.approx([16, 4])
    halves = planted()
    halves[0, 0, :16] = 0.25  # half as strong, as many: (16 + 8)² / (16 + 4)
    assert package.generality.area(halves)[0].item() == pytest.approx(24**2 / 20)


def test_place_of_a_change(package: ModuleType) -> None:
    generality, change = package.generality, planted()
    assert generality.height(change)[:2].tolist() == pytest.approx([13.5, 4.5])
    assert generality.share_beside(change)[:2].tolist() == [0, 1]
    # Places at ±0.5 and ±1.5 pixels from the centre, along both axes.
    assert generality.spread(change)[:2].tolist() == pytest.approx([(2 * 1.25) ** 0.5, 0.5**0.5])


def test_shares_of_the_garment(package: ModuleType) -> None:
    garments = torch.zeros(3, 28, 28, dtype=torch.float64)
    garments[:, 14:, :] = 0.8  # half of the first change lies in it, and nothing of the second
    assert package.generality.share_outside(planted(), garments)[:2].tolist() == pytest.approx([0.5, 1])
    assert package.generality.share_changed(planted(), garments)[:2].tolist() == pytest.approx([8 / 392, 0])


def test_likeness_is_the_mean_cosine_with_the_others(package: ModuleType) -> None:
    change = planted()
    change[1] = change[0] * 3
    assert package.generality.likeness(change)[:2].tolist() == pytest.approx([1, 1])
    change = torch.cat((change, -planted()[:1]))
    found = package.generality.likeness(change)
    assert found[[0, 1, 3]].tolist() == pytest.approx([0, 0, -1])
    assert found[2].isnan()


def test_changes_are_brought_to_equal_size(package: ModuleType) -> None:
    found = package.generality.sized(planted())
    assert found[:2].flatten(1).norm(dim=1).tolist() == pytest.approx([4, 4])
    torch.testing.assert_close(found[0, 12:16, 12:16], torch.full((4, 4), -1.0, dtype=torch.float64))


class Sum(nn.Module):
    """s_t − s_p = the sum of the picture; other classes are far away."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        scores = x.new_full((len(x), 10), -1e3)
        scores[:, 0], scores[:, 6] = total / 2, -total / 2
        return scores


def subject(package: ModuleType, architecture: str = "plain", seed: int = 0) -> object:
    return package.asked.Subject(architecture, seed, whybox.Model(Sum()))


def question(package: ModuleType) -> object:
    garments = torch.zeros(3, 1, 28, 28)
    garments[:, 0, 5, 5] = torch.tensor([1.0, 2.0, 4.0])
    return package.asked.Question((0, 6), [7, 8, 9], garments)


def test_a_change_is_carried_to_other_garments(package: ModuleType) -> None:
    """Each change takes its own garment to a tie: to others it is a half, a quarter, or more than enough."""
    asked = question(package)
    change = -asked.garments
    found = package.generality.carried(package.numbers._gap(subject(package), asked), asked.garments, change)
    torch.testing.assert_close(found, torch.tensor([(1 / 2 + 1 / 4) / 2, (2 + 2 / 4) / 2, 2.0]))  # 4 is cut to 2


def found_of(package: ModuleType, share: float) -> dict[str, Tensor]:
    """Contrasts that close this share of the gap; the last was not found."""
    garments = question(package).garments
    contrast = garments * (1 - share)
    contrast[2] = torch.nan
    ones = torch.ones(3)
    return {
        "contrast": contrast,
        "relevance": garments - contrast,
        "classes": torch.tensor([[0, 6]] * 3),
        "status": torch.tensor([0, 0, 2]),
        "distance": ones,
        "reconstruction": ones,
        **dict.fromkeys(("forwards", "backwards", "seconds"), ones),
    }


def test_failures_stay_in_the_count(package: ModuleType) -> None:
    why, one, numbers = question(package), subject(package), package.numbers
    result = {"plain 0": numbers.outcomes(why, one, found_of(package, 1.0))}
    found = numbers.of(result, "plain")
    counts = {name: value["count"] for name, value in found.items() if "count" in value}
    assert counts == {"solved": 2, "violated": 0, "third class": 0, "nothing found": 1}
    assert found["solved"]["mean"][0] == pytest.approx(2 / 3, abs=1e-5)
    assert found["p_t apart from p_p"]["mean"][0] == 0
    assert [failure["digit"] for failure in numbers.failed(why, one, found_of(package, 1.0))] == [9]
    result["plain 1"] = numbers.outcomes(why, one, found_of(package, 0.5))
    assert numbers.of(result, "plain")["violated"]["count"] == 2


def test_an_architecture_is_compared_by_pairs_of_nets(package: ModuleType) -> None:
    subjects = [subject(package, a, s) for s in (0, 1) for a in ("plain", "residual")]
    shares = {"plain 0": 1.0, "plain 1": 0.8, "residual 0": 0.9, "residual 1": 0.5}
    each = {
        one.name: package.numbers.measures(question(package), one, found_of(package, shares[one.name]), subjects)
        for one in subjects
    }
    assert each["plain 0"]["area"].isnan().tolist() == [False, False, True]
    package.numbers.moved(each, subjects)
    assert each["plain 1"]["moves its kind"][:2].tolist() == pytest.approx([0.8, 0.8])
    found = package.numbers.less(each, "plain", "residual", "moves its kind")
    assert found["difference"][0] == pytest.approx(0.2)
    assert (found["above"], found["pairs"]) == (3, 4)


def test_single_nets_differ_by_chance_of_training(package: ModuleType) -> None:
    """Eight garments: the plain nets are apart from each other, the second is where the residual ones are."""
    wobble = torch.linspace(-0.1, 0.1, 8, dtype=torch.float64)
    values = {"plain 0": 1.0, "plain 1": 0.0, "residual 0": 0.0, "residual 1": 0.0}
    each = {name: {"area": value + wobble * (-1) ** place} for place, (name, value) in enumerate(values.items())}
    found = package.numbers.single(each, "plain", "residual", "area")
    assert found == {"first": 2, "second": 0, "pairs": 4, "alike": 1, "alike of": 2}


def test_starts_that_miss_the_nearest_contrast(package: ModuleType) -> None:
    many = {"plain 0": {"distance": torch.tensor([1.0, 1.0, 1.0])}, "plain 1": {"distance": torch.ones(3)}}
    few = {"plain 0": {"distance": torch.tensor([1.0, 1.01, 1.5])}, "plain 1": {"distance": torch.ones(3)}}
    found = package.numbers.missed(few, many)
    assert (found["count"], found["of"]) == (1, 6)


def test_nets_of_one_architecture_agree(package: ModuleType) -> None:
    change = planted()[:2, None]
    changes = {"plain 0": change, "plain 1": 2 * change, "residual 0": -change}
    found = package.numbers.agreement(changes)
    assert found["plain"][0] == pytest.approx(1)
    assert found["plain and residual"][0] == pytest.approx(-1)


def test_nets_take_garments_and_differ_by_shortcuts_alone(package: ModuleType) -> None:
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for build in package.nets.ARCHITECTURES.values():
        assert build().eval()(x).shape == (2, 10)
    with_way, without = (dict(build().named_parameters()) for build in (package.nets.residual, package.nets.cut))
    assert {name for name in with_way if ".around." not in name} == set(without)


@pytest.mark.skipif(not os.environ.get("WHYBOX_DATA"), reason="WHYBOX_DATA names no folder of data")
def test_a_contrast_of_a_garment(package: ModuleType) -> None:
    asked, nets = package.asked, package.nets
    pictures, labels = nets.garments("test")
    one = asked.Subject("plain", 0, nets.classifier("plain", 0))
    assert (one.scores(pictures[:1000]).argmax(1) == labels[:1000]).double().mean() > 0.88
    why = asked.question((1, 4), [one], pictures, labels, 2)
    assert labels[why.places].tolist() == [1, 1]
    answer = asked.CDEEPEX.method.run(one.model, why.garments, whybox.Contrast(*why.pair))
    assert answer.details["violations"].max() <= 0.02


def test_the_page_says_what_was_measured(package: ModuleType) -> None:
    known = json.loads((OUT / "contrast_fashion.json").read_text(encoding="utf-8"))
    text = (OUT / "contrast_fashion.md").read_text(encoding="utf-8")
    assert package.page.tables(known) in text, "run `python -m experiments.contrast fashion`"
