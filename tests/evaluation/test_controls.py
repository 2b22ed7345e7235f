"""Maps that know nothing of the model, place by place."""

import math

import pytest
import torch
from planted import planted

from whybox import CentreBlob, InputMagnitude, RandomMap


def test_the_blob_is_a_bell_in_the_middle():
    blob = CentreBlob()(torch.nn.Identity(), torch.rand(2, 3, 6, 9), lambda out: out.flatten(1).sum(1))
    assert blob.shape == (2, 1, 6, 9)
    for i in range(6):
        for j in range(9):
            expected = math.exp(-(((i - 2.5) / (6 / 4)) ** 2) / 2 - (((j - 4) / (9 / 4)) ** 2) / 2)
            assert blob[:, 0, i, j].tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_random_maps_are_uniform_and_independent():
    given = planted(60)
    first, other = (RandomMap()(given.model, given.inputs, given.target, seed=seed) for seed in (0, 1))
    assert first.shape == (60, 1, 12, 12)
    flat = first.flatten()
    assert -1 <= flat.min() < -0.99 < 0.99 < flat.max() <= 1
    assert abs(flat.mean()) < 4 * (1 / 3 / len(flat)) ** 0.5
    assert float(flat.square().mean()) == pytest.approx(1 / 3, abs=0.02)
    rows = torch.cat((first, other)).flatten(1)  # samples, and seeds
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 6 / 12
    assert torch.equal(InputMagnitude()(given.model, -given.inputs, given.target), given.inputs)
