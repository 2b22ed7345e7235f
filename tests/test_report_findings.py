"""What the report is made of: the findings, how they are recorded, how the file is written."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whybox
from report_cases import EVIL, QUICK, Constant, Refusing, model, net, pictures, text_of
from whybox import Contrast, Model, report
from whybox.core.errors import InputError, ModelError, TargetError, UnknownNameError
from whybox.report.write import html


@pytest.fixture(scope="module")
def findings() -> report.Findings:
    return report.collect(model(), pictures(), QUICK)


class TestCollect:
    def test_one_pinned_target_for_all(self, findings: report.Findings) -> None:
        predicted = findings.explanations[0].outputs.argmax(1)
        assert torch.equal(findings.this, predicted)
        assert len({one.target for one in findings.explanations}) == 1
        for one in findings.explanations:
            assert torch.equal(one.scores, one.outputs.gather(1, predicted[:, None])[:, 0])

    def test_each_method_is_explain_itself(self, findings: report.Findings) -> None:
        for name, one in zip(QUICK, findings.explanations, strict=True):
            alone = whybox.explain(model(), pictures(), name, findings.this)
            torch.testing.assert_close(one.relevance, alone.relevance)
            for mine, theirs in zip(one.checks, alone.checks, strict=True):
                torch.testing.assert_close(mine.values, theirs.values, equal_nan=True)

    def test_contrasts_are_the_first_methods(self, findings: report.Findings) -> None:
        contrasts = findings.contrasts
        assert contrasts is not None
        assert contrasts.others.shape == (2, 4)
        ranked = findings.explanations[0].outputs.argsort(1, descending=True)
        assert torch.equal(contrasts.others, ranked[:, 1:5])
        for k, relevance in enumerate(contrasts.relevance):
            target = Contrast(contrasts.this, contrasts.others[:, k])
            torch.testing.assert_close(relevance, whybox.method("gradient")(model(), pictures(), target))

    def test_contrasts_are_by_a_method_that_tells_for_from_against(self) -> None:
        """Exchange the classes: sensitivity does not care, guided backprop gives another map, LRP the opposite one."""
        images, _ = whybox.datasets.load("digits")
        blind = ["sensitivity_analysis", "guided_backprop"]
        found = report.collect(whybox.models.load("digits"), images[:1], [*blind, "lrp"])
        assert found.contrasts is not None
        assert found.contrasts.method["name"] == "lrp"
        fallback = report.collect(whybox.models.load("digits"), images[:1], blind).contrasts
        assert fallback is not None
        assert fallback.method["name"] == "sensitivity_analysis"

    def test_masks_are_no_contrasts(self) -> None:
        """They have neither signs nor shares, and cost a search for every class."""
        found = report.collect(model(), pictures(), ["neuro_mask(steps=2)"])
        assert found.contrasts is None
        assert "mask" in found.contrast_note
        both = report.collect(
            model(), pictures(), ["neuro_mask(steps=1)", "smooth_grad(of=sensitivity_analysis, samples=8)"]
        )
        assert both.contrasts is not None
        assert both.contrasts.method["name"] == "smooth_grad"

    def test_versus_explains_the_contrast_and_comes_first(self) -> None:
        found = report.collect(model(), pictures(), ["gradient"], 2, versus=6)
        assert isinstance(found.target, Contrast)
        assert found.contrasts is not None
        assert found.versus.tolist() == [6, 6]  # type: ignore[union-attr]
        assert found.contrasts.others[:, 0].tolist() == [6, 6]
        assert found.contrasts.others.shape == (2, 5)
        outputs = found.explanations[0].outputs
        torch.testing.assert_close(found.explanations[0].scores, outputs[:, 2] - outputs[:, 6])

    def test_a_target_outside_the_top_five_meets_all_five(self) -> None:
        outputs = net(20)(pictures())
        last = int(outputs[0].argmin())
        found = report.collect(Model(net(20)), pictures(1), ["gradient"], last)
        assert found.contrasts is not None
        assert found.contrasts.others[0].tolist() == outputs[0].argsort(descending=True)[:5].tolist()

    def test_two_classes(self) -> None:
        found = report.collect(model(2), pictures(), ["gradient"])
        assert found.contrasts is not None
        assert torch.equal(found.contrasts.others[:, 0], 1 - found.this)  # type: ignore[operator]

    @pytest.mark.parametrize("target", [None, lambda output: output.flatten(1).sum(1)])
    def test_one_output_has_no_contrasts(self, target: Any) -> None:
        found = report.collect(Model(net(1)), pictures(), ["gradient"], target)
        assert found.contrasts is None
        assert "not a choice between classes" in found.contrast_note
        assert "gives a score of" in text_of(html([found], ["a", "b"]))

    def test_one_failing_method_does_not_lose_the_rest(self) -> None:
        found = report.collect(model(), pictures(), [Refusing(), "gradient"])
        assert [type(one).__name__ for one in found.results] == ["Failure", "Explanation"]
        assert found.failures[0].message == f"this model has no {EVIL}; take another method"
        assert found.contrasts is not None
        assert found.contrasts.method == {"name": "gradient"}
        page = html([found], ["a", "b"])
        assert "could not explain this model" in text_of(page)
        assert "<script>alert" not in page

    def test_if_all_fail_so_does_it(self) -> None:
        with pytest.raises(ModelError, match="take another method"):
            report.collect(model(), pictures(), [Refusing()])

    def test_a_wrong_question_is_refused(self) -> None:
        with pytest.raises(InputError, match="no method"):
            report.collect(model(), pictures(), [])
        with pytest.raises(TargetError, match="out of range"):
            report.collect(model(), pictures(), ["gradient"], 7)
        with pytest.raises(TargetError, match="different classes"):
            report.collect(model(), pictures(), ["gradient"], 3, versus=3)
        with pytest.raises(TargetError, match="two classes"):
            report.collect(model(), pictures(), ["gradient"], whybox.Neuron("0", 1), versus=3)
        with pytest.raises(UnknownNameError, match="gradient"):
            report.collect(model(), pictures(), ["gradeint"])
        with pytest.raises(InputError, match="empty"):
            report.collect(model(), pictures(0), ["gradient"])

    def test_inside_the_model(self) -> None:
        found = report.collect(model(), pictures(), ["gradient"], at="0")
        assert found.explanations[0].relevance.shape == (2, 8, 16, 16)  # type: ignore[union-attr]
        coarse = report.collect(model(), pictures(), ["gradient"], at="2")
        assert "2 × 2 positions" in text_of(html([coarse], ["a", "b"]))


class TestRecord:
    def test_it_is_plain_and_complete(self, findings: report.Findings) -> None:
        record = json.loads(json.dumps(report.as_json(findings, ["a", "b"]), allow_nan=False))
        first = record["pictures"][0]
        assert [one["index"] for one in first["predictions"]] == findings.explanations[0].outputs[0].argsort(
            descending=True
        )[:5].tolist()
        values = findings.explanations[0].relevance[0].sum(0)  # type: ignore[union-attr]
        relevance = first["explanations"][0]["relevance"]
        assert relevance["sum"] == pytest.approx(float(values.sum()), rel=1e-4)
        np.testing.assert_allclose(relevance["map"], values, rtol=1e-5)
        assert whybox.method(**record["methods"][0]["configuration"]) == whybox.method("gradient")
        assert {"name", "value", "limit", "passed", "says"} == set(first["explanations"][0]["checks"][0])
        assert first["contrasts"]["this"] == int(findings.this[0])  # type: ignore[index]

    def test_failures_and_missing_values_are_null(self) -> None:
        found = report.collect(model(), pictures(1), [Refusing(), Constant()])
        record = json.loads(json.dumps(report.as_json(found, ["a"]), allow_nan=False))
        assert record["methods"][0]["error"].startswith("this model has no")
        assert record["pictures"][0]["explanations"][0] is None
        assert record["pictures"][0]["explanations"][1]["checks"][0]["value"] is None

    def test_a_large_map_is_left_out(self) -> None:
        found = report.collect(model(), pictures(1, 65), ["gradient"])
        assert report.as_json(found, ["a"])["pictures"][0]["explanations"][0]["relevance"]["map"] is None


class TestWriting:
    def test_a_file_as_others_write_it(self, findings: report.Findings, tmp_path: Path) -> None:
        place = tmp_path / "report.html"
        beside = tmp_path / "other"
        beside.write_text("")
        assert report.write(str(place), [findings], ["a", "b"]) == place
        assert place.read_text(encoding="utf-8").startswith("<!doctype html>")
        assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["other", "report.html"]

    def test_a_failure_leaves_the_old_file(
        self, findings: report.Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path / "report.html"
        place.write_text("old")

        def full(self: Path, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space left"):
            report.write(place, [findings], ["a", "b"])
        assert place.read_text() == "old"
        assert [one.name for one in tmp_path.iterdir()] == ["report.html"]

    def test_names_that_are_no_unicode(self, findings: report.Findings, tmp_path: Path) -> None:
        report.write(tmp_path / "report.html", [findings], [os.fsdecode(b"caf\xe9.jpg"), "b"])

    def test_a_link_stays_a_link(self, findings: report.Findings, tmp_path: Path) -> None:
        link = tmp_path / "link.html"
        link.symlink_to(tmp_path / "real.html")
        report.write(link, [findings], ["a", "b"])
        assert link.is_symlink()
        assert (tmp_path / "real.html").is_file()

    def test_what_cannot_be_written_is_known_before(self, tmp_path: Path) -> None:
        report.check_writable(tmp_path / "report.html")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(InputError, match="does not exist; make it first"):
            report.check_writable(tmp_path / "absent" / "report.html")
        with pytest.raises(InputError, match="is a folder"):
            report.check_writable(tmp_path)
        file = tmp_path / "file"
        file.write_text("")
        with pytest.raises(InputError, match="not a folder"):
            report.check_writable(file / "report.html")
        with pytest.raises(InputError, match="not an ordinary file"):
            report.check_writable(os.devnull)
        with pytest.raises(InputError, match="nothing can be written"):
            report.check_writable(tmp_path / ("x" * 300 + ".html"))

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_no_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match="Permission denied"):
            report.check_writable(tmp_path / "report.html")
        tmp_path.chmod(0o700)

    def test_no_permission_as_the_system_says_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "touch", refuse)
        with pytest.raises(InputError, match="Permission denied; give a place"):
            report.check_writable(tmp_path / "report.html")
