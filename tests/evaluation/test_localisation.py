"""Localisation against literal loops, closed forms of chance, and the faults that other tools have had."""

import itertools
import math

import pytest
import torch
from planted import planted
from torch import Tensor, nn

from whybox import AUC, EnergyInBox, IoU, PointingGame, RandomMap, RelevanceMass, RelevanceRank
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.metric import case as as_case
from whybox.evaluation.truth import box_around, inside

METRICS = (PointingGame(tolerance=1.5), RelevanceMass(), RelevanceRank(), EnergyInBox(), IoU(), AUC())
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
HEIGHT, WIDTH = 7, 9


class Brightness(nn.Module):
    """A model for inputs of any shape: these metrics do not ask it."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.double().flatten(1).sum(1)
        return torch.stack((total, -total), 1)


def run(metric, relevance, truth, inputs=None):
    inputs = torch.rand(len(relevance), 3, *relevance.shape[2:]) if inputs is None else inputs
    return metric.run(Brightness(), inputs, 0, relevance, truth=truth)


def by_chance(metric, inputs, truth):
    with started(Brightness(), inputs, 0) as task:
        return metric.chance(as_case(Samples(task), torch.zeros_like(inputs), truth=truth))


def maps(n=6, channels=3):
    """Signed maps with many ties, and masks of several sizes."""
    generator = torch.Generator().manual_seed(3)
    relevance = torch.randn(n, channels, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    relevance[::2] = relevance[::2].round()
    truth = torch.rand(n, HEIGHT, WIDTH, generator=generator) < torch.linspace(0.1, 0.9, n)[:, None, None]
    return relevance, truth


def counted(relevance: Tensor, part: str) -> dict:
    """What counts at each place, from one picture's relevance (c, h, w)."""
    of = {"positive": lambda r: max(r, 0), "negative": lambda r: max(-r, 0), "absolute": abs, "signed": lambda r: r}
    places = itertools.product(range(HEIGHT), range(WIDTH))
    return {(i, j): of[part](sum(float(r) for r in relevance[:, i, j])) for i, j in places}


def by_hand(metric, value: dict, truth: set) -> float:
    """The score of one picture, place by place."""
    places, total = list(value), sum(value.values())
    if isinstance(metric, PointingGame):
        best = [p for p in places if value[p] == max(value.values())]
        return sum(any(math.dist(p, q) <= metric.tolerance for q in truth) for p in best) / len(best)
    if isinstance(metric, RelevanceMass):
        return sum(value[p] for p in truth) / total
    if isinstance(metric, EnergyInBox):
        rows, columns = [p[0] for p in truth], [p[1] for p in truth]
        box = [p for p in places if min(rows) <= p[0] <= max(rows) and min(columns) <= p[1] <= max(columns)]
        return sum(value[p] for p in box) / total
    if isinstance(metric, RelevanceRank):
        last = sorted(value.values(), reverse=True)[len(truth) - 1]
        above, tied = ({p for p in places if value[p] > last}, {p for p in places if value[p] == last})
        drawn = (len(truth) - len(above)) * len(tied & truth) / len(tied)  # the mean of the hypergeometric
        return (len(above & truth) + drawn) / len(truth)
    if isinstance(metric, IoU):
        ordered = sorted(value.values())
        threshold = ordered[math.floor(metric.quantile * (len(ordered) - 1))]
        high = {p for p in places if value[p] > threshold or value[p] == ordered[-1]}
        return len(high & truth) / len(high | truth)
    pairs = [(value[p], value[q]) for p in truth for q in places if q not in truth]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("part", ["positive", "negative", "absolute", "signed"])
@every_metric
def test_against_loops(metric, part):
    relevance, truth = maps()
    metric = type(metric)(**{**vars(metric), "part": part})
    found = run(metric, relevance, truth)
    for i in range(len(relevance)):
        marked = {(int(a), int(b)) for a, b in truth[i].nonzero()}
        assert float(found.values[i]) == pytest.approx(by_hand(metric, counted(relevance[i], part), marked), abs=1e-12)
    assert found.forwards == 0


@every_metric
def test_chance_is_what_random_maps_get(metric):
    """Also in pictures of odd sizes, for objects of every size."""
    n = 3000
    truth = torch.zeros(n, HEIGHT, WIDTH, dtype=torch.bool)
    truth[:1000, 1:3, 2:4] = True
    truth[1000:2000, 0:4, 5:] = True
    truth[2000:, 1:, :3] = truth[2000:, 5, 8] = True
    inputs = torch.zeros(n, 1, HEIGHT, WIDTH)
    scores = run(metric, RandomMap()(Brightness(), inputs, 0), truth, inputs).values
    expected = by_chance(metric, inputs, truth)
    for rows in (slice(0, 1000), slice(1000, 2000), slice(2000, 3000)):
        error = scores[rows].std() / 1000**0.5
        assert abs(scores[rows].mean() - expected[rows].mean()) < 4 * error
        assert expected[rows].unique().numel() == 1


def test_chance_is_known_or_none():
    relevance, truth = maps()
    assert by_chance(RelevanceMass(part="signed"), relevance, truth) is None
    assert by_chance(IoU(quantile=0.4), relevance, truth) is None  # half of a random map does not count
    assert by_chance(IoU(part="absolute", quantile=0.4), relevance, truth) is not None


@every_metric
def test_the_truth_itself_is_the_best_map(metric):
    truth = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    truth[:, 2:4, 3:6] = True
    perfect = truth[:, None].double()
    assert run(metric, perfect, truth).values.tolist() == [1.0]
    assert run(metric, 1 - perfect, truth).values.item() < 0.5
    wrong = torch.zeros_like(perfect)
    wrong[..., 6, 0] = 1.0
    assert run(metric, wrong, truth).values.item() < 0.5


@every_metric
def test_fault_empty_masks_are_no_hits(metric):
    """A picture without an object was counted as found; it has no score, and is counted as skipped."""
    relevance, truth = maps(3)
    truth[1] = False
    found, alone = run(metric, relevance, truth), run(metric, relevance[2:], truth[2:])
    assert math.isnan(found.values[1])
    assert found.skipped["truth that marks no place"].tolist() == [False, True, False]
    assert found.values[2] == alone.values[0]
    assert math.isnan(by_chance(metric, relevance, truth)[1])
    nowhere = run(metric, relevance, torch.zeros_like(truth))
    assert nowhere.values.isnan().all()
    assert all(value.isnan().all() for value in nowhere.details.values())


@every_metric
def test_fault_rgb_input_with_maps_of_one_channel(metric):
    relevance, truth = maps()
    one = relevance.sum(1, keepdim=True)
    assert torch.equal(run(metric, one, truth).values, run(metric, relevance, truth).values)


@every_metric
def test_fault_callers_arrays_are_not_changed(metric):
    relevance, truth = maps()
    copies = relevance.clone(), truth.clone()
    run(metric, relevance, truth)
    assert torch.equal(relevance, copies[0])
    assert torch.equal(truth, copies[1])


@every_metric
def test_a_map_without_what_counts_has_no_score(metric):
    relevance, truth = maps(3)
    relevance[1] = -relevance[1].abs()
    relevance[2] = 0.0
    found = run(metric, relevance, truth)
    assert found.skipped["no relevance of the part that counts"].tolist() == [False, True, True]
    assert found.values.isnan().tolist() == [False, True, True]
    opposite = type(metric)(**{**vars(metric), "part": "negative"})
    assert torch.isfinite(run(opposite, relevance, truth).values[1])


def test_a_constant_map_scores_as_by_chance():
    """It knows nothing: ties are broken in nobody's favour."""
    truth = maps()[1]
    flat = torch.ones(len(truth), 1, HEIGHT, WIDTH, dtype=torch.float64)
    for metric in METRICS:
        if not isinstance(metric, IoU):
            expected = by_chance(metric, flat, truth)
            assert torch.allclose(run(metric, flat, truth).values, expected), type(metric).__name__


def test_truth_that_marks_everything_has_no_outside():
    relevance, truth = maps(3)
    truth[1] = True
    found = run(AUC(), relevance, truth)
    assert found.values.isnan().tolist() == [False, True, False]
    assert found.skipped["truth that marks every place"].tolist() == [False, True, False]
    assert run(RelevanceMass(), relevance, truth).values[1] == 1


def test_tolerance_is_a_distance_and_stays_within_a_sample():
    """A hit at exactly 15 pixels, a miss at 16; the mask of the next picture is no help."""
    relevance = torch.zeros(4, 1, 40, 40)
    for i, place in enumerate([(0, 15), (0, 16), (9, 12), (11, 11)]):
        relevance[i, 0, *place] = 1.0
    truth = torch.zeros(4, 40, 40, dtype=torch.bool)
    truth[:, 0, 0] = True
    found = run(PointingGame(), relevance, truth)
    assert found.values.tolist() == [1, 0, 1, 0]
    assert run(PointingGame(tolerance=0.0), relevance, truth).values.tolist() == [0, 0, 0, 0]
    truth[1] = relevance[1, 0] > 0
    assert run(PointingGame(), relevance, truth).values.tolist() == [1, 1, 1, 0]


def test_the_pointing_game_stands_beside_its_middle():
    relevance, truth = torch.rand(2, 1, 9, 8), torch.zeros(2, 9, 8, dtype=torch.bool)
    truth[0, 4, 4] = True  # the middle of an even side lies between two pixels: one of them hits
    truth[1, 0, 0] = True
    assert run(PointingGame(tolerance=0.0), relevance, truth).details["centre"].tolist() == [0.5, 0]


def test_boxes_are_half_open_cut_and_united():
    x = torch.zeros(2, 3, 5, 6)
    marked = inside(torch.tensor([[[1, 0, 3, 2], [4, 3, 99, 99]], [[-7, -7, 1, 1], [0, 0, 0, 0]]]), x)
    expected = torch.zeros(2, 5, 6, dtype=torch.bool)
    expected[0, 0:2, 1:3] = expected[0, 3:5, 4:6] = expected[1, 0, 0] = True
    assert torch.equal(marked, expected)
    assert torch.equal(inside(torch.tensor([[1, 0, 3, 2], [0, 0, 6, 5]]), x)[1], torch.ones(5, 6, dtype=torch.bool))


@every_metric
def test_boxes_and_the_masks_they_cover_score_alike(metric):
    relevance, _ = maps(2)
    boxes = torch.tensor([[2, 1, 5, 4], [0, 0, 4, 7]])
    assert torch.equal(run(metric, relevance, boxes).values, run(metric, relevance, inside(boxes, relevance)).values)


def test_boxes_are_not_joined_to_one():
    """Only a mask needs a box around it; two boxes stay two."""
    relevance, truth = torch.ones(1, 1, 4, 4), torch.tensor([[[0, 0, 1, 1], [3, 3, 4, 4]]])
    assert run(EnergyInBox(), relevance, truth).values.item() == pytest.approx(2 / 16)
    assert run(EnergyInBox(), relevance, inside(truth, relevance)).values.item() == 1


def test_the_box_around_a_mask():
    masks = torch.zeros(3, 5, 6, dtype=torch.bool)
    masks[0, 1, 4] = masks[0, 3, 2] = True
    masks[1, 2, 2] = True
    expected = masks.clone()
    expected[0, 1:4, 2:5] = True
    assert torch.equal(box_around(masks), expected)


@every_metric
def test_series_tables_and_tokens(metric):
    """The places of a series are its steps, those of a table and of a text its columns."""
    relevance = torch.tensor([[0.1, 2.0, 3.0, -4.0, 0.2]])
    truth = torch.tensor([[False, True, True, False, False]])
    tokens, table = torch.tensor([[5, 1, 3, 3, 9]]), torch.rand(1, 5)
    text = run(metric, relevance, truth, tokens).values
    assert torch.equal(text, run(metric, relevance, truth, table).values)
    assert text.item() >= 0.5
    split = torch.stack((relevance + 1, -torch.ones(1, 5)), 1)  # a series of two channels
    for mask in (truth, truth[:, None]):
        score = run(metric, split, mask, torch.rand(1, 2, 5)).values
        assert score.item() == pytest.approx(text.item(), abs=1e-6)


def test_columns_of_a_table_are_no_neighbours():
    relevance, truth = torch.tensor([[0.0, 1.0]]), torch.tensor([[True, False]])
    assert run(PointingGame(), relevance, truth, torch.rand(1, 2)).values.item() == 0
    assert run(PointingGame(), relevance[:, None], truth, torch.rand(1, 1, 2)).values.item() == 1


def test_axes_that_a_map_does_not_tell_apart():
    """A map of rows alone counts for every pixel of a row."""
    rows = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
    truth = torch.tensor([[[False, False, False], [True, True, False]]])
    assert run(RelevanceMass(), rows, truth, torch.rand(1, 3, 2, 3)).values.item() == pytest.approx(6 / 12)


@pytest.mark.parametrize(
    ("truth", "match"),
    [
        (torch.ones(2, 3, 4, 4, dtype=torch.bool), "boolean mask of shape"),
        (torch.ones(2, 5, 4, dtype=torch.bool), "boolean mask of shape"),
        (torch.ones(2, 1, 4, 4), "boolean mask of shape"),
        (torch.ones(2, 4, 4, dtype=torch.uint8), "boolean mask of shape"),
        (torch.tensor([[1.0, 1.0, 2.0, 2.0]] * 2), "integer boxes"),
        (torch.tensor([[3, 3, 2, 4]] * 2), "x0, y0, x1, y1, not x, y, width, height"),
    ],
)
def test_truth_of_no_known_form_is_refused(truth, match):
    with pytest.raises(InputError, match=match):
        run(RelevanceMass(), torch.rand(2, 1, 4, 4), truth)


def test_boxes_are_for_pictures():
    with pytest.raises(InputError, match=r"boolean mask of shape \(2, 9\), not"):
        run(RelevanceMass(), torch.rand(2, 9), torch.tensor([[0, 0, 1, 1]] * 2), torch.rand(2, 9))


def test_fields_out_of_range_are_refused():
    for wrong in (lambda: PointingGame(tolerance=-1.0), lambda: IoU(quantile=1.0), lambda: IoU(quantile=-0.1)):
        with pytest.raises(InputError):
            wrong()


def test_planted_square_is_found_and_its_absence_is_not():
    """The exact contributions score 1; those of the places around the square, 0."""
    given = planted()
    outside = torch.rand_like(given.perfect) * ~given.truth
    for metric in (PointingGame(tolerance=0.0), RelevanceMass(), RelevanceRank(), EnergyInBox(), AUC()):
        scores = [
            metric(given.model, given.inputs, 1, relevance, truth=given.truth) for relevance in (given.perfect, outside)
        ]
        assert torch.allclose(scores[0], torch.ones(4).double()), type(metric).__name__
        assert (scores[1] <= 0.1).all(), type(metric).__name__


def test_a_map_of_truth_values_is_refused():
    relevance, truth = torch.ones(2, 1, 4, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(InputError, match="real numbers"):
        RelevanceMass()(nn.Flatten(), torch.rand(2, 1, 4, 4), 1, relevance, truth=truth)
