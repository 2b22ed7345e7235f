"""The main job, end to end on real input: load a model and pictures, explain with several methods, write the report."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

import whybox
from whybox import datasets, models, report

METHODS = ["input_x_gradient", "integrated_gradients(steps=8)", "smooth_grad(samples=4)", "grad_cam"]
HERE = Path(__file__).parent


def explained(model: whybox.Model, inputs: torch.Tensor, folder: Path, names: list[str]) -> report.Findings:
    """Explain with four methods, write the report, and check what must hold whatever the model is."""
    findings = report.collect(model, inputs, METHODS, seed=1)
    failed = [result for result in findings.results if not isinstance(result, whybox.Explanation)]
    assert not failed, failed
    for explanation in findings.results:
        relevance = explanation.relevance
        assert relevance.shape[0] == len(inputs)
        assert relevance.shape[2:] == inputs.shape[2:]
        assert torch.isfinite(relevance).all()
        assert (relevance.flatten(1) != 0).any(1).all(), f"{explanation.method['name']} is blank"
        with torch.no_grad():
            best = model(inputs).max(1).values
        torch.testing.assert_close(explanation.scores, best, rtol=1e-4, atol=1e-5)
    page = report.write(folder / "report.html", [findings], names=names).read_text(encoding="utf-8")
    assert len(page.encode()) < 1_000_000 * len(inputs)
    for name in names:
        assert name in page
    return findings


@pytest.mark.usefixtures("torchvision")
def test_squeezenet_explains_imagenet_photographs(data_dir: Path, tmp_path: Path) -> None:
    model = models.load("torchvision:squeezenet1_0", weights=data_dir / "models/squeezenet1_0_imagenet.safetensors")
    files = [next((data_dir / "imagenet").glob(f"{index:04d}_*")) for index in (0, 22)]
    inputs = torch.stack([model.preprocess(datasets.read_image(file)) for file in files])
    findings = explained(model, inputs, tmp_path, [file.name for file in files])
    assert [result.predictions(0, 1)[0].label for result in findings.results] == ["tench"] * len(METHODS)


def test_a_resnet_from_a_file_explains_cifar10(cifar10: Path, data_dir: Path, tmp_path: Path) -> None:
    model = models.load(
        f"{HERE / 'models/resnet20_cifar10.py'}:resnet20",
        weights=next((data_dir / "models").glob("resnet20_cifar10*.safetensors")),
    )
    assert model.preprocess is not None
    inputs, labels = datasets.load("CIFAR10", root=cifar10, preprocess=model.preprocess)
    chosen = torch.arange(0, len(inputs), len(inputs) // 4)[:4]
    findings = explained(model, inputs[chosen], tmp_path, [f"cifar-{i}" for i in chosen.tolist()])
    assert findings.results[0].outputs.shape == (4, 10)
    assert labels is not None


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_token_models_of_torchvision(name: str, torchvision: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"image_size": 64} if name.startswith("vit") else {}
    net = torchvision.models.get_model(name, weights=None, **size)
    head = net.heads.head if name.startswith("vit") else net.head
    torch.nn.init.normal_(head.weight, std=0.1)  # torchvision fills a ViT's head with zeros
    explained(whybox.Model(net.eval()), torch.randn(1, 3, 64, 64), tmp_path, ["noise"])


def test_an_image_classifier_of_transformers(transformers: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    config.num_labels = 5
    net = transformers.ViTForImageClassification(config)
    explained(whybox.Model(net), torch.randn(2, 3, 32, 32), tmp_path, ["first", "second"])
