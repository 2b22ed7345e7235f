"""Texts in a real browser: they can be read, in light and dark, wide and narrow, on paper; nothing is fetched."""

import shutil
from typing import Any

import pytest
import torch
from small_models import Bag, word_pieces
from torch import nn

import whybox
from whybox import report
from whybox.plot.words import contrast

playwright = pytest.importorskip("playwright.sync_api", reason="playwright: pip install 'whybox[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

LONG = "a dull film with unbelievable warmth, not good, " * 12
WEIGHTS = {"good": 2.0, "wonderful": 3.0, "dull": -3.0, "not": -1.0, "film": 0.4}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A report of two texts and two methods, and the fragment of a notebook."""
    transformers = pytest.importorskip("transformers", reason="transformers: pip install 'whybox[hf]'")
    root = tmp_path_factory.mktemp("texts")
    tokenizer = word_pieces(transformers)
    net: nn.Module = Bag([WEIGHTS.get(word, 0.0) for word in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])
    texts = ["a dull film, not good at all", LONG]
    question = whybox.text.ask(net, tokenizer, texts)
    methods = ["input_x_gradient", "sensitivity_analysis"]
    found = report.collect(question.model, question.inputs, methods, 1, at=question.at).of_texts(question.passages)
    report.write(root / "texts.html", [found], texts)
    page = f"<!doctype html><meta charset=utf-8><title>n</title>{found.explanations[0]._repr_html_()}"
    (root / "fragment.html").write_text(page, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def browser() -> Any:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def colour(text: str) -> tuple[int, ...]:
    return tuple(int(float(part)) for part in text[text.index("(") + 1 : -1].replace(",", " ").split()[:3])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
@pytest.mark.parametrize("name", ["texts.html", "fragment.html"])
def test_every_token_can_be_read(browser: Any, paths: Any, name: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, color_scheme=scheme)
    page, errors, requests = context.new_page(), [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((paths / name).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sheet = page.locator(".passage >> visible=true").first
    assert colour(sheet.evaluate("e => getComputedStyle(e).backgroundColor")) == (255, 255, 255)
    seen = sheet.locator("span[title]").evaluate_all(
        "all => all.map(e => [e.title, getComputedStyle(e).color, getComputedStyle(e).backgroundColor, "
        "getComputedStyle(e).textDecorationLine])"
    )
    assert [one[0].partition(":")[0] for one in seen] == [
        "[CLS]", "a", "dull", "film", ",", "not", "good", "at", "all", "[SEP]",
    ]  # fmt: skip
    for title, ink, back, line in seen:
        on = (255, 255, 255) if back == "rgba(0, 0, 0, 0)" else colour(back)
        assert contrast(colour(ink), on) > 4.5, title
        assert (line == "underline") == ("−" in title), "the sign is told not by the colour alone"
    assert not errors
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()


def test_the_texts_beside_each_other(browser: Any, paths: Any) -> None:
    """The method's name stands above its text; the other text is one click away."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto((paths / "texts.html").as_uri())
    name = page.locator(".map figcaption b >> visible=true").first.bounding_box()
    text = page.locator(".map .passage >> visible=true").first.bounding_box()
    assert name["y"] + name["height"] <= text["y"]
    assert page.locator(".passage >> visible=true").count() == 2
    page.locator(".pictures a").nth(1).click()
    page.locator(".picture").nth(1).wait_for(state="visible")
    assert page.locator(".passage >> visible=true").first.bounding_box()["height"] > 2 * text["height"]
    assert "dull" in page.locator(".strongest >> visible=true").first.inner_text()
    page.close()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
