"""The page: what it says is what was found, nothing from outside gets in as markup, nothing is loaded."""

import re
from html import unescape

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import whybox
from report_cases import EVIL, QUICK, Refusing, model, pictures, pictures_in, plain, text_of
from whybox import plot, report
from whybox.core.errors import InputError
from whybox.report.maps import map_view
from whybox.report.names import percent
from whybox.report.view import view
from whybox.report.write import html


@pytest.fixture(scope="module")
def findings() -> report.Findings:
    return report.collect(model(), pictures(), QUICK)


class TestPage:
    def test_the_verdict_in_words_and_numbers(self, findings: report.Findings) -> None:
        best, second = findings.explanations[0].predictions(0, 2)
        text = text_of(html([findings], ["one.png", "two.png"]))
        assert plain(f"small net sees “{best.label}” ({percent(best.probability)}), ") in text
        assert plain(f"“{second.label}” ({percent(second.probability)}).") in text

    def test_nothing_from_outside_is_markup(self) -> None:
        odd = model(labels=[EVIL] * 7, name=EVIL)
        found = report.collect(odd, pictures(1), ["gradient"])
        page = html([found], [EVIL], f"whybox explain {EVIL}")
        harmless = html([report.collect(model(), pictures(1), ["gradient"])], ["a"], "whybox")
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert page.count("<script") == harmless.count("<script") == 2
        assert EVIL in unescape(page)
        for attribute in re.findall(r'="([^"]*)"', page):
            assert "<" not in attribute

    def test_nothing_is_loaded(self, findings: report.Findings) -> None:
        page = html([findings], ["a", "b"])
        for source in re.findall(r"(?:src|srcset|poster|data|action)\s*=\s*\"([^\"]*)\"", page):
            assert source.startswith("data:")
        for place in re.findall(r"url\(([^)]*)\)", page):
            assert place.startswith("data:")
        assert "@import" not in page
        assert re.findall(r"<link [^>]*href=\"([^\"]*)\"", page) == ["data:,"]
        policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[0]
        assert policy.startswith(
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        )

    def test_the_input_is_the_picture(self, findings: report.Findings) -> None:
        shown = np.asarray(pictures_in(html([findings], ["a", "b"]))[0], dtype=float) / 255
        wanted = (pictures()[0] * 0.25 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(shown, wanted, atol=0.51 / 255)

    def test_a_large_input_is_nearly_the_picture(self) -> None:
        smooth = nn.functional.interpolate(pictures(1, 6), 384, mode="bicubic")
        found = report.collect(model(), smooth, ["gradient"])
        shown = np.asarray(pictures_in(html([found], ["a"]))[0], dtype=float) / 255
        wanted = (smooth[0] * 0.25 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
        assert np.abs(shown - wanted).mean() < 0.01

    def test_the_map_holds_the_relevance_on_the_stated_scale(self, findings: report.Findings) -> None:
        page = html([findings], ["a", "b"])
        colours = np.asarray(pictures_in(page)[1], dtype=float)
        values = findings.explanations[0].relevance[0].sum(0).numpy()  # type: ignore[union-attr]
        limit = float(re.findall(r'data-limit="([^"]+)"', page)[0])
        assert limit == pytest.approx(np.percentile(np.abs(values), 99.5))
        stated = f"full colour at |R| ≥ {plot.number(limit)}; sum {plot.number(float(values.sum()))}"
        assert plain(stated) in text_of(page)
        sign = np.where(colours[..., 0] > colours[..., 2], 1, -1)
        np.testing.assert_allclose(sign * colours[..., 3] / 255, np.clip(values / limit, -1, 1), atol=0.01)

    def test_contrasts_share_one_scale(self, findings: report.Findings) -> None:
        page = html([findings], ["a", "b"])
        section = page[page.index('<div class="contrast">') :]
        limits = re.findall(r'data-limit="([^"]+)"', section[: section.index('<div class="leads">')])
        maps = torch.stack([relevance[0].sum(0) for relevance in findings.contrasts.relevance])  # type: ignore[union-attr]
        assert len(limits) == 4
        assert len(set(limits)) == 1
        assert float(limits[0]) == pytest.approx(np.percentile(maps.abs().numpy(), 99.5))

    def test_tiny_pictures_are_crisp(self, findings: report.Findings) -> None:
        assert 'class="shown crisp"' in html([findings], ["a", "b"])
        large = report.collect(model(), pictures(1, 100), ["gradient"])
        assert 'class="shown crisp"' not in html([large], ["a"])

    def test_four_methods_at_224_stay_under_a_megabyte(self) -> None:
        noise = torch.randn(1, 3, 224, 224)
        found = report.collect(model(), noise, [*QUICK, "smooth_grad(samples=2)"])
        assert len(html([found], ["noise.png"]).encode()) < 1_000_000

    def test_several_pictures_and_models(self, findings: report.Findings) -> None:
        other = report.collect(model(name="other net"), pictures(), ["gradient", Refusing()])
        page = html([findings, other], ["one.png", "two.png"])
        assert re.findall(r'<article class="picture[^"]*" id="([^"]+)" aria-label="([^"]+)"', page) == [
            ("picture-1", "one.png"),
            ("picture-2", "two.png"),
        ]
        assert re.findall(r'<a href="#(picture-\d)"', page) == ["picture-1", "picture-2"]
        assert page.count('<div class="verdict">') == 4
        assert page.count('class="unseen"') == 2 * 3  # one method alone has nobody to agree with
        assert len(re.findall(r"^\.under-\d+ ", page, re.MULTILINE)) == 2  # each picture once, for both models

    def test_one_method_has_the_same_colours_in_both_models(self) -> None:
        class Same(nn.Module):
            def __init__(self, sign: float) -> None:
                super().__init__()
                self.sign = sign

            def forward(self, x: Tensor) -> Tensor:
                return torch.stack([self.sign * x.flatten(1).sum(1), x.flatten(1).sum(1) * 0], 1)

        found = [report.collect(Same(sign), pictures(1), ["gradient"], 0) for sign in (1.0, -1.0)]
        page = html(found, ["a"])
        assert re.findall(r'data-signed="(\d)"', page)[:2] == ["1", "1"]

    def test_names_must_fit(self, findings: report.Findings) -> None:
        for wrong in (["a"], ["a", "b", "c"]):
            with pytest.raises(InputError, match="one name for each picture"):
                html([findings], wrong)
            with pytest.raises(InputError, match="names"):
                report.as_json(findings, wrong)
        with pytest.raises(InputError, match="one name for each picture"):
            html([], [])

    def test_it_can_be_reproduced(self, findings: report.Findings) -> None:
        page = html([findings], ["a.png", "b.png"], "whybox explain 'a b.png' --model digits")
        code = [unescape(one) for one in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.DOTALL)]
        command, python, configuration = code
        assert command == "whybox explain 'a b.png' --model digits"
        compile(python, "python", "exec")
        assert "whybox.models.load('digits')" in python
        assert f"target={findings.this.tolist()}, seed=0" in python  # type: ignore[union-attr]
        read = yaml.safe_load(configuration)
        built = [whybox.method(**config) for config in read["models"][0]["methods"]]
        assert built == [whybox.method(name) for name in QUICK]
        assert read["seed"] == 0
        assert f"torch {torch.__version__}" in text_of(page)
        assert "Simonyan, Vedaldi & Zisserman 2013" in text_of(page)

    def test_how_models_are_loaded_again(self) -> None:
        from whybox.report.reproduce import load_by_name

        assert (
            load_by_name("torchvision:x (random weights)")
            == "model = whybox.models.load('torchvision:x', weights='random')"
        )
        assert load_by_name("torchvision:x (w.pt)") == "model = whybox.models.load('torchvision:x', weights='w.pt')"
        assert load_by_name("digits") == "model = whybox.models.load('digits')"
        assert load_by_name("My\nNet") == "model = ...  # your own: My Net"

    @pytest.mark.parametrize("shape", [(2, 30), (2, 4, 25)])
    def test_what_is_no_picture_is_drawn_too(self, shape: tuple[int, ...]) -> None:
        module = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape[1:])), 3))
        found = report.collect(module, torch.randn(shape), ["gradient", "sensitivity_analysis"])
        page = html([found], ["a", "b"])
        assert 'class="drawn"' in page
        assert " predicts " in text_of(page)


class TestFragment:
    @pytest.mark.parametrize("shape", [(2, 3, 16, 16), (6, 1, 8, 8), (2, 9), (2, 2, 20)])
    def test_it_shows_every_kind_of_input(self, shape: tuple[int, ...]) -> None:
        module = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape[1:])), 3))
        one = whybox.explain(module, torch.randn(shape), "gradient")
        text = one._repr_html_()
        assert "<script" not in text
        assert len(pictures_in(text)) == min(shape[0], 4) * (2 if len(shape) == 4 else 1)
        assert ("and 2 more" in text) == (shape[0] == 6)

    def test_it_escapes(self) -> None:
        text = report.fragment(whybox.explain(model(labels=[EVIL] * 7, name=EVIL), pictures(1), "gradient"))
        assert "<script" not in text
        assert EVIL in unescape(text)


def test_no_sum_is_shown_where_a_place_has_the_value_of_its_region() -> None:
    found = report.collect(model(), pictures(), ["gradient", "kernel_shap(regions=Patches(size=4), samples=64)"])
    gradient, shap = (map_view(one, 0, "a map", signed=True).total for one in found.explanations)
    assert gradient
    assert not shap


def test_a_mask_has_the_scale_of_all_masks_and_no_sum() -> None:
    found = report.collect(model(), pictures(), ["neuro_mask(steps=2)"])
    shown = map_view(found.explanations[0], 0, "a map", signed=False)
    assert (shown.limit, shown.total) == (1.0, "")
    assert report.as_json(found, ["a", "b"])["pictures"][0]["explanations"][0]["relevance"]["full_colour"] == 1.0
    assert "percentile)" not in found.explanations[0]._repr_html_()


def test_a_contrast_without_signs_is_drawn_in_one_colour_and_has_no_sum_over_regions() -> None:
    found = report.collect(model(), pictures(), ["sensitivity_analysis"])
    contrast = view([found], ["a", "b"], "").pictures[0].models[0].contrast
    assert contrast is not None
    assert not any(option.map.signed for option in contrast.options)
    found = report.collect(model(), pictures(), ["kernel_shap(regions=Patches(size=4), samples=64)"])
    contrast = view([found], ["a", "b"], "").pictures[0].models[0].contrast
    assert contrast is not None
    assert all(option.map.signed and not option.map.total for option in contrast.options)
    assert "the relevance sums to" not in html([found], ["a", "b"])
