"""The film of a mask: where it is drawn, on which scale, and where it is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whybox
from report_cases import model, pictures, pictures_in
from whybox import Domain, Explanation, Model, NeuroMask, plot, report
from whybox.plot import STRENGTH
from whybox.plot.film import film_of
from whybox.report.film import film_view
from whybox.report.write import html

SIZE = 16
FOUND = (slice(4, 8), slice(10, 14))  # what the last frame keeps


def masks() -> Tensor:
    """Three frames for each of two samples: everything at half strength, the upper half, one square."""
    frames = torch.zeros(2, 3, SIZE, SIZE)
    frames[:, 0] = 0.5
    frames[:, 1, :8] = 0.25
    frames[(slice(None), 2, *FOUND)] = torch.tensor([0.5, 1.0])[:, None, None]
    return frames


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    found = whybox.explain(model(), pictures(2), NeuroMask(steps=6, film=3), checks=False)
    return replace(found, details={**found.details, "film": masks()})


def test_a_search_that_was_filmed_is_drawn_below() -> None:
    found = whybox.explain(model(), pictures(2), NeuroMask(steps=6, film=4), checks=False)
    strip = plot.explanation(found, 1).subfigs[1].axes
    assert [ax.get_title() for ax in strip] == ["0%", "33%", "67%", "100%"]
    assert film_of(found, 1).shape == (4, SIZE, SIZE)
    assert torch.equal(film_of(found.sample(1), 0), found.details["film"][1])


def test_a_single_frame_is_the_last() -> None:
    found = whybox.explain(model(), pictures(1), NeuroMask(steps=6, film=1), checks=False)
    assert torch.equal(film_of(found, 0), found.relevance[0])
    (strip,) = plot.explanation(found).subfigs[1].axes
    assert strip.get_title() == "100%"


@pytest.mark.parametrize(("sample", "full"), [(0, 127), (1, 255)])
def test_frames_are_drawn_from_zero_to_one(explanation: Explanation, sample: int, full: int) -> None:
    shown = [np.asarray(ax.images[0].get_array()) for ax in plot.explanation(explanation, sample).subfigs[1].axes]
    assert (shown[2][FOUND][..., :3] == STRENGTH).all()
    assert (np.abs(shown[2][FOUND][..., 3].astype(int) - full) <= 2).all()
    assert (np.abs(shown[0][..., 3].astype(int) - 127) <= 2).all()
    assert not shown[1][8:].any()


def test_nothing_is_drawn_below_without_one(explanation: Explanation) -> None:
    unfilmed = replace(explanation, details={})
    assert film_of(unfilmed, 0) is None
    assert film_view(unfilmed, 0, "NeuroMask") is None
    assert not plot.explanation(unfilmed).subfigs
    ax = plot.explanation(unfilmed).axes[1]
    assert plot.explanation(explanation, ax=ax) is ax.figure  # into given axes the relevance alone


def test_a_series_has_a_row_for_each_frame() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            odds = 12 * (x[:, :, 20:24].mean((1, 2)) - 0.5)
            return torch.stack((-odds, odds), 1)

    series = Model(Late(), domain=Domain((0.0,), (1.0,)))
    x = torch.rand(1, 2, 32, generator=torch.Generator().manual_seed(0))
    found = whybox.explain(series, x, NeuroMask(steps=12, film=3), 1, checks=False)
    (ax,) = plot.explanation(found).subfigs[1].axes
    assert np.asarray(ax.images[0].get_array()).shape == (3, 32, 4)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0%", "50%", "100%"]
    assert film_view(found, 0, "NeuroMask") is None


def test_the_strip_of_the_report(explanation: Explanation) -> None:
    view = film_view(explanation, 1, "NeuroMask")
    assert view is not None
    assert (view.frames, view.width, view.height, view.crisp) == (3, 3 * SIZE + 2, SIZE, True)
    strip = np.asarray(pictures_in(f'<img src="{view.uri}">')[0])
    assert strip.shape == (SIZE, 3 * SIZE + 2, 4)
    assert not strip[:, [SIZE, 2 * SIZE + 1], 3].any()  # the gaps show what is behind
    last = strip[:, 2 * SIZE + 2 :, :3]
    assert (last[FOUND] == STRENGTH).all()
    outside = np.ones((SIZE, SIZE), dtype=bool)
    outside[FOUND] = False
    assert (last[outside] == last[outside][:, :1]).all()  # grey


def test_the_report_and_the_fragment_hold_it() -> None:
    findings = report.collect(model(), pictures(2), [NeuroMask(steps=6, film=3), "gradient"])
    assert html([findings], ["a", "b"]).count("How NeuroMask found it") == 2
    assert html([report.collect(model(), pictures(1), ["gradient"])], ["a"]).count('class="film"') == 0
    assert findings.explanations[0]._repr_html_().count("Its masks from the start") == 2
