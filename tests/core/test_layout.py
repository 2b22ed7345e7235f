"""One value per position, wherever the relevance stands: summed over the axis that is no position."""

import torch
from torch import nn

import whybox
from whybox.core.layout import by_position


def test_at_the_input_the_channels_are_summed():
    relevance = torch.randn(2, 3, 4, 5)
    assert torch.equal(by_position(relevance, torch.zeros(2, 3, 4, 5)), relevance.sum(1))
    table = torch.randn(2, 7)
    assert torch.equal(by_position(table, table), table)


def test_tokens_and_channels_last_maps_are_laid_out_over_the_picture():
    pictures = torch.zeros(2, 3, 8, 16)
    tokens = torch.randn(2, 1 + 2 * 4, 6)
    assert torch.equal(by_position(tokens, pictures), tokens[:, 1:].sum(2).view(2, 2, 4))
    last = torch.randn(2, 4, 8, 5)
    assert torch.equal(by_position(last, pictures), last.sum(3))


def test_a_row_of_tokens_is_summed_over_the_embedding():
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.linear = nn.Embedding(20, 4), nn.Linear(4, 3)

        def forward(self, tokens):
            return self.linear(self.embedding(tokens).mean(1))

    torch.manual_seed(0)
    tokens = torch.randint(0, 20, (2, 6))
    explanation = whybox.explain(Classifier(), tokens, "input_x_gradient", at="embedding")
    assert explanation.by_position().shape == (2, 6)
    assert torch.equal(explanation.by_position(), explanation.relevance.sum(2))
    assert len(explanation.plot().axes[0].patches) == 6
