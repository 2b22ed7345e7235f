"""Colours, scales and figures against facts known beforehand."""

import io
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import whybox
from whybox import Domain, plot
from whybox.core.errors import InputError
from whybox.plot import AGAINST, FOR, STRENGTH, Scale

matplotlib.use("agg")


def explanation(shape: tuple[int, ...], method: str = "input_x_gradient") -> whybox.Explanation:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape[1:])), 3))
    return whybox.explain(module, torch.randn(shape), method, checks=False)


class TestScale:
    def test_the_limit_is_the_stated_percentile(self) -> None:
        values = torch.linspace(-1, 3, 1001, dtype=torch.float64)
        scale = plot.scale_of(values)
        assert scale.limit == pytest.approx(np.percentile(values.abs().numpy(), 99.5))
        assert scale.signed

    def test_a_mask_is_drawn_from_zero_to_one(self) -> None:
        """On a scale of its own an almost empty mask would look full."""
        found = replace(explanation((1, 1, 8, 8), "neuro_mask(steps=1)"), relevance=torch.full((1, 1, 8, 8), 0.1))
        assert plot.scale_for(found, 0, signed=False).limit == 1.0
        drawn = plot.explanation(found).axes[1].images[1].get_array()
        assert (np.abs(drawn[..., 3].astype(int) - 25.5) <= 1).all()
        own = replace(found, method={"name": "gradient"})
        assert plot.scale_for(own, 0, signed=False).limit == pytest.approx(0.1)

    @pytest.mark.parametrize("shape", [(1, 2, 8), (1, 8)])
    def test_bars_of_a_mask_too(self, shape: tuple[int, ...]) -> None:
        ax = plot.explanation(explanation(shape, "neuro_mask(steps=1)")).axes[-1]
        assert (0.0, 1.0) in (ax.get_xlim(), ax.get_ylim())

    def test_several_maps_share_one_scale(self) -> None:
        maps = [torch.full((10, 10), 1.0), torch.full((10, 10), 4.0)]
        assert plot.scale_of(maps) == Scale(4.0, False)

    def test_one_point_alone_still_shows(self) -> None:
        values = torch.zeros(100, 100)
        values[3, 4] = -2.0
        assert plot.scale_of(values) == Scale(2.0, True)

    def test_nothing_finite_or_nothing_at_all(self) -> None:
        assert plot.scale_of(torch.zeros(4, 4)) == Scale(0.0, False)
        assert plot.scale_of(torch.full((4, 4), torch.nan)) == Scale(0.0, False)
        assert plot.scale_of(torch.tensor([torch.inf, 1.0])) == Scale(1.0, False)

    def test_the_statement_holds_the_number(self) -> None:
        assert Scale(0.02154, True).says() == "full colour at |R| ≥ 0.0215"
        assert Scale(0.5, False).says() == "full colour at R ≥ 0.5"
        assert "zero" in Scale(0.0, False).says()

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.0, "0"),
            (0.02154, "0.0215"),
            (-1.25, "−1.25"),
            (11095.3, "11\u202f095"),
            (999.6, "1\u202f000"),
            (1.59e6, "1.59 × 10⁶"),
            (-3.4e-7, "−3.4 × 10⁻⁷"),
            (9.999e6, "1 × 10⁷"),
            (float("nan"), "—"),
            (float("-inf"), "−∞"),
        ],
    )
    def test_numbers(self, value: float, text: str) -> None:
        assert plot.number(value) == text


class TestHeat:
    def test_red_for_blue_against_nothing_for_zero(self) -> None:
        colours = plot.heat(torch.tensor([[2.0, -2.0, 0.0]]), Scale(2.0, True))
        assert colours.tolist() == [[[*FOR, 255], [*AGAINST, 255], [0, 0, 0, 0]]]
        assert FOR[0] > FOR[2]
        assert AGAINST[2] > AGAINST[0]

    def test_strength_has_one_hue(self) -> None:
        colours = plot.heat(torch.tensor([[1.0, 0.5]]), Scale(1.0, False))
        assert colours[0, :, :3].tolist() == [list(STRENGTH), list(STRENGTH)]

    def test_opacity_is_linear_and_clipped(self) -> None:
        values = torch.linspace(-2, 2, 401)[None]
        opacity = plot.heat(values, Scale(1.0, True))[0, :, 3] / 255
        np.testing.assert_allclose(opacity, values[0].abs().clamp(max=1), atol=0.5 / 127 + 1 / 255)

    def test_what_is_not_finite_is_not_drawn(self) -> None:
        colours = plot.heat(torch.tensor([[torch.nan, torch.inf, -torch.inf]]), Scale(1.0, True))
        assert not colours.any()

    def test_a_map_of_zeros_is_empty(self) -> None:
        assert not plot.heat(torch.zeros(3, 3), Scale(0.0, False)).any()

    def test_the_colour_map_ends_in_the_same_colours(self) -> None:
        signed = plot.colour_map(signed=True)
        assert [round(255 * part) for part in signed(1.0)[:3]] == list(FOR)
        assert [round(255 * part) for part in signed(0.0)[:3]] == list(AGAINST)
        assert [round(255 * part) for part in plot.colour_map(signed=False)(1.0)[:3]] == list(STRENGTH)


class TestPicture:
    def test_the_domain_becomes_black_and_white(self) -> None:
        domain = Domain((-1.0, 0.0, 2.0), (1.0, 4.0, 3.0))
        x = torch.tensor([-1.0, 4.0, 2.5]).view(3, 1, 1)
        np.testing.assert_allclose(plot.picture(x, domain), [[[0.0, 1.0, 0.5]]])

    @pytest.mark.parametrize("channels", [1, 2, 5])
    def test_other_numbers_of_channels_are_grey(self, channels: int) -> None:
        shown = plot.picture(torch.rand(channels, 4, 6), Domain((0.0,), (1.0,)))
        assert shown.shape == (4, 6, 3)
        assert (shown == shown[..., :1]).all()

    def test_a_preprocessing_that_can_display_decides(self) -> None:
        class Preprocess:
            def __call__(self, image: object) -> Tensor:
                raise NotImplementedError

            def display(self, x: Tensor) -> np.ndarray:
                return np.full((*x.shape[1:], 3), 0.25, np.float32)

        assert (plot.picture(torch.rand(3, 2, 2), Domain((0.0,), (1.0,)), Preprocess()) == 0.25).all()


class TestFigure:
    @pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 1, 8, 8), (2, 2, 30), (2, 40), (2, 1)])
    def test_every_kind_of_input(self, shape: tuple[int, ...]) -> None:
        figure = plot.explanation(explanation(shape), 1)
        assert isinstance(figure, Figure)
        figure.savefig(io.BytesIO())

    def test_pyplot_is_left_alone(self) -> None:
        from matplotlib import pyplot

        explanation((1, 3, 8, 8)).plot()
        assert pyplot.get_fignums() == []

    def test_it_draws_into_given_axes(self) -> None:
        figure = Figure()
        ax = figure.subplots()
        assert plot.explanation(explanation((1, 3, 8, 8)), ax=ax) is figure
        assert len(ax.images) == 2  # the picture in grey, and the map over it

    def test_the_colour_bar_states_the_scale(self) -> None:
        one = explanation((1, 3, 8, 8))
        bar = plot.explanation(one).axes[-1]
        limit = plot.scale_of(one.by_position()[0]).limit
        assert bar.get_ylim() == pytest.approx((-limit, limit))
        assert "99.5" in bar.get_ylabel()

    def test_a_map_without_signs_begins_at_zero(self) -> None:
        bar = plot.explanation(explanation((1, 3, 8, 8), "sensitivity_analysis")).axes[-1]
        assert bar.get_ylim()[0] == 0

    def test_features_are_named_with_their_values_strongest_on_top(self) -> None:
        one = explanation((1, 40))
        labels = [label.get_text() for label in plot.explanation(one).axes[0].get_yticklabels()]
        strongest = int(one.relevance[0].abs().argmax())
        assert len(labels) == 20
        assert labels[-1] == f"feature {strongest} = {float(one.inputs[0, strongest]):.3g}"

    def test_a_sample_that_is_not_there(self) -> None:
        with pytest.raises(InputError, match="out of range"):
            plot.explanation(explanation((1, 3, 8, 8)), 1)
