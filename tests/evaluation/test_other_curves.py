"""Pixel flipping, ROAD, IROF and token deletion, each against a literal loop over one sample and one step at a time."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import whybox
from whybox import IROF, ROAD, Constant, Domain, Imputed, Model, PixelFlipping, Superpixels, TokenDeletion, Zero
from whybox.core.errors import InputError


def net(channels: int = 2) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).double()


def pictures(n: int = 5, size: int = 7, channels: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shape = (n, channels, size, size)
    return tuple(torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))


def falls(f, x, ordered, removed, change, answer):
    """The mean of f(x) − f(x changed at the first so many places), one forward at a time."""
    with torch.no_grad():
        start = answer(f(x[None]))
        values = [start - answer(f(change(x.clone(), ordered[:count])[None])) for count in removed]
    return sum(values) / len(values)


def pixels_in_order(relevance):
    """The pixels (row, column), most relevant first."""
    total = relevance.sum(0)
    places = [(i, j) for i in range(total.shape[0]) for j in range(total.shape[1])]
    return sorted(places, key=lambda place: -float(total[place]))


def test_pixel_flipping():
    f, (x, relevance) = net(), pictures()
    found = PixelFlipping(levels=6, upto=0.5).run(Model(f, domain=Domain((0.0, -1.0), (1.0, 2.0))), x, 2, relevance)

    def flip(picture, places):
        for i, j in places:
            picture[0, i, j] = 1 - picture[0, i, j]
            picture[1, i, j] = 1 - picture[1, i, j]
        return picture

    for i in range(len(x)):
        ordered, removed = pixels_in_order(relevance[i]), found.details["removed"][i].tolist()
        assert removed == [round(24 * k / 6) for k in range(7)]  # 49 / 2, rounded to even
        expected = falls(f, x[i], ordered, removed, flip, lambda out: float(out[0, 2]))
        assert float(found.values[i]) == pytest.approx(expected, abs=1e-12)


def test_at_least_one_pixel_is_flipped():
    f, (x, relevance) = net(), pictures()
    found = PixelFlipping(upto=0.004).run(f, x, 2, relevance)
    assert found.details["removed"].tolist() == [[0, 1]] * 5


def test_road():
    """Every sample has a score of its own, wherever the chunks end: not only those of the first batch."""
    f, (x, relevance) = net(), pictures(5)
    metric = ROAD(levels=3, noise=0.0)
    found = metric.run(Model(f, chunk=2), x, 2, relevance)

    def impute(picture, places):
        hidden = torch.zeros(1, 1, *picture.shape[1:], dtype=torch.bool)
        for i, j in places:
            hidden[..., i, j] = True
        return Imputed().fill(picture[None], Domain((0.0,), (1.0,)), [], hidden)[0]

    for i in range(len(x)):
        ordered, removed = pixels_in_order(relevance[i]), found.details["removed"][i].tolist()
        assert removed == [0, 15, 29, 44]
        expected = falls(f, x[i], ordered, removed, impute, lambda out: float(out.softmax(1)[0, 2]))
        assert float(found.values[i]) == pytest.approx(expected, abs=1e-9)
    assert len(set(found.values.tolist())) == 5
    assert found.forwards == 5 * 4


def test_irof():
    f, (x, relevance) = net(3), pictures(3, 24, 3)
    x = nn.functional.interpolate(x[..., :6, :6], (24, 24), mode="bicubic")  # so that segments differ in size
    regions = Superpixels(9)
    found, labels = IROF(regions).run(Model(f), x, 1, relevance), regions.labels(x)
    counts = [int(part.max()) + 1 for part in labels]
    for i in range(len(x)):
        segments = [labels[i, 0] == k for k in range(counts[i])]
        ordered = sorted(segments, key=lambda segment, i=i: -float(relevance[i][:, segment].mean()))
        picture, mean = x[i].clone(), x[i].mean((1, 2))
        removed = found.details["removed"][i].tolist()
        with torch.no_grad():
            start = float(f(picture[None]).softmax(1)[0, 1])
            left = []
            for before, now in zip([0, *removed], removed, strict=False):
                for segment in ordered[before:now]:
                    picture[:, segment] = mean[:, None]
                left.append(float(f(picture[None]).softmax(1)[0, 1]) / start)
        pieces = zip(pairwise(left), pairwise(removed), strict=True)
        area = sum((a + b) / 2 * (n - m) / counts[i] for (a, b), (m, n) in pieces)
        assert removed[-1] == counts[i]
        assert float(found.values[i]) == pytest.approx(1 - area, abs=1e-9)


def test_irof_of_a_class_without_probability():
    x = torch.rand(2, 1, 16, 16)

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sure = torch.tensor([[1e4, 0.0]]).expand(len(x), 2)
            return sure + 0 * x.flatten(1).sum(1, keepdim=True)

    found = IROF(Superpixels(4)).run(Model(Sure()), x, torch.tensor([0, 1]), x)
    assert found.skipped["a probability of zero"].tolist() == [False, True]
    assert float(found.values[0]) == pytest.approx(0, abs=1e-6)
    assert torch.isnan(found.values[1])


class Words(nn.Module):
    """Votes of words: log-odds of class 1 are the sum of the words' weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 1)
        with torch.no_grad():
            self.embedding.weight.copy_(torch.linspace(-1, 1, 20)[:, None])
            self.embedding.weight[7] = 0  # the mask token

    def forward(self, tokens: Tensor) -> Tensor:
        votes = self.embedding(tokens).sum((1, 2))
        return torch.stack((torch.zeros_like(votes), votes), 1)


def test_token_deletion():
    """Of words that vote, deleting the strongest voters first lowers the score most; in closed form."""
    tokens = torch.tensor([[19, 0, 15, 10, 3], [12, 18, 1, 16, 17]])
    weight = Words().embedding.weight.detach()[:, 0]
    votes = weight[tokens]
    metric = TokenDeletion(tokens=3, infill=Constant(7), follows="score")
    found = metric.run(Words(), tokens, 1, votes)
    gone = votes.sort(1, descending=True).values[:, :3].cumsum(1)
    assert torch.allclose(found.values, gone.sum(1).double() / 4, atol=1e-6)
    assert found.details["removed"].tolist() == [[0, 1, 2, 3]] * 2
    least = TokenDeletion(tokens=3, infill=Constant(7), follows="score", order="least")(Words(), tokens, 1, votes)
    both = TokenDeletion(tokens=3, infill=Constant(7), follows="score", order="both")(Words(), tokens, 1, votes)
    assert (least < found.values).all()
    assert torch.allclose(both, found.values - least)


def test_token_deletion_of_embeddings():
    """Rows of embeddings are deleted whole."""
    x = torch.rand(3, 6, 4, dtype=torch.float64)
    head = nn.Sequential(nn.Flatten(), nn.Linear(24, 2)).double()
    relevance = x * head[1].weight[1].view(6, 4).detach()
    found = TokenDeletion(tokens=6, follows="score").run(head, x, 1, relevance)
    by_token = relevance.sum(2).sort(1, descending=True).values.cumsum(1)
    assert torch.allclose(found.values, by_token.sum(1) / 7)


def test_a_token_deletion_longer_than_the_text():
    tokens = torch.tensor([[19, 0, 15]])
    found = TokenDeletion(tokens=9, infill=Constant(7)).run(Words(), tokens, 1, torch.tensor([[3.0, 1.0, 2.0]]))
    assert found.details["removed"].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"upto": 0.0}, {"upto": 1.5}, {"noise": -1.0}, {"noise": math.inf}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(InputError):
        ROAD(**wrong)
    with pytest.raises(InputError):
        TokenDeletion(tokens=0)
    with pytest.raises(InputError, match="order"):
        whybox.metric("pixel_flipping(order='mots')")


def test_tokens_cannot_become_fractions():
    with pytest.raises(InputError, match="cannot replace"):
        PixelFlipping()(Words(), torch.tensor([[1, 2]]), 1, torch.rand(1, 2))
    assert TokenDeletion(infill=Zero())(Words(), torch.tensor([[1, 2]]), 1, torch.rand(1, 2)).shape == (1,)
