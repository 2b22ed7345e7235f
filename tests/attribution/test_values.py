"""Every method equals Captum's, where both define the same thing: to 1e-5 in float64, to 1e-4 in float32.

Left out, because the definitions differ: IntegratedGradients with a tolerance, and CAM, which Captum does not have.
"""

import copy
import importlib.util
import io
import math
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from whybox import (
    Black,
    Constant,
    Contrast,
    DeconvNet,
    ExpectedGradients,
    GradCAM,
    Gradient,
    GuidedBackprop,
    GuidedGradCAM,
    InputXGradient,
    IntegratedGradients,
    Method,
    Neuron,
    SensitivityAnalysis,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
    models,
)

if importlib.util.find_spec("captum") is None:
    pytest.skip("Captum: pip install 'whybox[bench]'", allow_module_level=True)

from captum import attr

RESNET = Path(__file__).parent.parent / "models/resnet20_cifar10.py"
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}

# Captum's wrappers mark the input as requiring gradients and warn that they do.
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients:UserWarning")


@dataclass
class Net:
    """A model with inputs and layers to look into."""

    module: nn.Module
    inputs: Tensor
    map_layers: tuple[str, ...]
    """Layers for GradCAM and for `at`, behind each of which nothing works in place."""

    @property
    def target(self) -> Tensor:
        return self.module(self.inputs).argmax(1)

    def layer(self, name: str) -> nn.Module:
        return self.module.get_submodule(name)


class Residual(nn.Module):
    """Two residual blocks, one with an addition in place; average pooling, two classes of layers by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = F.silu(x + self.one(F.gelu(x)))
        out = self.norm(self.two(x))
        out += x
        return self.last(F.relu(out).mean((2, 3)))


def pictures(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_seed(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def small(_data: Callable[[], Path]) -> Net:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8 * 25, 7),
        )

    return Net(with_seed(make), pictures(0, 3, 3, 16, 16), ("1", "4"))


def residual(_data: Callable[[], Path]) -> Net:
    return Net(with_seed(Residual), pictures(1, 3, 3, 12, 12), ("one", "norm"))


def resnet20(data: Callable[[], Path]) -> Net:
    folder = data()
    model = models.load(f"{RESNET}:resnet20", weights=folder / "models/resnet20_cifar10.safetensors")
    with tarfile.open(folder / "cifar10/test.tar.gz") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))[:: 5000 // 3]
        files = [archive.extractfile(name) for name in names[:3]]
        inputs = [model.preprocess(Image.open(io.BytesIO(file.read()))) for file in files if file]
    return Net(model.module, torch.stack(inputs), ("conv1", "layer2", "layer3"))


def squeezenet(data: Callable[[], Path]) -> Net:
    folder = data()
    try:
        model = models.load("torchvision:squeezenet1_0", weights=folder / "models/squeezenet1_0_imagenet.safetensors")
    except ImportError:
        pytest.skip("torchvision: pip install 'whybox[vision]'")
    photograph = sorted((folder / "imagenet").glob("*.jpg"))[40]
    inputs = model.preprocess(Image.open(photograph).convert("RGB"))[None]
    return Net(model.module, inputs, ("features.7", "features.12"))


NETS = {make.__name__: make for make in (small, residual, resnet20, squeezenet)}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@pytest.fixture(scope="module")
def made() -> dict[str, Net]:
    return {}


@pytest.fixture(params=[(name, dtype) for name in NETS for dtype in DTYPES], ids="-".join)
def net(request: pytest.FixtureRequest, made: dict[str, Net]) -> Net:
    """A net in float32 or float64; those with real weights want the folder of data."""
    name, dtype = request.param
    if name not in made:
        made[name] = NETS[name](lambda: request.getfixturevalue("data_dir"))
    base = made[name]
    return Net(copy.deepcopy(base.module).to(DTYPES[dtype]), base.inputs.to(DTYPES[dtype]), base.map_layers)


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    theirs = theirs.detach()
    assert theirs.any(), "nothing to compare: all zero"
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    assert difference <= TOLERANCE[theirs.dtype], f"differs by {difference:.2g} of the largest value"


def active_unit(net: Net, name: str) -> tuple[int, ...]:
    """The index of a neuron of this layer that is active for every sample."""
    seen: list[Tensor] = []
    with net.layer(name).register_forward_hook(lambda _layer, _inputs, output: seen.append(output.detach())):
        net.module(net.inputs)
    least = seen[0].amin(0)
    return tuple(int(i) for i in torch.unravel_index(least.argmax(), least.shape))


# --- One table of pairs: ours, and Captum's on (module, inputs, target)


PAIRS: dict[str, tuple[Method, Callable[[nn.Module, Tensor, Any], Tensor]]] = {
    "gradient": (
        Gradient(),
        lambda f, x, t: attr.Saliency(f).attribute(x, t, abs=False),
    ),
    "sensitivity_analysis": (
        SensitivityAnalysis(),
        lambda f, x, t: attr.Saliency(f).attribute(x, t, abs=True),
    ),
    "input_x_gradient": (
        InputXGradient(),
        lambda f, x, t: attr.InputXGradient(f).attribute(x, t),
    ),
    "gauss_legendre": (
        IntegratedGradients(steps=5),
        lambda f, x, t: attr.IntegratedGradients(f).attribute(x, target=t, n_steps=5),
    ),
    "gauss_legendre_from_a_constant": (
        IntegratedGradients(steps=3, baseline=Constant(0.4)),
        lambda f, x, t: attr.IntegratedGradients(f).attribute(x, 0.4, t, n_steps=3),
    ),
    # Captum computes these α in float32 in any case. With four steps they are exact; else, where a ReLU or a maximum
    # is about to switch, the two could fall on different sides of it.
    "riemann": (
        IntegratedGradients(steps=4, rule="riemann"),
        lambda f, x, t: attr.IntegratedGradients(f).attribute(x, target=t, n_steps=4, method="riemann_middle"),
    ),
    "riemann_from_black": (
        IntegratedGradients(steps=4, rule="riemann", baseline=Black()),
        lambda f, x, t: attr.IntegratedGradients(f).attribute(
            x, x.amin((0, 2, 3), keepdim=True).expand_as(x), t, n_steps=4, method="riemann_middle"
        ),
    ),
    "smooth_grad_without_noise": (
        SmoothGrad(samples=2, noise=0.0),
        lambda f, x, t: attr.NoiseTunnel(attr.Saliency(f)).attribute(x, nt_samples=2, stdevs=0.0, target=t, abs=False),
    ),
    "smooth_grad_squared_without_noise": (
        SmoothGradSquared(samples=2, noise=0.0),
        lambda f, x, t: attr.NoiseTunnel(attr.Saliency(f)).attribute(
            x, nt_type="smoothgrad_sq", nt_samples=2, stdevs=0.0, target=t
        ),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_equals_captum(net: Net, pair: str) -> None:
    ours, theirs = PAIRS[pair]
    target = net.target
    assert_equal(ours(net.module, net.inputs), theirs(net.module, net.inputs, target))


def test_smoothing_tends_to_captum_as_the_noise_vanishes(net: Net) -> None:
    if any(isinstance(part, nn.MaxPool2d) for part in net.module.modules()) and len(net.inputs) == 1:
        pytest.skip("in flat areas of a photograph maxima tie, and the least noise decides them at random")
    noise = 1e-10  # any larger, and a ReLU that is about to switch does so in one copy and not in another
    ours = SmoothGrad(of=InputXGradient(), samples=2, noise=noise)(net.module, net.inputs)
    theirs = attr.NoiseTunnel(attr.InputXGradient(net.module)).attribute(
        net.inputs, nt_samples=2, stdevs=noise, target=net.target
    )
    assert_equal(ours, theirs)


@pytest.mark.parametrize("pair", ["gradient", "input_x_gradient", "gauss_legendre"])
def test_equals_captum_for_a_contrast(net: Net, pair: str) -> None:
    class Difference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            output = net.module(x)
            return output[:, 3] - output[:, 1]

    ours, theirs = PAIRS[pair]
    assert_equal(ours(net.module, net.inputs, Contrast(3, 1)), theirs(Difference(), net.inputs, None))


# --- Noise: with the same noise, the same values


@pytest.mark.parametrize(
    ("method", "kind"),
    [(SmoothGrad, "smoothgrad"), (SmoothGradSquared, "smoothgrad_sq"), (VarGrad, "vargrad")],
)
def test_equals_captum_under_the_same_noise(net: Net, method: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum is handed the noise that whybox has drawn; both lay out the copies of one sample after the other."""
    x, samples = net.inputs, 3
    copies: list[Tensor] = []

    @dataclass(frozen=True)
    class Watched(InputXGradient):
        def attribute(self, task: Any) -> Any:
            copies.append(task.inputs)
            return super().attribute(task)

    ours = method(of=Watched(), samples=samples, noise=0.2)(net.module, x, seed=7)
    noise = torch.cat(copies) - x.repeat_interleave(samples, 0)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "normal", lambda *_arguments, **_options: noise)
        theirs = attr.NoiseTunnel(attr.InputXGradient(net.module)).attribute(
            x, nt_type=kind, nt_samples=samples, target=net.target
        )
    assert_equal(ours, theirs)


def test_expected_gradients_equal_captums_in_the_mean(rng: torch.Generator) -> None:
    """GradientShap without noise in the inputs draws the same x′ and α, but not in strata: equal in expectation.

    On a net with kinks, from baselines of three rows; the means of many draws agree within their standard errors.
    """
    net, x = small(Path).module.double(), pictures(3, 1, 3, 16, 16).double()
    baselines, samples = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=rng), 1024
    ours = ExpectedGradients(samples=samples).fit(net, baselines)(net, x, 2)
    shap = attr.GradientShap(net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = shap.attribute(x, baselines, n_samples=samples, stdevs=0.0, target=2)
        once = torch.cat([shap.attribute(x, baselines, n_samples=1, stdevs=0.0, target=2) for _ in range(200)])
    error = once.std(0) * math.sqrt(2 / samples)
    z = ((ours - theirs)[0] / error).abs()
    assert z.max() < 5
    assert z.square().mean() < 1.5  # not larger than chance makes it, over all 768 values


# --- The ReLU's backward: Captum sees ReLUs that are modules


@pytest.fixture
def relu_net(net: Net) -> Net:
    """A net whose ReLUs are modules."""
    if not any(isinstance(part, nn.ReLU) for part in net.module.modules()):
        pytest.skip("the net's ReLUs are no modules")
    return net


REVERSED = {
    "guided_backprop": (GuidedBackprop(), attr.GuidedBackprop, attr.NeuronGuidedBackprop),
    "deconvnet": (DeconvNet(), attr.Deconvolution, attr.NeuronDeconvolution),
}


@pytest.mark.parametrize("pair", REVERSED)
@pytest.mark.filterwarnings("ignore:Setting .*hooks on ReLU activations:UserWarning")
def test_reversed_networks_equal_captum(relu_net: Net, pair: str) -> None:
    ours, theirs, neuron = REVERSED[pair]
    net, name = relu_net, relu_net.map_layers[0]
    wanted, found = theirs(net.module).attribute(net.inputs, target=net.target), ours(net.module, net.inputs)
    if wanted.any():  # a DeconvNet's signal from a class score dies out on SqueezeNet
        assert_equal(found, wanted)
    else:
        assert not found.any()
    unit = active_unit(net, name)
    wanted = neuron(net.module, net.layer(name)).attribute(net.inputs, unit)
    assert_equal(ours(net.module, net.inputs, Neuron(layer=name, index=unit)), wanted)


@pytest.mark.filterwarnings("ignore:Setting .*hooks on ReLU activations:UserWarning")
def test_guided_grad_cam_equals_captum(relu_net: Net) -> None:
    net, name = relu_net, relu_net.map_layers[-1]
    theirs = attr.GuidedGradCam(net.module, net.layer(name))
    wanted = theirs.attribute(net.inputs, target=net.target, interpolate_mode="bilinear")
    assert_equal(GuidedGradCAM(layer=name)(net.module, net.inputs), wanted)


# --- Layers and neurons


@pytest.mark.parametrize("which", [0, -1])
def test_grad_cam_equals_captum(net: Net, which: int) -> None:
    name = net.map_layers[which]
    coarse = attr.LayerGradCam(net.module, net.layer(name)).attribute(net.inputs, net.target, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(coarse, net.inputs.shape[2:], "bilinear")
    assert_equal(GradCAM(layer=name)(net.module, net.inputs), theirs)


def test_grad_cam_before_an_operation_in_place(net: Net) -> None:
    """What a layer gives out is meant also where the next operation overwrites it, as in torchvision's nets.

    Captum 0.9 records the tensor itself and returns what the ReLU has made of it: here it gets the right answer only
    on a copy of the net that works out of place.
    """
    if "features.0" not in dict(net.module.named_modules()):
        pytest.skip("the net has no ReLU in place")
    assert net.module.features[1].inplace
    apart = copy.deepcopy(net.module)
    for part in apart.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    layer = apart.get_submodule("features.0")
    coarse = attr.LayerGradCam(apart, layer).attribute(net.inputs, net.target, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(coarse, net.inputs.shape[2:], "bilinear")
    assert_equal(GradCAM(layer="features.0")(net.module, net.inputs), theirs)
    product = attr.LayerGradientXActivation(apart, layer).attribute(net.inputs, net.target)
    assert_equal(InputXGradient()(net.module, net.inputs, at="features.0"), product)


@pytest.mark.parametrize("which", [0, -1])
def test_layers_equal_captum(net: Net, which: int) -> None:
    name = net.map_layers[which]
    theirs = attr.LayerGradientXActivation(net.module, net.layer(name)).attribute(net.inputs, net.target)
    assert_equal(InputXGradient()(net.module, net.inputs, at=name), theirs)


def test_integrated_gradients_of_a_layer_equal_captum(net: Net) -> None:
    """Captum's baseline is the layer's output for an input of zeros; without a bias that is zero, as in whybox."""
    name = next(name for name, part in net.module.named_modules() if isinstance(part, nn.Conv2d))
    if net.layer(name).bias is not None:
        pytest.skip("the net's first layer has a bias, so the two begin at different baselines")
    theirs = attr.LayerIntegratedGradients(net.module, net.layer(name)).attribute(
        net.inputs, target=net.target, n_steps=6
    )
    assert_equal(IntegratedGradients(steps=6)(net.module, net.inputs, at=name), theirs)


def test_neurons_equal_captum(net: Net) -> None:
    name = net.map_layers[-1]
    unit = active_unit(net, name)
    target = Neuron(layer=name, index=unit)
    theirs = attr.NeuronGradient(net.module, net.layer(name)).attribute(net.inputs, unit)
    assert_equal(Gradient()(net.module, net.inputs, target), theirs)
    theirs = attr.NeuronIntegratedGradients(net.module, net.layer(name)).attribute(net.inputs, unit, n_steps=3)
    assert_equal(IntegratedGradients(steps=3)(net.module, net.inputs, target), theirs)


def test_several_inputs_equal_captum() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(5, 6)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.softplus(self.one(x)) * torch.tanh(self.two(y))

    net, inputs = with_seed(Two).double(), (pictures(0, 3, 4).double(), pictures(1, 3, 5).double())
    ours = IntegratedGradients(steps=9)(net, inputs, [1, 4, 0])
    theirs = attr.IntegratedGradients(net).attribute(inputs, target=torch.tensor([1, 4, 0]), n_steps=9)
    for mine, other in zip(ours, theirs, strict=True):
        assert_equal(mine, other)
