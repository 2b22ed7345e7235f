"""Deep Taylor decomposition: closed forms on one layer, conservation, and the composite of LRP that it is."""

import pytest
import torch
from test_gated import draw, filled
from test_identities import BEHIND_RELU, by_name
from torch import Tensor, nn

from whybox import LRP, DeepTaylor, Model
from whybox.core.model import Domain


def pixels(net: nn.Module, low: float = -2.0, high: float = 2.5) -> Model:
    return Model(net, domain=Domain((low,), (high,)), chunk=2)


def one_layer(target: int) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """A dense layer without biases, inputs, the weights of a class and its scores."""
    net, x = filled(nn.Linear(6, 3, bias=False)), draw(5, 6, seed=4)
    weight = net.weight[target].detach()  # type: ignore[union-attr]
    return net, x, weight, net(x)[:, target].detach()  # type: ignore[return-value]


def test_one_layer_on_real_values_shares_by_squared_weights() -> None:
    net, x, w, score = one_layer(1)
    torch.testing.assert_close(DeepTaylor()(net, x, 1), score[:, None] * w**2 / (w**2).sum())


def test_one_layer_on_pixels_shares_by_the_distance_from_the_box() -> None:
    net, x, w, _ = one_layer(1)
    x, low, high = x.clamp(-2, 2.5), -2.0, 2.5
    part = x * w - low * w.clamp(min=0) - high * w.clamp(max=0)
    wanted = net(x)[:, 1, None].detach() * part / part.sum(1, keepdim=True)
    torch.testing.assert_close(DeepTaylor()(pixels(net), x, 1), wanted, rtol=1e-5, atol=1e-8)


def test_two_layers_on_real_values_in_literal_loops() -> None:
    net = filled(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    for row in draw(6, 4):
        first, second = net[0].weight.tolist(), net[2].weight.tolist()
        hidden, score = net[:2](row).tolist(), net(row)[1].item()
        positive = [h * max(w, 0.0) for h, w in zip(hidden, second[1], strict=True)]
        bias = max(net[2].bias[1].item(), 0.0)
        wanted = [
            sum(
                first[j][i] ** 2 / sum(w**2 for w in first[j]) * positive[j] / (sum(positive) + bias) * score
                for j in range(5)
            )
            for i in range(4)
        ]
        found = DeepTaylor()(net, row[None], 1)[0]
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", sorted(BEHIND_RELU))
def test_conserved_without_biases(name: str) -> None:
    net, inputs = by_name(name).net(bias=False), by_name(name).example()
    for target in range(3):
        score = net(*(x.clone() for x in inputs))[:, target].detach()
        found = DeepTaylor()(pixels(net), inputs if len(inputs) > 1 else inputs[0], target)
        parts = found if isinstance(found, tuple) else (found,)
        torch.testing.assert_close(sum(part.flatten(1).sum(1) for part in parts), score, rtol=1e-3, atol=1e-5)
        if "siamese" not in name:  # there a difference of branches shares out with both signs
            assert all(bool((part * score.sign().view(-1, *(1,) * (part.ndim - 1)) >= 0).all()) for part in parts)


@pytest.mark.parametrize("name", ["deep", "residual sum of signed", "batch norm after conv", "linear twice", "gelu"])
def test_is_a_composite_of_lrp(name: str) -> None:
    net, (x,) = by_name(name).net(), by_name(name).example()
    for model in (Model(net, chunk=2), pixels(net)):
        assert torch.equal(DeepTaylor()(model, x, 1), LRP(composite="deep_taylor")(model, x, 1))
        assert not torch.allclose(DeepTaylor()(model, x, 1), LRP(composite="epsilon_plus")(model, x, 1), rtol=0.01)
