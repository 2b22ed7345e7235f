"""Models by name: what is loaded equals what the libraries load, and what cannot be loaded says why."""

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from whybox import datasets, models
from whybox.core.errors import CheckpointError, InputError, ModelError, UnknownNameError
from whybox.models import ImagePreprocess
from whybox.models.digits import digits_net

HERE = Path(__file__).parent
RESNETS = HERE / "models/resnet20_cifar10.py"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with edges, gradients and noise at all scales, made up."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 7, 31, 200):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    total[height // 3 : height // 2, width // 4 :] = 1020
    return Image.fromarray((total / 4).astype(np.uint8))


SIZES = [(500, 375), (333, 501), (224, 224), (257, 1031), (97, 61)]


# --- digits


def test_digits_model_is_right_on_held_out_digits():
    model = models.load("digits")
    inputs, labels = datasets.load("digits", split="test")
    accuracy = (model(inputs).argmax(1) == labels).float().mean()
    assert accuracy >= 0.98
    assert model.labels == tuple("0123456789")
    assert model.input_size == (1, 8, 8) == tuple(inputs.shape[1:])
    assert (model.domain.low, model.domain.high, model.domain.source) == ((0.0,), (1.0,), "preprocessing")
    assert not model.module.training


def test_digits_preprocess_reads_a_saved_digit():
    model = models.load("digits")
    inputs, labels = datasets.load("digits")
    saved = Image.fromarray((inputs[0, 0] * 255).round().byte().numpy())
    again = model.preprocess(saved)
    assert torch.allclose(again, inputs[0], atol=0.5 / 255 + 1e-6)
    large = saved.resize((400, 400), Image.Resampling.NEAREST).convert("RGB")
    assert model(model.preprocess(large)[None]).argmax() == labels[0]


def test_digits_checkpoint_is_small():
    assert (Path(models.__file__).parent / "digits.safetensors").stat().st_size < 500_000


# --- load: names, devices, randomness


@pytest.mark.parametrize(
    ("spec", "offer"),
    [("digit", "'digits'"), ("torchvison:resnet18", "'torchvision:resnet18'"), ("", "'digits'"), ("hf:", "hf:ID")],
)
def test_unknown_spec_offers_the_forms(spec, offer):
    with pytest.raises(UnknownNameError) as error:
        models.load(spec)
    assert offer in str(error.value)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = models.load("digits", weights="random")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    two = models.load("digits", weights="random")
    pairs = zip(one.module.parameters(), two.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert "random" in one.name
    assert not torch.equal(one.module.conv1.weight, models.load("digits").module.conv1.weight)


def test_unknown_device():
    with pytest.raises(ModelError, match="device 'abacus'"):
        models.load("digits", device="abacus")


def test_device_is_used():
    assert models.load("digits", device="meta").module.conv1.weight.device.type == "meta"


# --- checkpoints


@pytest.fixture
def state():
    torch.manual_seed(1)
    return digits_net().state_dict()


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "model_state_dict", "parallel", "both"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_files_are_understood(tmp_path, state, wrap, suffix):
    path = tmp_path / f"weights{suffix}"
    parallel = {f"module.{key}": value for key, value in state.items()}
    if suffix == ".safetensors":
        save_file(parallel if wrap in ("parallel", "both") else state, path)
    else:
        wraps = {"plain": state, "parallel": parallel, "both": {"epoch": 3, "state_dict": parallel}}
        torch.save(wraps.get(wrap, {wrap: state, "epoch": 3}), path)
    model = models.load("digits", weights=path)
    assert all(torch.equal(value, state[key]) for key, value in model.module.state_dict().items())
    assert path.name in model.name


class Trap:
    """Unpickled naively, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch.save", "pickle 2", "pickle 4", "whole module"])
def test_a_checkpoint_that_would_run_code_is_refused_unread(tmp_path, how):
    path, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    if how == "whole module":
        torch.save(digits_net(), path)
    elif how == "torch.save":
        torch.save({"weight": torch.zeros(2), "trap": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=int(how[-1])))
    with pytest.raises(CheckpointError, match=r"run code.*safetensors"):
        models.load("digits", weights=path)
    assert not sprung.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_called_damaged(tmp_path, state, suffix, kept):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(CheckpointError, match="damaged"):
        models.load("digits", weights=path)


def test_weights_that_do_not_fit_are_listed(tmp_path, state):
    path = tmp_path / "weights.safetensors"
    other = {("first" + key[5:] if key.startswith("conv1") else key): value for key, value in state.items()}
    save_file(other, path)
    with pytest.raises(CheckpointError, match=r"missing conv1\.weight, conv1\.bias; not in the model first\."):
        models.load("digits", weights=path)
    save_file({**state, "linear.weight": torch.zeros(7, 64)}, path)
    with pytest.raises(CheckpointError, match=r"linear\.weight: \(7, 64\) in the file, \(10, 64\) in the model"):
        models.load("digits", weights=path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": 3}])
def test_a_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        models.load("digits", weights=tmp_path / "weights.pt")


def test_a_file_of_weights_that_is_absent():
    with pytest.raises(CheckpointError, match=r"there is no file of weights 'nowhere\.pt'"):
        models.load("digits", weights="nowhere.pt")


# --- file.py:factory


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


def test_factory_returns_a_module(tmp_path):
    write(tmp_path / "beside.py", "WIDTH = 3")
    path = write(
        tmp_path / "net.py",
        """
        from torch import nn
        from beside import WIDTH
        def make():
            return nn.Sequential(nn.Linear(4, WIDTH), nn.Dropout())
        """,
    )
    before = list(sys.path)
    model = models.load(f"{path}:make")
    assert sys.path == before
    assert model.module[0].out_features == 3
    assert not model.module.training
    assert not model.module[1].training
    assert (model.domain, model.preprocess, model.labels, model.input_size) == (None, None, None, None)
    assert model.name == "net.py:make"
    del sys.modules["beside"]


def test_two_files_of_one_name_do_not_mix(tmp_path):
    for width, folder in ((2, "a"), (3, "b")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "net.py", f"from torch import nn\ndef make(): return nn.Linear(1, {width})")
    widths = [models.load(f"{tmp_path / folder / 'net.py'}:make").module.out_features for folder in ("a", "b")]
    assert widths == [2, 3]


def test_factory_returns_a_model_with_everything():
    model = models.load(f"{RESNETS}:resnet20")
    assert model.labels[3] == "cat"
    assert model.input_size == (3, 32, 32)
    assert model.domain == model.preprocess.domain
    assert models.load(f"{RESNETS}:resnet56").layers().count("layer3.8.conv2") == 1


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("def maker(): pass", UnknownNameError, "did you mean 'maker'"),
        ("def make(): return 1 / 0", ModelError, "failed: ZeroDivisionError: division by zero"),
        ("def make(): return 'net'", ModelError, "returns a str, not a torch.nn.Module"),
        ("def make(: pass", ModelError, "cannot be imported: SyntaxError"),
        ("import no_such_thing", ModelError, "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_factories_that_fail_say_why(tmp_path, body, error, text):
    path = write(tmp_path / "net.py", body)
    before = set(sys.modules)
    with pytest.raises(error) as raised:
        models.load(f"{path}:make")
    assert text in str(raised.value)
    left = [name for name in set(sys.modules) - before if name.startswith("whybox_file")]
    assert len(left) == ("imported" not in text)  # a file that failed midway leaves no half of a module


def test_factory_file_is_absent_or_unnamed(tmp_path):
    with pytest.raises(ModelError, match="there is no file"):
        models.load(f"{tmp_path / 'net.py'}:make")
    with pytest.raises(InputError, match="FACTORY"):
        models.load(str(RESNETS))
    with pytest.raises(ModelError, match="leave weights out"):
        models.load(f"{RESNETS}:resnet20", weights="random")


# --- ImagePreprocess


def test_preprocess_by_hand():
    """A picture with known pixels, cropped and normalised by arithmetic."""
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    preprocess = ImagePreprocess(crop=(3, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    expected = (pixels[1:4, 1:3] / 255 - [0.5, 0.25, 0.0]) / [0.5, 1.0, 2.0]
    got = preprocess(Image.fromarray(pixels))
    assert got.shape == (3, 3, 2)
    np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(preprocess.display(got), pixels[1:4, 1:3] / 255, atol=1e-6)
    assert preprocess.domain.low == pytest.approx((-1, -0.25, 0))
    assert preprocess.domain.high == pytest.approx((1, 0.75, 0.5))


def test_preprocess_stays_in_its_domain_to_the_last_bit():
    preprocess = ImagePreprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    for colour, bound in (("black", preprocess.domain.low), ("white", preprocess.domain.high)):
        assert tuple(preprocess(Image.new("RGB", (1, 1), colour)).flatten().tolist()) == bound


def test_grey_is_displayed_as_grey():
    preprocess = ImagePreprocess(mode="L", mean=(0.5,), std=(0.5,))
    shown = preprocess.display(preprocess(Image.new("RGB", (3, 2), (51, 51, 51))))
    assert shown.shape == (2, 3, 3)
    np.testing.assert_allclose(shown, 0.2, atol=1e-6)


def test_display_clips_what_lies_outside_the_domain():
    shown = ImagePreprocess().display(torch.tensor([-1.0, 0.5, 7.0]).view(3, 1, 1))
    assert shown.flatten().tolist() == [0.0, 0.5, 1.0]


def test_preprocess_is_a_value_that_describes_itself():
    one = ImagePreprocess(resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(one) == hash(ImagePreprocess(**vars(one)))
    for word in ("256", "224 × 224", "bilinear", "0.485", "0.229"):
        assert word in one.describe()
    assert "\n" not in one.describe()
    assert (one.input_size, ImagePreprocess(resize=9).input_size) == ((3, 224, 224), None)


@pytest.mark.parametrize(
    "fields", [{"mode": "CMYK"}, {"interpolation": "cubist"}, {"mean": (0.1, 0.2)}, {"std": (0.0,)}]
)
def test_preprocess_that_makes_no_sense(fields):
    with pytest.raises((InputError, TypeError)):  # TypeError: beartype, where annotations are checked
        ImagePreprocess(**fields)


def test_a_sliver_does_not_fill_the_memory():
    with pytest.raises(InputError, match="too narrow"):
        ImagePreprocess(resize=256, crop=(224, 224))(Image.new("RGB", (2, 100_000)))


# --- torchvision


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("squeezenet1_0", "IMAGENET1K_V1"),
        ("resnet50", "IMAGENET1K_V1"),
        ("resnet50", "IMAGENET1K_V2"),
        ("inception_v3", "DEFAULT"),
        ("efficientnet_b7", "DEFAULT"),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"),
        ("swin_t", "DEFAULT"),
    ],
)
def test_preprocess_equals_torchvisions_bit_for_bit(torchvision, name, weights):
    from whybox.models.torchvision_models import _preprocess

    transforms = torchvision.models.get_model_weights(name)[weights].transforms()
    ours = _preprocess(transforms)
    for size in SIZES:
        assert torch.equal(ours(picture(*size)), transforms(picture(*size)))
    assert torch.equal(ours(picture(300, 300).convert("L")), transforms(picture(300, 300).convert("L").convert("RGB")))


def test_random_torchvision_model(torchvision):
    model = models.load("torchvision:mobilenet_v3_small", weights="random")
    metadata = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    assert list(model.labels) == metadata.meta["categories"]
    assert model.input_size == (3, 224, 224)
    assert model.domain == model.preprocess.domain
    assert "random weights" in model.name
    assert not model.module.training


def test_local_weights_equal_torchvisions_own_loading(torchvision, tmp_path):
    theirs = torchvision.models.squeezenet1_1(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = models.load("torchvision:squeezenet1_1", weights=str(tmp_path / "weights.pth"))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))


def test_default_weights_come_from_torchvisions_own_loader(torchvision, tmp_path, monkeypatch):
    """With a file where torchvision's cache would have it, nothing is fetched; without one, the advice is given."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there
    with pytest.raises(ModelError, match=r"IMAGENET1K_V1 of squeezenet1_1 cannot be had.*weights=FILE"):
        models.load("torchvision:squeezenet1_1")
    theirs = torchvision.models.squeezenet1_1(weights=None).eval()
    cache = tmp_path / "hub/checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save(theirs.state_dict(), cache / url.rpartition("/")[2])
    for weights in (None, "IMAGENET1K_V1", "DEFAULT"):
        ours = models.load("torchvision:squeezenet1_1", weights=weights)
        assert torch.equal(ours.module.classifier[1].weight, theirs.classifier[1].weight)
        assert ours.name == "torchvision:squeezenet1_1 (IMAGENET1K_V1)"


def test_unknown_names_in_torchvision(torchvision):
    with pytest.raises(UnknownNameError, match="'resnet18'"):
        models.load("torchvision:resnet_18")
    with pytest.raises(UnknownNameError, match="'IMAGENET1K_V1'"):
        models.load("torchvision:resnet18", weights="IMAGENET_V1")
    with pytest.raises(UnknownNameError, match="image classifier"):
        models.load("torchvision:fasterrcnn_resnet50_fpn", weights="random")


def test_inception_normalises_local_weights_as_they_were_trained(torchvision, tmp_path):
    model = models.load("torchvision:googlenet", weights="random")
    assert model.module.transform_input


def test_squeezenet_on_photographs(torchvision, data_dir):
    file = data_dir / "models/squeezenet1_0_imagenet.safetensors"
    model = models.load("torchvision:squeezenet1_0", weights=file)
    photographs = sorted((data_dir / "imagenet").glob("*.jpg"))[::8]
    truth = torch.tensor([int(path.name.partition("_")[0]) for path in photographs])
    inputs = torch.stack([model.preprocess(datasets.read_image(path)) for path in photographs])
    with torch.no_grad():
        predicted = model(inputs).argmax(1)
    assert len(truth) >= 60
    assert (predicted == truth).float().mean() >= 0.55  # 62.0 % on all
    # The labels are in the order of the outputs: the file names carry the class's name.
    named = [model.labels[index].lower().replace(" ", "_").replace("-", "_") for index in truth]
    files = [path.stem.split("_", 2)[2].lower().replace("-", "_") for path in photographs]
    assert sum(name in file or file in name for name, file in zip(named, files, strict=True)) >= 0.9 * len(files)


def test_torchvision_imports_beside_any_torch():
    """In a fresh process: the plain import may fail, ours does not, and timm and transformers then work too."""
    pytest.importorskip("timm", reason="timm: pip install 'whybox[vision]'")
    code = """
        import sys
        from whybox.models.torchvision_models import import_torchvision
        assert "torchvision" not in sys.modules
        one, two = import_torchvision(), import_torchvision()
        assert one is two is sys.modules["torchvision"]
        import torch, timm, torchvision.transforms.v2
        assert one.models.resnet18(weights=None).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- timm


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "convnext_tiny",
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "tf_efficientnet_b0",
        "vit_base_patch14_dinov2",
        "efficientformer_l1",
        "convnext_nano.r384_ad_in12k",  # squashed
    ],
)
def test_preprocess_equals_timms(timm, name):
    from whybox.models.timm_models import _preprocess

    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs = timm.data.create_transform(**config, is_training=False)
    ours = _preprocess(name, config)
    for size in SIZES:
        torch.testing.assert_close(ours(picture(*size)), theirs(picture(*size)), rtol=0, atol=1e-6)


def test_random_timm_models(timm):
    for name in ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"):
        model = models.load(f"timm:{name}", weights="random")
        with torch.no_grad():
            assert model(model.preprocess(picture(300, 200))[None]).shape == (1, 1000)
        assert model.input_size == (3, 224, 224)
        assert "random weights" in model.name


def test_timm_labels_are_torchvisions(timm, torchvision):
    """Two independent lists of the 1000 classes agree nearly everywhere, so both are in the same order."""
    theirs = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    ours = models.load("timm:vit_tiny_patch16_224", weights="random").labels
    assert sum(a.lower() == b.lower() for a, b in zip(ours, theirs, strict=True)) >= 950


def test_timm_weights_from_a_file(timm, tmp_path):
    theirs = timm.create_model("test_convnext").eval()
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = models.load("timm:test_convnext", weights=tmp_path / "weights.safetensors")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))


def test_unknown_name_in_timm(timm):
    with pytest.raises(UnknownNameError, match="'resnet50'"):
        models.load("timm:resnet_50")


def test_timm_preprocess_that_cannot_be_said_is_left_out(timm, caplog):
    from whybox.models.timm_models import _preprocess

    config = {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"}
    assert _preprocess("x", config) is None
    assert "not understood" in caplog.text


# --- transformers


def tiny_vit(transformers, folder: Path, classes: int = 5):
    torch.manual_seed(1)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        num_labels=classes, id2label={i: f"animal {i}" for i in range(classes)},
    )  # fmt: skip
    module = transformers.ViTForImageClassification(config).eval()
    module.save_pretrained(folder)
    return module


def test_hf_image_classifier_from_a_folder(transformers, tmp_path):
    theirs = tiny_vit(transformers, tmp_path)
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    x = model.preprocess(picture(50, 40))
    torch.testing.assert_close(model(x[None]), theirs(x[None]).logits)
    assert model.labels == tuple(f"animal {i}" for i in range(5))
    assert model.input_size == (3, 32, 32)
    assert model.domain.low == pytest.approx((-1, -1, -1))
    assert not model.module.training
    random = models.load(f"hf:{tmp_path}", weights="random")
    assert "random weights" in random.name
    assert (random(x[None]) - model(x[None])).abs().max() > 0.01
    file = models.load(f"hf:{tmp_path}", weights=tmp_path / "model.safetensors")
    torch.testing.assert_close(file(x[None]), model(x[None]))


PROCESSORS = [
    ("ViTImageProcessor", {}),
    ("ViTImageProcessor", {"size": {"height": 97, "width": 61}, "do_normalize": False}),
    ("ViTImageProcessor", {"do_rescale": False}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    ("DeiTImageProcessor", {}),
    ("CLIPImageProcessor", {"crop_size": {"height": 333, "width": 255}}),
]


@pytest.mark.parametrize(("name", "values"), PROCESSORS)
def test_preprocess_equals_the_processors(transformers, tmp_path, name, values):
    processor = getattr(transformers, f"{name}Pil")(**values)
    tiny_vit(transformers, tmp_path)
    processor.save_pretrained(tmp_path)
    ours = models.load(f"hf:{tmp_path}").preprocess
    for size in SIZES:
        theirs = processor(picture(*size), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours(picture(*size)), theirs.float(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["ViTImageProcessor", "ConvNextImageProcessor"])
def test_preprocess_equals_the_default_processor_to_a_grey_level(transformers, tmp_path, name):
    """transformers resizes tensors where torchvision is installed, and then rounds a little differently."""
    pytest.importorskip("torchvision", reason="torchvision: pip install 'whybox[vision]'")
    tiny_vit(transformers, tmp_path)
    getattr(transformers, name)().save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    theirs = processor(picture(500, 375), return_tensors="pt")["pixel_values"][0]
    level = 1 / 255 / min(model.preprocess.std)
    assert (model.preprocess(picture(500, 375)) - theirs).abs().max() <= level * 1.01


def test_a_processor_that_does_more_is_not_imitated(transformers, tmp_path, caplog):
    tiny_vit(transformers, tmp_path)
    # It swaps red and blue, which resizing, cropping and normalising cannot say.
    transformers.MobileViTImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(tmp_path)
    assert models.load(f"hf:{tmp_path}").preprocess is None
    assert "not understood" in caplog.text


def test_hf_text_classifier_has_no_preprocess(transformers, tmp_path):
    config = transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=2)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    model = models.load(f"hf:{tmp_path}")
    assert model.preprocess is None
    assert model(torch.tensor([[1, 2, 3]])).shape == (1, 2)


def test_hf_models_that_cannot_be_loaded(transformers, tmp_path):
    with pytest.raises(ModelError, match="no configuration of"):
        models.load(f"hf:{tmp_path / 'nowhere'}")
    transformers.ViTModel(
        transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="ViTModel, which is no image or text classifier"):
        models.load(f"hf:{tmp_path}")


def test_hf_head_is_never_left_random(transformers, tmp_path):
    module = tiny_vit(transformers, tmp_path)
    state = {key: value for key, value in module.state_dict().items() if not key.startswith("classifier")}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for weights in (None, tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"classifier\.bias, classifier\.weight"):
            models.load(f"hf:{tmp_path}", weights=weights)
    save_file({**module.state_dict(), "classifier.weight": torch.zeros(7, 16)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors does not fit.* classifier\.weight"):
        models.load(f"hf:{tmp_path}", weights=tmp_path / "other.safetensors")
