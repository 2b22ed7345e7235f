"""The way to a contrast in a real browser: its slider moves it, by mouse, keys, on paper and without scripts."""

from typing import Any

import pytest

import whybox
from test_report_browser import Report, browser, pytestmark  # noqa: F401
from whybox import CDeepEx, Contrast, report
from whybox.datasets import load

FRAMES = 5


@pytest.fixture(scope="module")
def contrasted(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Report:  # noqa: F811
    """A held-out 4, why it is no 9, without any map."""
    path = tmp_path_factory.mktemp("report") / "change.html"
    images, _ = load("digits", split="test")
    model = whybox.models.load("digits")
    findings = [report.collect(model, images[94:95], [CDeepEx(film=FRAMES, starts=1)], Contrast(None, None))]
    report.write(path, findings, ["four.png"], "whybox contrast four.png --model digits --versus 9")
    return Report(browser, path, findings)


def place(page: Any) -> float:
    """How far the pictures are shifted, in pictures."""
    return float(
        page.evaluate(
            """() => {
            const [seen, frames] = [".window", ".frames"].map((s) => document.querySelector(s).getBoundingClientRect());
            return (seen.left - frames.left) / seen.width;
            }"""
        )
    )


def test_the_slider_leads_from_the_picture_to_the_contrast(contrasted: Report) -> None:
    seen = contrasted.open()
    slider, share = seen.page.locator(".morph input"), seen.page.locator(".morph .share").first
    assert place(seen.page) == pytest.approx(FRAMES - 1, abs=0.02)
    at_the_end = share.inner_text()
    slider.focus()
    slider.press("Home")
    assert place(seen.page) == pytest.approx(0, abs=0.02)
    assert share.inner_text() == "93\u202f%"
    assert slider.get_attribute("aria-valuetext").startswith("4 93\u202f%, 9 1.5\u202f%")
    slider.press("ArrowRight")
    assert place(seen.page) == pytest.approx(1, abs=0.02)
    slider.press("End")
    assert share.inner_text() == at_the_end
    seen.page.locator(".change .stage").hover()
    assert ": change " in seen.page.locator(".change .readout").inner_text()
    assert seen.console == []
    assert seen.errors == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [contrasted.path.as_uri()]


def test_on_paper_and_without_scripts_the_whole_way_is_there(contrasted: Report) -> None:
    paper = contrasted.open().page
    paper.emulate_media(media="print")
    for page in (paper, contrasted.open(java_script_enabled=False).page):
        box, window = page.locator(".frames").bounding_box(), page.locator(".window").bounding_box()
        assert box["width"] == pytest.approx(window["width"], abs=1)
        assert page.locator(".morph input").is_visible() is False


@pytest.mark.parametrize("width", [320, 375, 768])
def test_nothing_is_wider_than_the_screen(contrasted: Report, width: int) -> None:
    assert contrasted.open(width).page.evaluate("document.documentElement.scrollWidth") <= width
