"""Class activation maps against literals, and the layer and layout that they find in real architectures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from whybox import CAM, Contrast, GradCAM, Logit, Model
from whybox.attribution.last_layer import last_spatial_layer
from whybox.core.errors import ModelError
from whybox.core.layout import to_grid
from whybox.core.target import as_target
from whybox.core.task import Task, noise_keys


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gap_net(dimensions=2, head=nn.Linear):
    conv, pool = getattr(nn, f"Conv{dimensions}d"), getattr(nn, f"AdaptiveAvgPool{dimensions}d")
    return nn.Sequential(conv(2, 4, 3), nn.Tanh(), conv(4, 5, 2), pool(1), nn.Flatten(), head(5, 3))


def deep_net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(inplace=True), nn.Linear(8, 3),
    )  # fmt: skip


def upsampled(map, size):
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(map, size=size, mode=mode, align_corners=False)


# Against literals.


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_grad_cam_against_ten_lines_with_hooks(layer):
    """Behind the layers 0 and 2 a ReLU works in place."""
    net, x = deep_net(), torch.randn(3, 1, 8, 8)
    plain = deep_net()
    plain.load_state_dict(net.state_dict())
    for part in plain:
        if isinstance(part, nn.ReLU):
            part.inplace = False
    kept = {}
    plain.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.update(a=out))
    plain.get_submodule(layer).register_full_backward_hook(lambda _m, _i, out: kept.update(g=out[0]))
    plain(x.clone().requires_grad_())[:, 2].sum().backward()
    alpha = kept["g"].mean((2, 3), keepdim=True)
    expected = upsampled((alpha * kept["a"]).sum(1, keepdim=True).relu(), (8, 8)).detach()
    torch.testing.assert_close(GradCAM(layer)(Model(net, chunk=2), x, 2), expected)
    assert expected.any()


def test_grad_cam_of_several_layers():
    net, x = deep_net(), torch.randn(3, 1, 8, 8)
    maps = [GradCAM(layer)(net, x, 1) for layer in ("0", "2")]
    expected = sum(m / m.amax((1, 2, 3), keepdim=True).clamp_min(1e-30) for m in maps) / 2
    answer = GradCAM(("0", "2")).run(net, x, 1)
    torch.testing.assert_close(answer.relevance, expected)
    assert answer.details["layers"] == ("0", "2")
    assert 0 < float(answer.relevance.max()) <= 1


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_cam_is_the_weighted_sum_of_the_maps(dimensions):
    net = gap_net(dimensions)
    x = torch.randn(2, 2, *(6, 7, 8)[:dimensions])
    maps = net[2](net[1](net[0](x)))
    target = [2, 0]
    literal = torch.einsum("nk...,nk->n...", maps, net[5].weight[target])[:, None].detach()
    answer = CAM().run(net, x, target)
    torch.testing.assert_close(answer.relevance, upsampled(literal, x.shape[2:]))
    assert answer.details["layers"] == ("2",)
    score = net(x)[[0, 1], target] - net[5].bias[target]
    torch.testing.assert_close(literal.flatten(1).mean(1), score.detach())


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_grad_cam_is_the_positive_part_of_cam_divided_by_the_number_of_places(dimensions):
    net = gap_net(dimensions)
    x = torch.randn(2, 2, *(6, 7, 8)[:dimensions])
    maps = net[2](net[1](net[0](x)))
    literal = torch.einsum("nk...,k->n...", maps, net[5].weight[1])[:, None].detach()
    places = maps[0, 0].numel()
    for method in (GradCAM(), GradCAM("2")):
        answer = method.run(net, x, 1)
        torch.testing.assert_close(answer.relevance, upsampled(literal.relu() / places, x.shape[2:]))
        assert answer.details["layers"] == ("2",)


def test_cam_without_a_linear_layer_and_of_a_contrast():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, 1, 5, 5)
    torch.testing.assert_close(CAM()(net, x, 1), upsampled(net[0](x).relu()[:, 1:2].detach(), (5, 5)))
    torch.testing.assert_close(CAM()(net, x, Contrast(0, 2)), CAM()(net, x, 0) - CAM()(net, x, 2))


class Functional(nn.Module):
    """Global average pooling by a function, no layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).mean((2, 3)))


def test_pooling_by_a_function():
    net, x = Functional(), torch.randn(2, 1, 6, 6)
    with pytest.raises(ModelError, match="global average pooling and at most one linear layer; use grad_cam"):
        CAM()(net, x, 0)  # what is averaged is no layer's output
    assert GradCAM().run(net, x, 0).details["layers"] == ("conv",)


@pytest.mark.parametrize(
    "net",
    [
        deep_net(),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)
        ),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 3)),
    ],
    ids=["flatten", "max pooling", "two linear layers", "norm between"],
)
def test_cam_refuses_other_architectures(net):
    with pytest.raises(ModelError, match="global average pooling and at most one linear layer; use grad_cam"):
        CAM()(net, torch.randn(2, 1, 8, 8), 0)


def test_no_layer_with_positions():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ModelError, match=r"found no layer with positions .* name one with layer='…'"):
        GradCAM()(net, torch.randn(2, 1, 4, 4), 0)
    with pytest.raises(ModelError, match=r"layer '0' gives .* no positions in an input of .* choose another"):
        GradCAM("0")(net, torch.randn(2, 1, 4, 4), 0)
    zeros = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    nn.init.zeros_(zeros[2].weight)
    with pytest.raises(
        ModelError, match="gradient is zero at every layer with positions: is the last layer filled with zeros"
    ):
        GradCAM()(zeros, torch.randn(2, 1, 4, 4), 0)


class Residual(nn.Module):
    """A branch beside a shortcut, and a branch that leads nowhere."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch, self.idle = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.join, self.head = nn.Identity(), nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        self.idle(x)
        return self.head((x + self.branch(x)).mean((2, 3)))


def test_a_branch_beside_a_shortcut_is_passed_over():
    assert GradCAM().run(Residual(), torch.randn(2, 1, 6, 6), 0).details["layers"] == ("stem",)


# The layout.


def grid_of(*shape, positions):
    x = torch.arange(float(torch.tensor(shape).prod())).view(shape)
    return x, to_grid(x, positions)


def test_maps_stay_as_they_are():
    for shape, positions in (((2, 3, 4, 5), (32, 40)), ((2, 3, 7), (28,)), ((2, 3, 2, 4, 5), (4, 32, 40))):
        x, grid = grid_of(*shape, positions=positions)
        assert torch.equal(grid, x)


@pytest.mark.parametrize(
    ("shape", "positions", "last"),
    [
        ((2, 7, 7, 96), (224, 224), True),
        ((2, 96, 7, 7), (224, 224), False),
        ((2, 4, 8, 32), (64, 128), True),
        ((2, 32, 4, 8), (64, 128), False),
        ((2, 8, 8, 8), (64, 64), False),
        ((2, 8, 8, 4), (32, 32), True),
        ((2, 1, 9, 9), (9, 9), False),
    ],
)
def test_channels_last(shape, positions, last):
    x, grid = grid_of(*shape, positions=positions)
    assert torch.equal(grid, x.permute(0, 3, 1, 2) if last else x)


@pytest.mark.parametrize(
    ("tokens", "prefix", "positions", "rows", "columns"),
    [
        (49, 0, (224, 224), 7, 7),
        (50, 1, (224, 224), 7, 7),
        (51, 2, (224, 224), 7, 7),
        (201, 5, (224, 224), 14, 14),
        (33, 1, (64, 128), 4, 8),
        (37, 5, (128, 64), 8, 4),
        (19, 1, (96, 48), 6, 3),
    ],
)
def test_tokens(tokens, prefix, positions, rows, columns):
    x, grid = grid_of(2, tokens, 3, positions=positions)
    assert grid.shape == (2, 3, rows, columns)
    for r in range(rows):
        for c in range(columns):
            assert torch.equal(grid[:, :, r, c], x[:, prefix + r * columns + c])


def test_what_has_no_layout():
    for shape in ((2, 5), (2, 99, 3), (2, 3, 4, 5, 6)):
        assert grid_of(*shape, positions=(64, 64))[1] is None
    assert grid_of(2, 49, 3, positions=(7, 224))[1] is None


# Real architectures with random weights. The last layer is drawn anew where the library fills it with zeros.


def found(net, size, wrap=lambda net: net):
    for part in net.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.1)
    x = torch.randn(2, 3, *size)
    task = Task(Model(net.eval()), x, as_target(1).pin(2, None), noise_keys(0, 2))
    layer = last_spatial_layer(task)
    answer = GradCAM().run(net, x, 1)
    assert answer.details["layers"] == (layer,)
    assert answer.relevance.shape == (2, 1, *size)
    torch.testing.assert_close(GradCAM(layer)(net, x, 1), answer.relevance)
    return layer


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("resnet18", (64, 96), "layer4"),
        ("densenet121", (64, 64), "features"),
        ("vgg11", (64, 64), "avgpool"),
        ("squeezenet1_0", (64, 64), "classifier.2"),
        ("mobilenet_v3_small", (64, 64), "features"),
        ("swin_t", (64, 96), "permute"),
    ],
)
def test_layers_found_in_torchvision(torchvision, name, size, layer):
    net = getattr(torchvision.models, name)(weights=None)
    assert found(net, size) == layer


def test_the_layer_found_in_a_vision_transformer(torchvision):
    net = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=4
    )
    layer = found(net, (32, 32))
    # Behind the last attention only the class token counts, and the last block's shortcut passes its norm by.
    assert layer == "encoder.layers.encoder_layer_0"


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("vit_tiny_patch16_224", {"img_size": (32, 64), "depth": 2}, (32, 64)),
        ("vit_tiny_patch16_224", {"img_size": (48, 48), "depth": 2, "reg_tokens": 2}, (48, 48)),
        ("swin_tiny_patch4_window7_224", {"img_size": (64, 64), "embed_dim": 12, "window_size": 2}, (64, 64)),
        ("convnext_tiny", {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}, (64, 96)),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_layers_found_in_timm(timm, name, options, size):
    net = timm.create_model(name, pretrained=False, num_classes=4, **options)
    layer = found(net, size)
    assert layer == {"v": "blocks.0", "s": "norm", "c": "norm_pre"}[name[0]]


def test_the_layer_found_in_hugging_face(transformers):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    net = transformers.ViTForImageClassification(config)
    layer = found(net, (32, 32))
    assert layer.endswith(("layer.0", "layers.0"))


def test_the_target_does_not_need_to_be_the_first_class():
    net, x = gap_net(), torch.randn(2, 2, 6, 7)
    assert not torch.allclose(GradCAM()(net, x, Logit(0)), GradCAM()(net, x, Logit(1)))
