"""A contrast in the report, in figures, notebooks and JSON: what it shows is what was found, and nothing else."""

import json
import sys
from dataclasses import replace
from html import unescape
from re import findall
from typing import Any

import pytest
import torch

import whybox
from report_cases import plain, text_of
from whybox import CDeepEx, Contrast, Explanation, Model, plot, report
from whybox.contrast.answer import UNKNOWN
from whybox.core.method import Check
from whybox.datasets import load
from whybox.plot.film import film_of
from whybox.report.change import change_lines, change_view
from whybox.report.fragment import fragment
from whybox.report.write import html

FOUR = 94  # a held-out 4, which the model takes for a 4 before a 9
FRAMES = 5


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    inputs, _ = load("digits", split="test")
    assert isinstance(inputs, torch.Tensor)
    return inputs[[FOUR, 344]]


@pytest.fixture(scope="module")
def findings(images: torch.Tensor) -> report.Findings:
    model = whybox.models.load("digits")
    return report.collect(model, images, [CDeepEx(film=FRAMES, starts=1)], Contrast(None, None))


@pytest.fixture(scope="module")
def found(findings: report.Findings) -> Explanation:
    return findings.explanations[0]


def missing(one: Explanation) -> Explanation:
    """The same, had nothing been found."""
    gone = {
        name: torch.full_like(one.details[name], torch.nan)
        for name in ("contrast_image", "probabilities", "all_probabilities", "distance", "film", "film_probabilities")
    }
    relevance = torch.full_like(one.relevance, torch.nan)  # type: ignore[arg-type]
    status = torch.full_like(one.details["status"], 2)
    return replace(one, relevance=relevance, details={**one.details, **gone, "status": status})


def taken(one: Explanation) -> Explanation:
    """The same, had class 0 taken over."""
    likely = one.details["all_probabilities"].clone()
    likely[:, 0] = 0.9
    return replace(one, details={**one.details, "all_probabilities": likely})


def page(findings: report.Findings, one: Explanation) -> str:
    return html([replace(findings, results=(one,))], ["four.png", "one.png"])


class TestTheWay:
    def test_it_leads_from_the_input_to_the_contrast(self, found: Explanation) -> None:
        film = found.details["film"]
        assert film.shape == (2, FRAMES, 1, 8, 8)
        assert torch.allclose(film[:, 0], found.inputs, atol=1e-6)  # type: ignore[arg-type]
        assert torch.allclose(film[:, -1], found.details["contrast_image"], atol=1e-6)

    def test_its_probabilities_are_those_of_the_model(self, found: Explanation) -> None:
        told = found.details["film_probabilities"]
        with torch.no_grad():
            asked = whybox.models.load("digits")(found.details["film"].flatten(0, 1)).softmax(1)
        assert torch.allclose(told.flatten(0, 1).float(), asked, atol=1e-5)
        assert torch.allclose(told[:, -1], found.details["all_probabilities"])

    def test_the_two_classes_tie_at_its_end(self, found: Explanation) -> None:
        pair = found.details["all_probabilities"].gather(1, found.details["classes"])
        assert torch.allclose(pair, found.details["probabilities"])
        assert torch.allclose(pair[:, 0], pair[:, 1], atol=0.01)


class TestTheReport:
    def test_red_is_to_be_added(self, found: Explanation) -> None:
        change = plot.change_of(found, 0)
        assert change is not None
        moved = found.details["contrast_image"][0, 0] - found.inputs[0, 0]  # type: ignore[index]
        assert torch.allclose(change.added, moved, atol=1e-5)
        assert (change.true, change.probe) == (4, 9)
        assert change.path.isfinite().all()

    def test_it_takes_the_place_of_the_map(self, findings: report.Findings, found: Explanation) -> None:
        text = text_of(page(findings, found))
        assert "Why 4 and not 9?" in text
        assert "What would have to change" in text
        assert "Where the evidence lies" not in text
        assert "Why this, not that" not in text
        assert findings.contrasts is None

    def test_the_slider_has_the_probabilities_of_each_picture(
        self, findings: report.Findings, found: Explanation
    ) -> None:
        shares = json.loads(unescape(findall(r'data-shares="([^"]+)"', page(findings, found))[0]))
        assert len(shares) == FRAMES
        assert [one["label"] for one in shares[0][:2]] == ["4", "9"]
        likely = found.details["film_probabilities"][0]
        assert [frame[0]["share"] for frame in shares] == pytest.approx(likely[:, 4].tolist())
        assert [frame[1]["share"] for frame in shares] == pytest.approx(likely[:, 9].tolist())

    def test_without_a_contrast_nothing_is_drawn(self, findings: report.Findings, found: Explanation) -> None:
        written = page(findings, missing(found))
        text = text_of(written)
        assert "Nothing is shown in place of a contrast." in text
        assert "no contrast found" in text
        assert 'class="morph"' not in written
        assert "The change" not in text
        view = change_view(missing(found), 0, "CDeepEx")
        assert view is not None
        assert not view.found
        assert view.shares == ()

    def test_who_takes_over_is_named(self, findings: report.Findings, found: Explanation) -> None:
        assert "nobody" in text_of(page(findings, found))
        assert "but 0 takes over with 90 %" in plain(change_lines(taken(found), 0)[0])
        text = text_of(page(findings, taken(found)))
        assert "✕ 0" in text
        assert "nobody" not in text

    def test_an_input_that_the_latent_model_does_not_know(self, found: Explanation) -> None:
        assert change_lines(found, 0)[1].startswith("The latent model knows this input")
        checks = tuple(replace(c, values=c.values + 1) if c.name == UNKNOWN else c for c in found.checks)
        said = change_lines(replace(found, checks=checks), 0)[1]
        assert said.startswith("The latent model does not know this input")
        assert said.endswith("The contrast is one of something else.")
        untold = change_lines(replace(found, checks=()), 0)[1]
        assert "cannot be told" in untold

    def test_beside_maps_only_these_are_contrasted_and_put_into_mosaics(
        self, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def tiles(model: Any, inputs: Any, target: Any, relevances: Any, methods: Any, **_: Any) -> tuple[Check, ...]:
            return tuple(Check(f"mosaic of {type(one).__name__}", torch.zeros(2), 0.75, "") for one in methods)

        monkeypatch.setattr(sys.modules["whybox.report.collect"], "outside_the_tile", tiles)
        both = report.collect(whybox.models.load("digits"), images, [CDeepEx(starts=1), "input_x_gradient"])
        assert both.contrasts is not None
        assert both.contrasts.method["name"] == "input_x_gradient"
        mosaics = [[check.name for check in one.checks if "mosaic" in check.name] for one in both.explanations]
        assert mosaics == [[], ["mosaic of InputXGradient"]]
        text = text_of(html([both], ["a", "b"]))
        assert "Where the evidence lies" in text
        assert "What would have to change" in text

    def test_as_json(self, findings: report.Findings, found: Explanation) -> None:
        picture = report.as_json(findings, ["four.png", "one.png"])["pictures"][0]
        change = picture["explanations"][0]["change"]
        assert (change["true"], change["probe"], change["takes_over"]) == (4, 9, None)
        assert change["status"] == "solved"
        assert change["probabilities"]["after"] == pytest.approx(found.details["all_probabilities"][0].tolist(), 1e-4)
        assert torch.allclose(torch.tensor(change["contrast"]), found.details["contrast_image"][0], atol=1e-4)
        gone = report.as_json(replace(findings, results=(missing(found),)), ["four.png", "one.png"])
        assert gone["pictures"][0]["explanations"][0]["change"]["distance"] is None
        json.dumps(gone, allow_nan=False)


class TestFigures:
    def test_the_figure(self, found: Explanation) -> None:
        titles = [ax.get_title() for ax in plot.explanation(found).axes]
        assert titles[:4] == [
            "what the model saw",
            "4 and 9 tie",
            "red: to be added\nblue: to be removed",
            "the search",
        ]
        assert film_of(found, 0) is None  # it shows inputs, not masks
        ax = plot.explanation(found).axes[0]
        assert found.plot(ax=ax) is ax.figure

    def test_the_figure_without_a_contrast(self, found: Explanation) -> None:
        assert missing(found).plot().axes[1].get_title() == "not found"

    def test_of_a_table_the_change_is_drawn_too(self, images: torch.Tensor) -> None:
        torch.manual_seed(0)
        net, draw = torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)
        latent = whybox.latent.Latent.of(draw, 2)
        with torch.no_grad():
            rows = draw(torch.randn(2, 2))
        one = whybox.explain(Model(net), rows, CDeepEx(latent, film=3), Contrast(None, None), checks=False)
        change = plot.change_of(one, 0)
        assert change is not None
        assert change.found
        bars = one.plot().axes[0]
        assert bars.get_xlabel() == "change (raw)"
        assert sorted(bar.get_width() for bar in bars.patches) == pytest.approx(sorted(change.added.tolist()), abs=1e-6)
        view = change_view(one, 0, "CDeepEx")
        assert view is not None
        assert view.morph is None
        assert "cannot be told" in view.lines[1]
        assert "Why class 1 and not class 0?" in text_of(fragment(one)) or "Why class 0 and not class 1?" in text_of(
            fragment(one)
        )

    def test_in_a_notebook(self, found: Explanation) -> None:
        text = text_of(fragment(found))
        assert "Red is to be added, blue to be removed" in text
        assert "Why 4 and not 9?" in text
        assert "The latent model knows this input" in text
