"""MeaningfulPerturbation: a literal loop of its own, an analytic detector, what its terms are for, where it fails."""

import numpy
import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn

from whybox import Blur, Contrast, Domain, MeaningfulPerturbation, Model, Zero, explain
from whybox.attribution.masks.masked import Masked, Places
from whybox.core.errors import InputError
from whybox.core.start import started
from whybox.report.facts import facts, facts_text

UNIT = Domain((0.0,), (1.0,))
SIZE = 56
MIDDLE = (slice(18, 38), slice(18, 38))
ASIDE = (slice(14, 38), slice(24, 48))


class Texture(nn.Module):
    """Class 1 where a square is textured: log-odds 36 (t − ½), t = 3 mean |x[j + 1] − x[j]|, 1 for uniform noise."""

    def __init__(self, rows: slice, columns: slice) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        texture = 3 * x.diff(dim=3)[..., self.rows, self.columns].abs().mean((1, 2, 3))
        odds = 36 * (texture - 0.5)
        return torch.stack((-odds, odds), 1) / 2


def noise(n: int = 2, size: int = SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def overlap(mask: Tensor, rows: slice, columns: slice) -> Tensor:
    """Intersection over union of the mask's upper half and the square (n,)."""
    truth = torch.zeros_like(mask, dtype=torch.bool)
    truth[..., rows, columns] = True
    marked = mask > 0.5
    return (marked & truth).flatten(1).sum(1) / (marked | truth).flatten(1).sum(1)


def roughness(mask: Tensor) -> Tensor:
    """The total variation of a mask (n,)."""
    return sum(mask.diff(dim=axis).abs().flatten(1).sum(1) for axis in (2, 3))


@pytest.mark.parametrize("place", [MIDDLE, ASIDE], ids=["middle", "aside"])
def test_an_analytic_square_is_found(place: tuple[slice, slice]) -> None:
    found = MeaningfulPerturbation().run(Model(Texture(*place), domain=UNIT), noise(), 1)
    assert found.relevance.shape == (2, 1, SIZE, SIZE)
    assert ((found.relevance >= 0) & (found.relevance <= 1)).all()
    assert (overlap(found.relevance, *place) >= 0.8).all()
    assert (found.details["original_probability"] > 0.99).all()
    assert (found.details["left_probability"] < 0.01).all()
    assert all(bool(check.passed.all()) for check in found.checks)


def test_a_random_mask_of_equal_area_lowers_the_score_less() -> None:
    """The same values of the mask at other places; and a whole square of that area elsewhere, whose edge is as long."""
    model, x = Model(Texture(*ASIDE), domain=UNIT), noise()
    mask = MeaningfulPerturbation()(model, x, 1)
    order = torch.randperm(SIZE * SIZE, generator=torch.Generator().manual_seed(0))
    blurred = Blur(10.0).fill(x, UNIT, ())

    def left(relevance: Tensor) -> Tensor:
        return model(torch.lerp(x, blurred, relevance)).softmax(1)[:, 1]

    assert (left(mask) < 0.01).all()
    assert (left(mask.flatten(2)[..., order].view_as(mask)) > 0.5).all()
    assert (left(mask.roll(SIZE // 2, 3)) > 0.5).all()


def test_variation_and_jitter_keep_the_mask_together() -> None:
    model, x = Model(Texture(*MIDDLE), domain=UNIT), noise()
    together = MeaningfulPerturbation(softness=0.0, jitter=16)(model, x, 1)
    alone = MeaningfulPerturbation(softness=0.0, jitter=0, variation=0.0)(model, x, 1)
    assert (roughness(alone) > 1.5 * roughness(together)).all()
    assert (overlap(alone, *MIDDLE) < overlap(together, *MIDDLE)).all()


def literal(net: nn.Module, x: Tensor, offsets: list[list[int]]) -> Tensor:
    """One picture (1, 56, 56), slowly: 28 × 28 cells of 2 × 2 pixels, all lengths of the mask a quarter of the paper's.

    Gives 1 − M after as many steps as there are offsets.
    """
    picture = x[0].numpy()
    blurred = scipy.ndimage.gaussian_filter(picture, 10.0)

    def probability(kept: Tensor, down: int, right: int) -> Tensor:
        rows = (numpy.arange(SIZE) - down).clip(0, SIZE - 1)
        columns = (numpy.arange(SIZE) - right).clip(0, SIZE - 1)
        clear, hidden = (torch.tensor(one[rows][:, columns]) for one in (picture, blurred))
        return net((clear * kept + hidden * (1 - kept))[None, None]).softmax(1)[0, 1]

    discs, scores = [], []
    for radius in range(0, 175, 5):
        disc = numpy.zeros((SIZE, SIZE))
        for i in range(SIZE):
            for j in range(SIZE):
                disc[i, j] = ((i - 27.5) ** 2 + (j - 27.5) ** 2) ** 0.5 < radius / 4
        discs.append(scipy.ndimage.gaussian_filter(disc, 2.5))
        scores.append(float(probability(torch.tensor(1 - discs[-1]), 0, 0)))
    chosen = next(
        disc for disc, p in zip(discs, scores, strict=True) if p - scores[-1] < 0.01 * (scores[0] - scores[-1])
    )
    cells = torch.tensor(1 - chosen[1::2, 1::2]).requires_grad_()

    def enlarged() -> Tensor:
        large = cells.repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
        reach = torch.arange(-5, 6, dtype=torch.float64)
        bell = torch.exp(-((reach / 1.25) ** 2) / 2)
        bell = bell / bell.sum()
        padded = torch.nn.functional.pad(large, (5, 5, 5, 5), mode="replicate")
        return torch.nn.functional.conv2d(padded, bell[:, None] * bell[None, :][None, None])[0, 0]

    descent = torch.optim.Adam([cells], lr=0.1)
    for down, right in offsets:
        variation = 0.0
        for i in range(28):
            for j in range(28):
                below = cells[i + 1, j] - cells[i, j] if i < 27 else cells[0, 0] * 0
                beside = cells[i, j + 1] - cells[i, j] if j < 27 else cells[0, 0] * 0
                square = below**2 + beside**2
                variation = variation + square.clamp_min(1e-10) ** 1.5
        loss = probability(enlarged(), down, right) + 1e-4 * (1 - cells).abs().sum() + 1e-2 * variation
        descent.zero_grad()
        loss.backward()
        descent.step()
        with torch.no_grad():
            cells.clamp_(0, 1)
    return 1 - enlarged().detach()


def test_it_is_what_a_literal_loop_gives() -> None:
    """To 1e-9, the pictures moved by the same draws."""
    x, net = noise(dtype=torch.float64), Texture(*ASIDE)
    with started(net, x, 1) as task:
        masked = Masked(task, Places.of(task), Zero(), 4)
        draws = torch.stack([masked.offsets(torch.arange(2), step) for step in range(4)], 1)
    assert set(draws.flatten().tolist()) <= {-2, -1, 0, 1}
    assert len(set(draws.flatten().tolist())) > 2
    for steps in (0, 1, 4):  # jitter to four places, in a picture of a quarter of the size
        found = MeaningfulPerturbation(jitter=16, steps=steps + 1)(Model(net, domain=UNIT), x, 1)
        for sample in range(2):
            slow = literal(net, x[sample], draws[sample, :steps].tolist())
            assert torch.allclose(found[sample, 0], slow, atol=1e-9)


def test_a_batch_is_as_good_as_one_by_one() -> None:
    model, x = Model(Texture(*MIDDLE), domain=UNIT, chunk=2), noise(3)
    together = MeaningfulPerturbation(steps=30, jitter=16).run(model, x, 1)
    alone = MeaningfulPerturbation(steps=30, jitter=16).run(Model(Texture(*MIDDLE), domain=UNIT), x[:1], 1)
    assert torch.allclose(together.relevance[:1], alone.relevance, atol=1e-6)
    assert torch.allclose(together.details["losses"][:1], alone.details["losses"], atol=1e-6)
    still = MeaningfulPerturbation(steps=30, jitter=0)
    assert torch.allclose(still(model, x, 1)[2:], still(model, x[2:], 1), atol=1e-6)
    other = MeaningfulPerturbation(steps=30, jitter=16).run(model, x, 1, seed=1)
    assert not torch.equal(other.relevance, together.relevance)


def test_what_is_asked_of_the_model() -> None:
    """35 discs, a forward and a backward for each step, and a forward for the mask."""
    found = MeaningfulPerturbation(steps=20).run(Model(Texture(*MIDDLE), domain=UNIT), noise(), torch.tensor([1, 1]))
    assert found.details["evaluations"].tolist() == [55, 55]
    assert (found.forwards, found.backwards) == (2 * 56, 2 * 20)
    assert found.details["losses"].shape == (2, 20)


@pytest.mark.parametrize("shape", [(24, 24), (20, 60), (7, 7), (1, 9), (250, 230)])
def test_pictures_of_any_size(shape: tuple[int, int]) -> None:
    x = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    found = MeaningfulPerturbation(steps=3, film=2).run(net, x)
    assert found.relevance.shape == (1, 1, *shape)
    assert found.details["film"].shape == (1, 2, *shape)
    assert ((found.relevance >= 0) & (found.relevance <= 1)).all()


def test_a_target_that_is_no_class() -> None:
    found = MeaningfulPerturbation(steps=50).run(Model(Texture(*MIDDLE), domain=UNIT), noise(), Contrast(1, 0))
    assert set(found.details) == {"left_score", "original_score", "area", "losses", "evaluations"}
    assert (found.details["left_score"] < found.details["original_score"]).all()
    assert found.checks[1].name == "score not lowered"


def test_a_class_that_is_not_lowered_is_said() -> None:
    """Whatever is blurred of a picture in one colour, it stays as it is."""
    x = torch.ones(2, 1, SIZE, SIZE)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    found = MeaningfulPerturbation(steps=5).run(net, x, 0)
    check = next(check for check in found.checks if check.name == "class not lowered")
    assert not check.passed.any()
    assert (found.details["area"] >= 0).all()


def test_what_is_known_beside_the_map_is_shown() -> None:
    """In the report's captions, on the terminal and in JSON: what is a single number of each sample."""
    model = Model(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), domain=UNIT)
    explanation = explain(model, noise(1, 6), method=MeaningfulPerturbation(steps=3))
    known = facts(explanation, 0)
    assert set(known) == {"left_probability", "area", "evaluations", "original_probability"}
    assert known["evaluations"] == 38
    assert known["left_probability"] == float(explanation.details["left_probability"][0])
    text = facts_text(explanation, 0)
    assert text.startswith("left probability ")
    assert "evaluations 38" in text


def test_a_search_that_diverges_is_said_and_gives_no_nan() -> None:
    class Fragile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            odds = x.diff(dim=3).abs().mean((1, 2, 3)).sub(0.25).sqrt()  # NaN where much is blurred
            return torch.stack((-odds, odds), 1)

    found = MeaningfulPerturbation().run(Model(Fragile(), domain=UNIT), noise(), 1)
    diverged = next(check for check in found.checks if check.name == "search that diverged")
    assert not diverged.passed.any()
    assert torch.isfinite(found.relevance).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision(dtype: torch.dtype) -> None:
    x = noise().to(dtype)
    found = MeaningfulPerturbation().run(Model(Texture(*MIDDLE), domain=UNIT), x, 1)
    assert found.relevance.dtype == dtype
    assert (overlap(found.relevance.float(), *MIDDLE) > 0.75).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"area": -1.0},
        {"variation": float("nan")},
        {"power": 0.5},
        {"cell": 0.0},
        {"softness": -1.0},
        {"rate": 0.0},
        {"jitter": -1},
        {"film": -1},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        MeaningfulPerturbation(**wrong)  # type: ignore[arg-type]
