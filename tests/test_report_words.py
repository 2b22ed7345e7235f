"""The words of the report: how far to trust, what to call things, the cards of the methods."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import whybox
from report_cases import QUICK, Constant, model, pictures, text_of
from whybox import Check, Logit, Method, report
from whybox.core.card import card
from whybox.core.configs import config_text
from whybox.core.registry import method_class
from whybox.report.names import model_titles, percent, settings, thing
from whybox.report.trust import trust
from whybox.report.write import html


@pytest.fixture(scope="module")
def findings() -> report.Findings:
    return report.collect(model(), pictures(), QUICK)


def test_a_fitted_method_is_named_by_its_file_and_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fitted = whybox.ExpectedGradients(samples=2).fit(model(), pictures())
    digest = fitted.digest
    fitted.save("f.safetensors")
    found = report.collect(model(), pictures(), [fitted, "f.safetensors"])
    text = text_of(html([found], ["a", "b"]))
    assert f"fitted {digest[:8]}…, file f.safetensors" in text
    assert f"# expected_gradients, fitted: whybox.Fitted.load(FILE), with the digest {digest}" in text
    assert f"fitted='{digest}', file='f.safetensors')\"," in text
    assert "here that was read" in text


class TestTrust:
    def test_values_limits_and_marks(self, findings: report.Findings) -> None:
        panel = trust(findings.explanations, QUICK, 0)
        for row in panel.checks:
            for one, explanation in zip(row.measured, findings.explanations, strict=True):
                check = next(check for check in explanation.checks if check.name == row.name)
                assert one.verdict == ("pass" if bool(check.passed[0]) else "fail")
                assert float(one.value) == pytest.approx(float(check.values[0]), abs=6e-4)
        page = html([findings], ["a", "b"])
        assert page.count('<span aria-hidden="true">✓</span> pass') + page.count(
            '<span aria-hidden="true">✕</span> fail'
        )

    def test_agreement_is_the_rank_correlation(self, findings: report.Findings) -> None:
        from scipy.stats import spearmanr

        agreement = trust(findings.explanations, QUICK, 1).agreement
        assert agreement is not None
        maps = [one.relevance[1].sum(0).flatten() for one in findings.explanations]  # type: ignore[union-attr]
        assert agreement.table[0][1] == pytest.approx(spearmanr(maps[0], maps[1]).statistic)
        assert agreement.table[0][2] == pytest.approx(spearmanr(maps[0].abs(), maps[2]).statistic)  # strengths only
        assert agreement.table[1][0] == agreement.table[0][1]
        assert agreement.table[2][2] is None

    def test_no_value_comes_with_a_reason(self) -> None:
        found = report.collect(model(), pictures(1), [Constant()])
        panel = trust(found.explanations, ["Constant"], 0)
        one = panel.checks[0].measured[0]
        assert (one.value, one.verdict, one.share) == ("—", "none", None)
        assert one.note == "the map has the same value everywhere, so there is no order to compare"
        assert "1 of 1 checks fails: Constant in blank map" in panel.summary
        assert "2 could not be measured" in panel.summary
        assert "no order to compare" in text_of(html([found], ["a"]))

    def test_a_check_that_fails_to_run_says_why(self, findings: report.Findings) -> None:
        unmeasured = Check("likeness", torch.tensor([torch.nan]), 0.5, "It is measured so. Not measured: no weights.")
        panel = trust([replace(findings.explanations[0].sample(0), checks=(unmeasured,))], ["Gradient"], 0)
        assert panel.checks[0].says == "It is measured so."
        assert panel.checks[0].measured[0].note == "no weights."
        assert panel.lead == "Unchecked."

    def test_scores_stand_beside_controls(self, findings: report.Findings) -> None:
        panel = trust(findings.explanations, QUICK, 0, findings.trials)
        assert [row.name for row in panel.trials] == [
            "Beside controls: replaced by UniformNoise",
            "Beside controls: replaced by Zero",
        ]
        for row, trial in zip(panel.trials, findings.trials, strict=True):
            assert [one.method for one in row.controls] == list(trial.controls)
            scores = (*trial.scores, *trial.controls.values())
            for one, values in zip((*row.measured, *row.controls), scores, strict=True):
                assert float(one.value.replace("−", "-")) == pytest.approx(float(values[0]), abs=6e-4)
                assert one.share is not None
                assert (one.share > 0.5) == (float(values[0]) > 0)
        text = text_of(html([findings], ["a", "b"]))
        assert all(f": {one.says}. {one.reason[0].upper()}{one.reason[1:]}." in text for one in panel.lights)

    def test_failing_is_said_first(self, findings: report.Findings) -> None:
        strict = tuple(
            replace(check, limit=0.0001, values=check.values + 1) for check in findings.explanations[0].checks
        )
        panel = trust([replace(findings.explanations[0], checks=strict)], ["Gradient"], 0)
        assert panel.verdict == "fail"
        assert panel.lead == "Do not rely on Gradient here."
        assert "2 of 2 checks fail" in panel.summary


class TestNames:
    @pytest.mark.parametrize(
        ("label", "phrase"),
        [
            ("tench", "a tench"),
            ("axolotl", "an axolotl"),
            ("Komodo dragon", "a Komodo dragon"),
            ("sunglasses", "sunglasses"),
            ("water glass", "a water glass"),
            ("7", "“7”"),
            ("POSITIVE", "“POSITIVE”"),
            ("LABEL_0", "“LABEL_0”"),
        ],
    )
    def test_things(self, label: str, phrase: str) -> None:
        assert thing(label) == phrase

    def test_percent(self) -> None:
        shown = [percent(share).replace("\u202f", " ") for share in (0.94, 0.031, 0.0004, 0.9999, 0.993, float("nan"))]
        assert shown == ["94 %", "3.1 %", "< 0.1 %", "> 99.9 %", "99.3 %", "—"]

    def test_models_are_told_apart(self) -> None:
        assert model_titles(["torchvision:resnet18 (X)", "digits"]) == ["resnet18", "digits"]
        assert model_titles(["timm:a (X)", "timm:a (Y)"]) == ["timm:a (X)", "timm:a (Y)"]

    def test_a_method_as_text_can_be_read_again(self) -> None:
        method = whybox.method("smooth_grad(of=integrated_gradients(steps=7, baseline=Constant(value=0.5)), samples=3)")
        assert whybox.method(config_text(method.config())) == method
        assert settings(method.config()) == "samples 3"


class TestCard:
    def test_the_sections_of_a_docstring(self) -> None:
        about = card(method_class("smooth_grad"))
        assert about.summary.startswith("Relevance R = mean over k of A(x + n_k)")
        assert about.cost.startswith("`samples` times the cost of `of`")
        assert about.limits.endswith("is a choice.")
        assert about.source.startswith("Smilkov")
        assert list(about.fields) == ["of", "samples", "noise"]
        assert about.fields["noise"].endswith("own range of values.")

    @pytest.mark.parametrize("name", whybox.methods())
    def test_every_method_says_it_all(self, name: str) -> None:
        about = card(method_class(name))
        assert about.summary
        assert about.cost
        assert about.limits
        assert about.source
        assert set(about.fields) <= set(method_class(name).__dataclass_fields__)  # type: ignore[attr-defined]

    def test_without_a_docstring(self) -> None:
        @dataclass(frozen=True)
        class Silent(Method):
            steps: int = 3

        assert card(Silent).summary == ""
        assert card(Logit).summary
