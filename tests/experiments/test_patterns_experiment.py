"""PatternNet's study: its measures on what is known."""

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.patterns import distractor, page, quality


def test_only_the_pattern_leaves_nothing_that_tells_of_the_answer() -> None:
    """x = (1, 0, 0) y + (1, 1, 0) ε + (0, 0, 1) η, w = (1, −1, 0): x − (1, 0, 0) wᵀx knows ε and η only."""
    y, noise, other = torch.randn(3, 4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = y * torch.tensor([1.0, 0, 0]) + noise * torch.tensor([1.0, 1, 0]) + other * torch.tensor([0, 0, 1.0])
    w = torch.tensor([1.0, -1.0, 0.0]).double()

    def rho(*a: float) -> float:
        left = x - (x @ w)[:, None] * torch.tensor(a).double()
        return quality.rho((x[:2000] @ w, left[:2000]), (x[2000:] @ w, left[2000:]))

    found = [rho(1.0, 0.0, 0.0), rho(0.5, -0.5, 0.0)]
    assert found[0] > 0.95
    above, below = (quality.side(x, w, y[:, 0] * sign > 0) for sign in (1, -1))
    for one in (above, below):
        assert (one - torch.tensor([1.0, 0, 0])).abs().max() < 0.1
    # Left is (½, ½) (y + 2ε): its correlation with y is 1 / √5.
    assert found[1] == pytest.approx(1 - 1 / math.sqrt(5), abs=0.05)


def test_the_filter_turns_away_from_the_signal_and_the_pattern_does_not() -> None:
    upright, slanted = (distractor.measure(angle, 1.0, 0) for angle in (90, 30))
    assert upright["Gradient"]["signal"] > 0.99
    assert slanted["Gradient"]["signal"] == pytest.approx(slanted["filter"]["signal"], abs=1e-6)
    assert slanted["filter"]["signal"] < 0.6
    for found in (upright, slanted):
        assert found["PatternNet"]["signal"] > 0.99
        assert found["PatternAttribution"]["share"] > 0.99


def test_the_tables() -> None:
    values = {
        name: {"signal": 0.5, "share": math.nan if name == "filter" else 0.25}
        for name in ("filter", *distractor.METHODS)
    }
    known = {"distractor 90 1.0": [values] * 12, "distractor 60 1.0": [values] * 12}
    said = page.cosines(known, "share", [(90, 1.0), (60, 1.0)])
    assert said.splitlines()[0] == "| Method | 90° | 60° |"
    assert "filter" not in said
    assert "| PatternNet | 0.250 [0.250, 0.250] | 0.250 [0.250, 0.250] |" in said
