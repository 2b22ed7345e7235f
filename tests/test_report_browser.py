"""The report in a real browser: it works, it is quiet, it asks nothing of any network."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from whybox import Model, plot, report
from whybox.models import ImagePreprocess

playwright = pytest.importorskip("playwright.sync_api", reason="playwright: pip install 'whybox[dev]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
LONG = "a_very_long_name_without_any_place_to_break_it_" * 4

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@dataclass
class Seen:
    """What a page did."""

    page: Any
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


class Report:
    """A report on disk, and the browser that opens it."""

    def __init__(self, browser: Any, path: Path, findings: list[report.Findings]) -> None:
        self.browser = browser
        self.path = path
        self.findings = findings

    def open(self, width: int = 1200, **options: Any) -> Seen:
        context = self.browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda message: seen.console.append(message.text))
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
        seen.page.goto(self.path.as_uri())
        return seen


def model(name: str, label: str = "thing") -> Model:
    torch.manual_seed(len(name))
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 7)
    )
    preprocess = ImagePreprocess(resize=(24, 24), mean=(0.5,), std=(0.25,))
    return Model(module, name=name, labels=[f"{label} {i}" for i in range(7)], preprocess=preprocess)


def pictures(n: int) -> Tensor:
    return torch.rand(n, 3, 24, 24, generator=torch.Generator().manual_seed(1)) * 4 - 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def one(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One model, two pictures, three methods."""
    path = tmp_path_factory.mktemp("report") / "one.html"
    findings = [report.collect(model("net"), pictures(2), ["input_x_gradient", "gradient", "sensitivity_analysis"])]
    report.write(path, findings, ["one.png", "two.png"], "whybox explain one.png two.png --model net")
    return Report(browser, path, findings)


@pytest.fixture(scope="module")
def two(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two models side by side, with names that attack or do not break."""
    path = tmp_path_factory.mktemp("report") / "two #1?.html"
    findings = [
        report.collect(model(name, label), pictures(2), ["gradient", "sensitivity_analysis"])
        for name, label in ((LONG, LONG), (EVIL, EVIL))
    ]
    report.write(path, findings, [LONG, EVIL], f"whybox explain {LONG} {EVIL}")
    return Report(browser, path, findings)


def opacity(page: Any, selector: str) -> float:
    return float(page.locator(f"{selector} >> visible=true").first.evaluate("e => getComputedStyle(e).opacity"))


def turn_to(page: Any, i: int) -> None:
    """Choose a picture and wait for it: the browser tells a page of its new address in its own time."""
    page.locator(".pictures a").nth(i).click()
    page.locator(".picture").nth(i).wait_for(state="visible")


def shown(page: Any) -> list[bool]:
    return [picture.is_visible() for picture in page.locator(".picture").all()]


def background(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_it_is_quiet(one: Report, two: Report) -> None:
    for opened in (one, two):
        seen = opened.open()
        for button in seen.page.locator("button").all():
            button.click()
        for i in range(2):
            turn_to(seen.page, i)
        seen.page.locator(".stage >> visible=true").first.hover()
        seen.page.wait_for_timeout(200)
        assert seen.console == []
        assert seen.errors == []
        assert seen.dialogs == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [opened.path.as_uri()]


def test_the_slider_leads_from_the_picture_to_the_map(one: Report) -> None:
    page = one.open().page
    slider = page.locator(".mix input >> visible=true").first
    mixed = []
    for value in ("0", "25", "60", "100"):
        slider.fill(value)
        mixed.append((opacity(page, ".over"), opacity(page, ".under")))
    assert mixed == [(0, 1), (0.5, 1), (1, 0.8), (1, 0)]
    slider.focus()
    slider.press("Home")
    assert opacity(page, ".over") == 0


def test_the_picture_is_grey_until_wished_otherwise(one: Report) -> None:
    page = one.open().page
    style = "e => getComputedStyle(e).filter"
    under = page.locator(".under >> visible=true").first
    assert "grayscale(1)" in under.evaluate(style)
    page.locator(".grey input >> visible=true").uncheck()
    assert under.evaluate(style) == "none"


def test_the_menu_changes_the_map(one: Report) -> None:
    page = one.open().page
    option = page.locator(".option >> visible=true")
    assert option.count() == 1
    before = option.locator("img").get_attribute("src")
    contrasts = one.findings[0].contrasts
    assert contrasts is not None
    others = contrasts.others[0].tolist()
    page.locator("select >> visible=true").select_option(str(others[2]))
    assert option.count() == 1
    assert option.get_attribute("data-class") == str(others[2])
    assert option.locator("img").get_attribute("src") != before
    assert f"thing {others[2]}" in option.inner_text()


def test_a_point_is_read_from_all_maps(one: Report) -> None:
    page = one.open().page
    stages = page.locator("#picture-1 .map .stage")
    box = stages.first.bounding_box()
    stages.first.hover(position={"x": box["width"] * 10.5 / 24, "y": box["height"] * 5.5 / 24})
    for i, explanation in enumerate(one.findings[0].explanations):
        values = explanation.by_position()[0]  # type: ignore[union-attr]
        limit = plot.scale_of(values).limit
        text = page.locator("#picture-1 .map .readout").nth(i).inner_text().replace("−", "-")
        assert text.startswith("x 10, y 5: R ")
        said = float(text.split(":")[1].split(",")[0].split()[-1])
        assert said == pytest.approx(float(values[5, 10].clamp(-limit, limit)), abs=0.012 * limit, rel=0.06)
    stages.first.focus()
    stages.first.press("ArrowRight")
    stages.first.press("Shift+ArrowDown")
    assert "x 11, y 15" in page.locator("#picture-1 .map .readout").nth(2).inner_text()


def test_one_picture_at_a_time(one: Report) -> None:
    page = one.open().page
    first, second = page.locator("#picture-1"), page.locator("#picture-2")
    assert shown(page) == [True, False]
    turn_to(page, 1)
    assert shown(page) == [False, True]
    assert page.locator(".pictures a").nth(1).get_attribute("aria-current") == "true"
    page.locator(".pictures a").nth(1).press("ArrowLeft")
    first.wait_for(state="visible")
    assert shown(page) == [True, False]
    first.locator(".glance a").click()
    assert page.locator("#trust-1").is_visible()
    page.go_back()
    page.go_back()
    second.wait_for(state="visible")


def test_without_scripts_all_is_there(one: Report) -> None:
    page = one.open(java_script_enabled=False).page
    assert all(shown(page))
    assert page.locator(".option >> visible=true").count() == 2 * 4
    assert page.locator(".mix >> visible=true").count() == 0
    assert page.locator("select >> visible=true").count() == 0


def test_on_paper_all_is_there(one: Report) -> None:
    page = one.open(color_scheme="dark").page
    page.emulate_media(media="print")
    assert all(shown(page))
    assert page.locator(".option >> visible=true").count() == 2 * 4
    assert background(page) == "rgb(255, 255, 255)"


def test_light_and_dark(one: Report) -> None:
    light, dark = (background(one.open(color_scheme=scheme).page) for scheme in ("light", "dark"))
    assert light != dark
    page = one.open(color_scheme="dark").page
    page.locator(".theme").click()
    assert background(page) == light
    page.reload()
    assert background(page) == light  # remembered
    page.locator(".theme").click()
    assert background(page) == dark


@pytest.mark.parametrize("width", [320, 375, 768, 1200])
def test_nothing_is_wider_than_the_screen(one: Report, two: Report, width: int) -> None:
    for opened in (one, two):
        page = opened.open(width).page
        for i in range(2):
            turn_to(page, i)
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_all_controls_are_named(one: Report) -> None:
    page = one.open().page
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a, img, [role=img], [role=group]")]
        .filter(e => !(e.getAttribute("aria-label") || e.alt || e.textContent.trim() || e.closest("label")))
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []


def test_text_stands_out_from_its_background(one: Report) -> None:
    contrast = """() => {
        const light = (colour) => {
            const [r, g, b] = colour.match(/[0-9.]+/g).map((v) => v / 255)
                .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        const texts = "p, b, h1, h2, h3, h4, a, dd, dt, li, figcaption, .mark, .minus, .plus, .strong";
        return [...document.querySelectorAll(texts)]
            .filter((e) => e.offsetParent && e.textContent.trim() && !e.closest("td"))
            .map((e) => light(getComputedStyle(e).color))
            .map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05));
    }"""
    for scheme in ("light", "dark"):
        ratios = one.open(color_scheme=scheme).page.evaluate(contrast)
        assert len(ratios) > 50
        assert min(ratios) >= 4.5
