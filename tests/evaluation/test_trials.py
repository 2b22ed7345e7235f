"""Trials: a right map passes, a reversed one fails, one that knows nothing is at 0; on inputs of every kind."""

import pytest
import torch
from known_evidence import Known, colours, planted
from torch import Tensor, nn

from whybox import CentreBlob, Contrast, Domain, Model, RandomMap
from whybox.evaluation.trials import RANDOM, RANDOM_MAPS, outside_the_tile, trials


def additive(*shape: int, certain: float = 4.0) -> tuple[Model, Tensor, Tensor]:
    """A linear net with bright evidence in a fifth of the places, its inputs, and what each value contributes."""
    generator = torch.Generator().manual_seed(0)
    where = (torch.rand(1, *shape[1:], generator=generator) < 0.2).double().expand(shape)
    weight = certain * where / where.sum()
    x = torch.rand(6, *shape, generator=generator, dtype=torch.float64)
    x = torch.where(where > 0, 0.8 + 0.2 * x, x)
    linear = nn.Linear(weight.numel(), 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.stack((torch.zeros_like(weight), weight)).flatten(1))
        linear.bias.zero_()
    return Model(nn.Sequential(nn.Flatten(), linear), domain=Domain((0.0,), (1.0,))), x, x * weight


@pytest.mark.parametrize("shape", [(2, 12, 12), (2, 40), (1, 30)], ids=["pictures", "series", "table"])
def test_right_and_reversed(shape: tuple[int, ...]) -> None:
    model, x, right = additive(*shape)
    if shape == (1, 30):
        x, right = x[:, 0], right[:, 0]
    found = trials(model, x, 1, [right, -right])
    assert len(found) == 2
    assert len({trial.infill for trial in found}) == 2
    for trial in found:
        assert (trial.scores[0] > 0).all()
        assert torch.allclose(trial.scores[1], -trial.scores[0], atol=1e-6)
        assert all(RANDOM not in trial.ahead(0, sample) for sample in range(6))
        assert all(RANDOM in trial.ahead(1, sample) for sample in range(6))


def test_what_knows_nothing_is_at_zero() -> None:
    given = planted(60)
    noise = [RandomMap()(given.model, given.inputs, given.target, seed=seed) for seed in range(100, 104)]
    for trial in trials(given.model, given.inputs, given.target, noise):
        scores = torch.cat(trial.scores)
        assert abs(float(scores.mean())) < 4 * float(scores.std()) / len(scores) ** 0.5
        best = trial.controls[RANDOM]
        beaten = torch.stack(trial.scores) > best
        assert float(beaten.double().mean()) == pytest.approx(1 / (RANDOM_MAPS + 1), abs=0.1)


def test_token_numbers() -> None:
    class Votes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 2)
            with torch.no_grad():
                self.embedding.weight.zero_()
                self.embedding.weight[:, 1] = torch.arange(9.0)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.embedding(tokens).mean(1)

    tokens = torch.tensor([[8, 1, 1, 1, 2, 1, 1, 7], [1, 1, 8, 1, 1, 1, 6, 2]])
    zero = next(trial for trial in trials(Votes(), tokens, 1, [tokens.float()]) if trial.infill == "Zero")
    assert (zero.scores[0] > 0).all()
    assert set(zero.controls) == {RANDOM}


def test_a_target_that_is_no_class_is_followed_by_its_score() -> None:
    model, x, right = additive(1, 30)
    found = trials(model, x, Contrast(1, 0), [right])
    assert all(trial.metric["follows"] == "score" for trial in found)
    assert all((trial.scores[0] > 0).all() for trial in found)


def test_a_prediction_that_nothing_shakes_is_not_telling() -> None:
    model, x, right = additive(2, 12, 12, certain=1000.0)
    for trial in trials(model, x, 1, [right]):
        assert not trial.telling.any()
    model, x, right = additive(2, 12, 12)
    for trial in trials(model, x, 1, [right]):
        assert trial.telling.all()


def test_what_is_asked_of_the_model() -> None:
    given = planted(2)
    asked = []
    given.model.module.register_forward_pre_hook(lambda _, x: asked.append(len(x[0])))
    trials(given.model, given.inputs, given.target, [given.perfect])
    assert sum(asked) == 2 * (1 + 2 * 2 * 5 * (1 + 4 + 3))


def test_nan_has_no_score() -> None:
    given = planted(2)
    broken = given.perfect.clone()
    broken[0, 0, 0, 0] = torch.nan
    for trial in trials(given.model, given.inputs, given.target, [broken]):
        assert trial.scores[0].isnan().tolist() == [True, False]


def test_relevance_outside_the_tile_of_a_mosaic() -> None:
    """The exact map lies where its class is seen; one that knows nothing lies there by a quarter."""
    given = colours(16)
    blind = CentreBlob()
    relevances = [given.perfect, blind(given.model, given.inputs, given.target)]
    right, wrong = outside_the_tile(given.model, given.inputs, given.target, relevances, [Known(), blind])
    assert bool(right.passed[~right.values.isnan()].all())
    assert float(right.values.nanmean()) < 0.1
    assert wrong.values[~wrong.values.isnan()].tolist() == pytest.approx([0.75] * int((~wrong.values.isnan()).sum()))


def test_no_mosaic_of_too_few() -> None:
    given = planted(3)
    assert outside_the_tile(given.model, given.inputs, given.target, [given.perfect], [Known()]) == ()
    given = planted(8)  # all of one class
    assert outside_the_tile(given.model, given.inputs, given.target, [given.perfect], [Known()]) == ()
