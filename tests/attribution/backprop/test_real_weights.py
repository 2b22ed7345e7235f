"""LRP on trained nets and real pictures: the same answers as on toys, and evidence where the object is."""

from pathlib import Path

import pytest
import torch
from engine_runs import input_times_gradient, under_engine
from torch import Tensor

from whybox import LRP, Model, SensitivityAnalysis, datasets, models

RESNET = Path(__file__).parents[2] / "models/resnet20_cifar10.py"


@pytest.fixture(scope="module")
def squeezenet(data_dir: Path) -> tuple[Model, Tensor]:
    try:
        model = models.load("torchvision:squeezenet1_0", weights=data_dir / "models/squeezenet1_0_imagenet.safetensors")
    except ImportError:
        pytest.skip("torchvision: pip install 'whybox[vision]'")
    files = [next((data_dir / "imagenet").glob(f"{index:04d}_*")) for index in (0, 22)]
    return model, torch.stack([model.preprocess(datasets.read_image(file)) for file in files])


@pytest.fixture(params=["resnet20", "resnet56"])
def resnet(request: pytest.FixtureRequest, cifar10: Path, data_dir: Path) -> tuple[Model, Tensor]:
    weights = next((data_dir / "models").glob(f"{request.param}_cifar10*.safetensors"))
    model = models.load(f"{RESNET}:{request.param}", weights=weights)
    return model, datasets.load("CIFAR10", root=cifar10, preprocess=model.preprocess)[0][:2]


def check(model: Model, x: Tensor) -> None:
    with torch.no_grad():
        plain = model.module.eval()(x.clone())
    output, relevance, _ = under_engine(model.module, x)
    assert torch.equal(output, plain)
    expected = input_times_gradient(model.module, x)[1]
    assert float((relevance - expected).abs().max() / expected.abs().max()) < 1e-5
    for composite in ("epsilon", "epsilon_plus_flat", "epsilon_gamma_box"):
        trace = LRP(composite).trace(model, x)
        assert max(float(trace.gap.max()), float(trace.total_gap.max())) < 1e-4, composite


def test_squeezenet(squeezenet: tuple[Model, Tensor]) -> None:
    check(*squeezenet)


def test_cifar_resnets(resnet: tuple[Model, Tensor]) -> None:
    check(*resnet)


def test_relevance_gathers_where_sensitivity_scatters(squeezenet: tuple[Model, Tensor]) -> None:
    """The share of the map that the strongest tenth of the pixels holds."""

    def held(map: Tensor) -> Tensor:
        strength = map.abs().sum(1).flatten(1).sort(1, descending=True).values
        return strength[:, : strength.shape[1] // 10].sum(1) / strength.sum(1)

    model, x = squeezenet
    smoothed = torch.nn.AvgPool2d(9, stride=1, padding=4)  # evidence in one place, not single strong pixels
    lrp = held(smoothed(LRP("epsilon_plus_flat")(model, x).clamp_min(0)))
    sensitivity = held(smoothed(SensitivityAnalysis()(model, x)))
    assert bool((lrp > sensitivity).all()), (lrp, sensitivity)
