"""The trust checks with known answers: the orders that are expected come out, and the experiment keeps its promises.

The parts that train for long are measured by `python -m experiments.trust` only; what it found must hold too.
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from experiments.trust import PARTS, page
from experiments.trust import __main__ as command
from experiments.trust.methods import CONTROLS, EDGES, EPSILON, GRAD_CAM, GRADIENT, GUIDED, RANDOM, SENSITIVITY
from experiments.trust.nets import mlp, trained
from experiments.trust.outcome import Outcome
from experiments.trust.pictures import COLOURS, digits, pasted, scenes, stamped

# How many pictures suffice for the intervals to tell.
QUICK = {
    "backdoor": {"n": 24, "nets": ("dense",)},
    "input_invariance": {"n": 12},
    "parameter_randomisation": {"n": 12, "rows": (GRADIENT, GRAD_CAM, GUIDED, EDGES)},
    "mosaic": {"n": 40},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", QUICK)
def test_the_expected_orders_come_out(name: str) -> None:
    found = importlib.import_module(f"experiments.trust.{name}").measure(**QUICK[name]).record()
    assert found["orders"]
    assert [order["says"] for order in found["orders"] if not order["holds"]] == []


def test_all_parts_were_measured_and_all_orders_came_out() -> None:
    known = json.loads(command.RESULTS.read_text(encoding="utf-8"))
    assert tuple(known) == PARTS
    assert [order["says"] for part in known.values() for order in part["orders"] if not order["holds"]] == []
    assert page.PAGE.read_text(encoding="utf-8") == page.text(known), "run `python -m experiments.trust`"


def test_what_was_found_is_of_the_methods_that_the_issue_names() -> None:
    known = json.loads(command.RESULTS.read_text(encoding="utf-8"))
    for name in ("backdoor", "clever_hans", "distractors", "bam", "parameter_randomisation", "mosaic"):
        assert {EPSILON, GUIDED, SENSITIVITY, GRAD_CAM, *CONTROLS} <= set(known[name]["scores"])


class TestOutcome:
    def outcome(self) -> Outcome:
        found, noise = Outcome(), torch.Generator().manual_seed(0)
        for row, level in (("high", 0.8), ("low", 0.2), ("also low", 0.2), *((name, 0.1) for name in CONTROLS)):
            found.add(row, "mass", level + 0.05 * torch.randn(50, generator=noise))
        return found

    @pytest.mark.parametrize(
        ("rows", "holds"), [(("high", "low"), True), (("low", "high"), False), (("high", "low", "also low"), False)]
    )
    def test_an_order_holds_only_where_every_pair_is_told_apart(self, rows: tuple[str, ...], holds: bool) -> None:
        found = self.outcome()
        found.falls("mass", *rows)
        assert found.orders[0]["holds"] is holds

    def test_one_control_that_is_not_beaten_is_enough_to_fail(self) -> None:
        found = self.outcome()
        found.beat_the_controls("mass", "high", "low")
        found.add(RANDOM, "mass", found.scores["low"]["mass"])
        found.beat_the_controls("mass", "high", "low")
        assert [order["holds"] for order in found.orders] == [True, False]
        assert found.orders[1]["closest"] == f"low − {RANDOM}"

    def test_without_scores_nothing_holds(self) -> None:
        found = self.outcome()
        found.add("blank", "mass", torch.full((50,), torch.nan))
        found.falls("mass", "high", "blank")
        found.above("mass", 0.0, "blank")
        found.within("mass", 1.0, "blank")
        assert [order["holds"] for order in found.orders] == [False] * 3
        assert found.record()["scores"]["blank"]["mass"]["n"] == 0

    def test_within_looks_at_every_sample(self) -> None:
        found = Outcome()
        found.add("row", "change", torch.tensor([0.0, 0.0, -0.25]))
        found.within("change", 0.1, "row")
        found.within("change", 0.25, "row")
        assert [order["holds"] for order in found.orders] == [False, True]


class TestTheCommand:
    def part(self, monkeypatch: pytest.MonkeyPatch, name: str, holds: bool = True) -> list[str]:
        """A part that only counts how often it is measured."""
        measured: list[str] = []

        def measure() -> Outcome:
            measured.append(name)
            found = Outcome()
            found.add("row", "column", torch.ones(8) if holds else -torch.ones(8))
            found.above("column", 0.0, "row")
            return found

        module = ModuleType(name)
        module.TITLE, module.TEXT, module.measure = name, name, measure  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"experiments.trust.{name}", module)
        return measured

    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command, "RESULTS", tmp_path / "results.json")
        monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
        monkeypatch.setattr(sys, "argv", ["trust"])
        for module in (command, page):
            monkeypatch.setattr(module, "PARTS", ("backdoor", "bam"))

    def test_a_run_that_was_stopped_goes_on_and_one_that_is_named_is_measured_anew(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = self.part(monkeypatch, "backdoor"), self.part(monkeypatch, "bam")
        module = sys.modules["experiments.trust.bam"]
        measure, module.measure = module.measure, lambda: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            command.main()
        module.measure = measure  # type: ignore[attr-defined]
        for argv in (["trust"], ["trust"], ["trust", "bam"]):
            monkeypatch.setattr(sys, "argv", argv)
            with pytest.raises(SystemExit) as done:
                command.main()
            assert not done.value.code
        assert (len(first), len(second)) == (1, 2)
        assert "2 of 2 expected orders came out" in page.PAGE.read_text(encoding="utf-8")

    def test_an_order_that_does_not_come_out_is_an_error_and_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.part(monkeypatch, "backdoor")
        self.part(monkeypatch, "bam", holds=False)
        with pytest.raises(SystemExit) as done:
            command.main()
        assert done.value.code
        assert "✗ **not so**: column: row > 0" in page.PAGE.read_text(encoding="utf-8")


class TestPictures:
    def test_the_patch_is_where_the_mask_says(self) -> None:
        images, _ = digits("test")
        with_patch, mask = stamped(images, 23, 23)
        assert mask.sum((1, 2, 3)).unique().tolist() == [16]
        assert bool((with_patch[mask] == 1).all())
        assert torch.equal(with_patch[~mask], images[~mask])

    def test_the_red_digit_says_the_class_and_is_the_truth(self) -> None:
        found = scenes("test", 40, seed=3)
        red, rest = found.images[:, :1], found.images[:, 1:].amax(1, keepdim=True)
        assert torch.equal(found.truth, red > 0)
        assert not bool(((red > 0) & (rest > 0)).any())
        assert len(COLOURS) == 4
        alone, labels = digits("test", scale=2, size=16)
        for image, mask, label in zip(red, found.truth, found.labels, strict=True):
            rows, columns = mask[0].any(1).nonzero().flatten(), mask[0].any(0).nonzero().flatten()
            crop = image[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            same = [torch.equal(crop, _cropped(digit[0])) for digit in alone[labels == label]]
            assert any(same)

    def test_outside_the_box_the_digit_changes_nothing(self) -> None:
        found = pasted("test", 40, seed=3)
        assert found.box.sum((1, 2, 3)).unique().tolist() == [256]
        assert torch.equal(found.images[~found.box], found.textures[~found.box])
        assert bool(((found.images >= 0) & (found.images <= 1)).all())
        assert bool((found.images != found.textures).flatten(1).any(1).all())


def _cropped(digit: torch.Tensor) -> torch.Tensor:
    rows, columns = (digit > 0).any(1).nonzero().flatten(), (digit > 0).any(0).nonzero().flatten()
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_the_same_seed_gives_the_same_net_whatever_was_drawn_before() -> None:
    images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % 10
    nets = [mlp(), mlp(), mlp()]
    state = torch.random.get_rng_state()
    first, second, third = (
        trained(net, images, labels, 2, 1e-2, seed).state_dict() for net, seed in zip(nets, (1, 1, 2), strict=True)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["1.weight"], third["1.weight"])
