"""Where the score went: the sentence adds up, the table is the trace, nothing from outside is markup."""

import re
from html import unescape
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import whybox
from report_cases import EVIL, model, pictures, text_of
from whybox import LRP, Explanation, Model, report
from whybox.report.trace import MOST_ROWS, trace_view
from whybox.report.write import html


def as_number(text: str) -> float:
    return float(text.replace("−", "-").replace("\u202f", ""))


def terms(says: str) -> tuple[float, dict[str, float]]:
    """The score and the signed parts of "score 12.3 = relevance 10.1 + biases 2.2"."""
    score, _, parts = says.removeprefix("score ").partition(" = ")
    found = re.findall(r"(^|[+−] )([a-z ]+) ([−\d.\u202f]+)", parts)
    return as_number(score), {name: (-1 if sign == "− " else 1) * as_number(value) for sign, name, value in found}


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return whybox.explain(model(), pictures(), LRP("epsilon"))


class TestView:
    @pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1"])
    def test_the_sentence_adds_up(self, composite: str) -> None:
        explanation = whybox.explain(model(), pictures(), LRP(composite))
        for sample in range(2):
            view = trace_view(explanation, sample, "LRP")
            assert view is not None
            score, parts = terms(view.says)
            relevance = explanation.relevance[sample]  # type: ignore[index]
            assert score == pytest.approx(float(explanation.scores[sample]), rel=1e-3)
            assert parts["relevance"] == pytest.approx(float(relevance.sum()), rel=1e-3)
            assert parts["biases"] == pytest.approx(float(explanation.details["absorbed"]["bias"][sample]), rel=1e-2)
            assert sum(parts.values()) == pytest.approx(score, abs=3e-3 * max(map(abs, parts.values())))
            assert all(parts.values()), "a cause that takes nothing is not named"

    def test_what_is_not_accounted_for_is_said(self, explanation: Explanation) -> None:
        view = trace_view(explanation, 0, "LRP")
        assert view is not None
        assert "not accounted for" not in view.says
        explanation = whybox.explain(model(), pictures(), LRP("epsilon"))
        explanation.details["absorbed"]["bias"] += 1.0
        broken = trace_view(explanation, 0, "LRP")
        assert broken is not None
        assert terms(broken.says)[1]["not accounted for"] == pytest.approx(-1, abs=1e-2)

    def test_the_rows_are_the_trace(self, explanation: Explanation) -> None:
        view, trace = trace_view(explanation, 1, "LRP"), explanation.details["trace"]
        assert view is not None
        assert view.causes == ("biases",)
        assert [row.kind for row in view.rows] == [step["kind"] for step in trace["steps"]]
        assert {"conv2d", "relu", "linear"} <= {row.name for row in view.rows}
        for i, row in enumerate(view.rows):
            wanted = (trace["at_output"][1, i], trace["at_input"][1, i], trace["absorbed"]["bias"][1, i])
            for text, value in zip(row.numbers, wanted, strict=True):
                assert as_number(text or "0") == pytest.approx(float(value), abs=1e-3)

    def test_no_trace_no_view(self) -> None:
        assert trace_view(whybox.explain(model(), pictures(), "gradient"), 0, "Gradient") is None
        assert trace_view(whybox.explain(model(), pictures(), "lrp", checks=False), 0, "LRP") is None

    def test_it_survives_saving(self, explanation: Explanation, tmp_path: Path) -> None:
        explanation.save(tmp_path / "saved.safetensors")
        loaded = Explanation.load(tmp_path / "saved.safetensors")
        assert loaded.details["trace"]["steps"] == explanation.details["trace"]["steps"]
        for sample in range(2):
            assert trace_view(loaded, sample, "LRP") == trace_view(explanation, sample, "LRP")
            assert trace_view(loaded.sample(sample), 0, "LRP") == trace_view(explanation, sample, "LRP")


class Deep(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.depth):
            x = x.flip(1)
        return x.flatten(1)[:, :3]


class TestPage:
    def test_it_unfolds_without_a_script(self, explanation: Explanation) -> None:
        page = html([report.collect(model(), pictures(), [LRP("epsilon"), "gradient"])], ["a", "b"])
        assert page.count('<div class="trace">') == 2
        assert page.count("<details>") == page.count("<summary>") == 2
        view = trace_view(explanation, 0, "LRP")
        assert view is not None
        assert f"LRP : {view.says}." in text_of(page)
        table = page[page.index("<tbody>", page.index('<div class="trace">')) :]
        assert table[: table.index("</tbody>")].count("<tr>") == len(view.rows)

    def test_without_a_trace_there_is_no_section(self) -> None:
        assert 'class="trace' not in html([report.collect(model(), pictures(), ["gradient"])], ["a", "b"])

    def test_names_of_modules_are_escaped(self) -> None:
        evil = EVIL.replace(".", "")
        module = nn.Sequential()
        module.add_module(evil, nn.Conv2d(3, 2, 16))
        module.add_module("flat", nn.Flatten())
        page = html([report.collect(Model(module), pictures(1), ["lrp"])], ["a"])
        assert "<script>alert" not in page
        assert f"<td>{evil}<td>" in unescape(page)
        notebook = whybox.explain(module, pictures(1), "lrp")._repr_html_()
        assert "<script>alert" not in notebook
        assert evil in unescape(notebook)

    def test_a_very_deep_net_is_cut_short(self) -> None:
        depth = MOST_ROWS + 100
        explanation = whybox.explain(Deep(depth), pictures(1), "lrp")
        view = trace_view(explanation, 0, "LRP")
        assert view is not None
        assert len(view.rows) == MOST_ROWS
        assert view.omitted == len(explanation.details["trace"]["steps"]) - MOST_ROWS > 100
        notebook = explanation._repr_html_()
        assert notebook.count("<tr>") <= MOST_ROWS + 1
        assert f"{view.omitted} more are left out" in notebook
        assert len(notebook) < 200_000

    def test_in_a_notebook(self, explanation: Explanation) -> None:
        notebook = explanation._repr_html_()
        assert notebook.count("<details>") == 2
        assert "<script" not in notebook


def test_json(explanation: Explanation) -> None:
    first, second = (
        one["explanations"]
        for one in report.as_json(report.collect(model(), pictures(), [LRP("epsilon"), "gradient"]), ["a", "b"])[
            "pictures"
        ]
    )
    assert first[1]["trace"] is first[1]["conservation"] is None
    parts = second[0]["conservation"]
    assert sum(parts.values()) == pytest.approx(float(explanation.scores[1]), rel=1e-4)
    trace = explanation.details["trace"]
    assert [{name: one[name] for name in ("name", "module", "kind", "rule")} for one in second[0]["trace"]] == list(
        trace["steps"]
    )
    given = torch.tensor([one["at_output"] for one in second[0]["trace"]], dtype=torch.float64)
    assert torch.allclose(given, trace["at_output"][1], rtol=1e-4)
