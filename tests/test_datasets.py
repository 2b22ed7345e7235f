"""Data sets by name: the same arrays as independent readers give, and errors that say what is wrong."""

import gzip
import importlib.util
import pickle
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from whybox import datasets, models
from whybox.core.errors import InputError, UnknownNameError
from whybox.datasets import read_image
from whybox.models import ImagePreprocess
from whybox.models.torchvision_models import import_torchvision

RESNETS = Path(__file__).parent / "models/resnet20_cifar10.py"


# --- digits


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    source = load_digits()
    parts = [datasets.load("digits", split=split) for split in ("train", "test")]
    inputs, labels = (torch.cat(both) for both in zip(*parts, strict=True))
    assert inputs.shape == (1797, 1, 8, 8)
    assert (inputs.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (inputs.min(), inputs.max()) == (0, 1)
    ours = sorted(
        (bytes(np.rint(x.numpy() * 16).astype(np.uint8)), int(y)) for x, y in zip(inputs, labels, strict=True)
    )
    theirs = sorted((bytes(x.astype(np.uint8)), int(y)) for x, y in zip(source.images, source.target, strict=True))
    assert ours == theirs  # every digit once: the splits are disjoint and complete


def test_digits_split_is_stratified_and_fixed():
    _, train = datasets.load("digits", split="train")
    inputs, test = datasets.load("digits", split="test")
    share = test.bincount() / (test.bincount() + train.bincount())
    assert ((share > 0.19) & (share <= 0.2)).all()
    assert torch.equal(datasets.load("DIGITS")[0], inputs)
    # The shipped model was trained on the rest: were the split to change, its accuracy would mean nothing.
    assert zlib.crc32(np.rint(inputs.numpy() * 16).astype(np.uint8).tobytes()) == 1405832821


def test_digits_through_a_preprocess():
    plain, labels = datasets.load("digits")
    through, same = datasets.load("digits", preprocess=models.load("digits").preprocess)
    assert torch.equal(labels, same)
    torch.testing.assert_close(through, plain, rtol=0, atol=0.5 / 255 + 1e-6)


# --- MNIST, Fashion-MNIST


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.fixture
def mnist(tmp_path):
    random = np.random.default_rng(0)
    pictures, labels = random.integers(0, 256, (7, 28, 28), dtype=np.uint8), np.arange(7, dtype=np.uint8)
    for stem, packed in (("train", True), ("t10k", False)):
        write_idx(tmp_path / f"FashionMNIST/raw/{stem}-images-idx3-ubyte", pictures, packed)
        write_idx(tmp_path / f"FashionMNIST/raw/{stem}-labels-idx1-ubyte", labels, packed)
    return tmp_path, pictures, labels


@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_files_plain_and_gzipped(mnist, monkeypatch, split):
    root, pictures, labels = mnist
    monkeypatch.setenv("WHYBOX_DATA", str(root))
    inputs, numbers = datasets.load("fashionmnist", split=split)
    np.testing.assert_array_equal(inputs[:, 0].numpy(), pictures.astype(np.float32) / 255)
    assert numbers.tolist() == labels.tolist()
    grey = ImagePreprocess(mode="L", mean=(0.5,), std=(0.25,))
    torch.testing.assert_close(datasets.load("FashionMNIST", preprocess=grey)[0], (inputs - 0.5) / 0.25)


@pytest.mark.parametrize("damage", ["cut", "magic", "gzip", "labels"])
def test_damaged_idx_files(mnist, damage):
    root, _, labels = mnist
    path = root / "FashionMNIST/raw/t10k-images-idx3-ubyte"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-5])
    elif damage == "magic":
        path.write_bytes(b"PNG!" + content[4:])
    elif damage == "gzip":
        path.unlink()
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content)[:-40])
    else:
        write_idx(path.with_name("t10k-labels-idx1-ubyte"), labels[:-1])
    with pytest.raises(InputError, match=r"damaged|6 labels"):
        datasets.load("FashionMNIST", root=root)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_mnist_equals_torchvisions_reader(data_dir, tmp_path, name):
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision: pip install 'whybox[vision]'")
    torchvision = import_torchvision()
    inputs, labels = datasets.load(name, root=data_dir)
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    for packed in (data_dir / name / "raw").glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    theirs = getattr(torchvision.datasets, name)(tmp_path, train=False, download=False)
    assert torch.equal(inputs[:, 0], theirs.data / 255)
    assert torch.equal(labels, theirs.targets)
    assert inputs.shape == (10_000, 1, 28, 28)


# --- CIFAR-10


class Python2(pickle._Pickler):
    """Writes bytes as Python 2 did, and as the files of CIFAR-10 have them."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, bytes):
            self.write(b"T" + struct.pack("<i", len(obj)) + obj)
        else:
            super().save(obj, save_persistent_id)


class Trap:
    def __reduce__(self):
        return print, ("sprung",)


@pytest.fixture
def batches(tmp_path):
    """CIFAR-10 in torchvision's layout: two pictures per file."""
    random = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    written = {}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data = random.integers(0, 256, (2, 3072), dtype=np.uint8)
        written[name] = data
        with (folder / name).open("wb") as file:
            Python2(file, protocol=2).dump({"data": data, "labels": [3, 9], "batch_label": name})
    return tmp_path, written


def test_cifar10_batches(batches):
    root, written = batches
    inputs, labels = datasets.load("cifar10", root=root)
    np.testing.assert_array_equal(inputs.numpy().reshape(2, 3072), written["test_batch"].astype(np.float32) / 255)
    assert labels.tolist() == [3, 9]
    inputs, labels = datasets.load("CIFAR10", split="train", root=root)
    assert inputs.shape == (10, 3, 32, 32)
    np.testing.assert_array_equal(inputs[9].flatten().numpy(), written["data_batch_5"][1].astype(np.float32) / 255)


@pytest.mark.parametrize("content", [pickle.dumps({"data": Trap()}), b"", b"text", pickle.dumps({"data": [1]})])
def test_cifar10_batches_that_are_damaged_or_run_code(batches, capsys, content):
    root, _ = batches
    (root / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(InputError, match="test_batch is absent, damaged"):
        datasets.load("CIFAR10", root=root)
    assert capsys.readouterr().out == ""


def test_resnet20_on_cifar10(data_dir, cifar10):
    file = data_dir / "models/resnet20_cifar10.safetensors"
    model = models.load(f"{RESNETS}:resnet20", weights=file)
    inputs, labels = datasets.load("CIFAR10", root=cifar10, preprocess=model.preprocess)
    inputs, labels = inputs[::10], labels[::10]
    assert len(labels) == 500
    with torch.no_grad():
        accuracy = (model(inputs).argmax(1) == labels).float().mean()
    assert 0.77 <= accuracy <= 0.85  # 81.0 % on all 5,000
    # The order of the samples and the classes is that of torchvision's reader.
    folder = cifar10 / "cifar10/test"
    files = [(file, index) for index, label in enumerate(model.labels) for file in sorted((folder / label).iterdir())]
    assert [index for _, index in files][::10] == labels.tolist()
    torch.testing.assert_close(inputs[7], model.preprocess(Image.open(files[70][0])))


# --- folder


@pytest.fixture
def pictures(tmp_path):
    """Class folders b, a with pictures of two sizes, and things that are no pictures."""
    for number, (folder, size) in enumerate([("b", (8, 6)), ("a", (8, 6)), ("a", (9, 9))]):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", size, (number, 0, 255)).save(tmp_path / folder / f"{number}.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_class_folders(pictures):
    inputs, labels = datasets.load(f"folder:{pictures}", preprocess=ImagePreprocess(resize=(4, 5)))
    assert inputs.shape == (3, 3, 4, 5)
    assert labels.tolist() == [0, 0, 1]
    assert (inputs[:, 0, 0, 0] * 255).round().tolist() == [1, 2, 0]
    with pytest.raises(InputError, match=r"2\.PNG has 9 × 9 pixels, 1\.PNG has 8 × 6: give preprocess="):
        datasets.load(f"folder:{pictures}")


def test_flat_folder_has_no_labels(pictures):
    inputs, labels = datasets.load(f"FOLDER:{pictures / 'b'}")
    assert labels is None
    assert inputs.shape == (1, 3, 6, 8)
    assert inputs[0, :, 0, 0].tolist() == [0, 0, 1]


def test_folder_with_splits(pictures):
    (pictures / "train/x").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(pictures / "train/x/0.png")
    assert len(datasets.load(f"folder:{pictures}", split="train")[0]) == 1


def test_folders_without_pictures(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        datasets.load(f"folder:{tmp_path}")
    with pytest.raises(InputError, match="there is no folder"):
        datasets.load(f"folder:{tmp_path / 'nowhere'}")


# --- 20 Newsgroups


def test_20newsgroups(data_dir):
    texts, labels = datasets.load("20newsgroups", root=data_dir)
    assert len(texts) == len(labels) == 7532
    assert sorted(set(labels.tolist())) == list(range(20))
    hockey = torch.tensor(["hockey" in text.lower() for text in texts]).float()
    assert hockey[labels == 10].mean() > 10 * hockey[labels != 10].mean()  # 10 is rec.sport.hockey
    with pytest.raises(InputError, match="texts"):
        datasets.load("20newsgroups", root=data_dir, preprocess=ImagePreprocess())


# --- names and places


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean 'MNIST', 'FashionMNIST'"):
        datasets.load("mnst")
    with pytest.raises(UnknownNameError, match="'train' or 'test'"):
        datasets.load("digits", split="validation")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("MNIST", "MNIST/raw/t10k-images-idx3-ubyte"),
        ("CIFAR10", "cifar-10-batches-py"),
        ("CIFAR10", "cifar10/test"),
        ("20newsgroups", "sklearn/20news-bydate_py3.pkz"),
    ],
)
def test_absent_data_say_where_they_were_sought(tmp_path, monkeypatch, name, layout):
    monkeypatch.delenv("WHYBOX_DATA", raising=False)
    with pytest.raises(InputError, match=r"root=FOLDER.*WHYBOX_DATA"):
        datasets.load(name)
    with pytest.raises(InputError) as error:
        datasets.load(name, root=tmp_path)
    assert str(tmp_path / layout) in str(error.value)
    assert not list(tmp_path.iterdir())  # looking leaves nothing behind


# --- read_image


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def test_plain_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    got = read_image(save(tmp_path / "x.png", Image.fromarray(pixels)))
    assert got.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(got), pixels)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_truncated_pictures(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"x.{suffix}", Image.fromarray(noise))
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=r"truncated|damaged"):
            read_image(path)


@pytest.mark.parametrize("content", [b"", b"this is no picture", bytes(1000)])
def test_what_is_no_picture(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_image(tmp_path / "x.png")


def test_missing_picture_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_image(tmp_path / "x.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(str(tmp_path))


def png_bomb(path: Path, width: int, height: int) -> Path:
    """A black one-bit PNG: a hundred megapixels in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("size", [(10_000, 10_000), (8_000, 7_000), (20_000, 10_000)])
def test_a_picture_bomb_is_refused_before_decoding(tmp_path, size):
    path = png_bomb(tmp_path / "bomb.png", *size)
    assert path.stat().st_size < 100_000
    begun = time.perf_counter()
    with pytest.raises(InputError, match="more than 50 megapixels"):
        read_image(path)
    assert time.perf_counter() - begun < 0.2


def test_just_under_the_limit_is_read(tmp_path):
    assert read_image(png_bomb(tmp_path / "large.png", 7_000, 7_000)).size == (7_000, 7_000)


def test_orientation_is_applied(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    got = np.asarray(read_image(save(tmp_path / "x.png", Image.fromarray(pixels), exif=exif)))
    np.testing.assert_array_equal(got, np.rot90(pixels, -1))


def test_transparency_becomes_white(tmp_path):
    clear = Image.new("RGBA", (3, 3), (255, 0, 0, 0))
    half = Image.new("RGBA", (3, 3), (0, 0, 0, 128))
    palette = Image.new("P", (3, 3), 0)
    palette.putpalette([10, 20, 30])
    assert read_image(save(tmp_path / "a.png", clear)).getpixel((1, 1)) == (255, 255, 255)
    assert read_image(save(tmp_path / "b.png", half)).getpixel((1, 1)) == (127, 127, 127)
    assert read_image(save(tmp_path / "c.png", palette)).getpixel((1, 1)) == (10, 20, 30)
    assert read_image(save(tmp_path / "d.png", palette, transparency=0)).getpixel((1, 1)) == (255, 255, 255)
    assert read_image(save(tmp_path / "e.png", Image.new("LA", (3, 3), (9, 255)))).getpixel((1, 1)) == (9, 9, 9)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    values = np.array([[0, 257 * 7], [257 * 128, 65535]], dtype=np.uint16)
    got = read_image(save(tmp_path / f"x.{suffix}", Image.fromarray(values)))
    np.testing.assert_array_equal(np.asarray(got)[..., 0], [[0, 7], [128, 255]])


def test_numbers_without_a_range_are_refused(tmp_path):
    for number, values in enumerate((np.full((2, 2), 0.5, np.float32), np.full((2, 2), 1 << 20, np.int32))):
        path = save(tmp_path / f"{number}.tif", Image.fromarray(values))
        with pytest.raises(InputError, match="8 or 16 bits"):
            read_image(path)


def test_cmyk_and_grey_and_animation(tmp_path):
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = read_image(save(tmp_path / "x.jpg", cmyk, quality=100)).getpixel((4, 4))
    assert red[0] > 240
    assert max(red[1:]) < 15
    assert read_image(save(tmp_path / "x.png", Image.new("1", (2, 2), 1))).getpixel((0, 0)) == (255, 255, 255)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("lime", "red")]
    moving = save(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert read_image(moving).getpixel((0, 0)) == (0, 255, 0)


def test_rooms_import_only_core():
    """Neither loading nor reading pulls in a heavy library that it does not need."""
    code = "import sys, whybox.datasets, whybox.models; heavy = {'torchvision', 'timm', 'transformers', 'sklearn'}"
    code += "; assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
