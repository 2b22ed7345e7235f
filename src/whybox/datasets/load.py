"""`load`: a data set by its name, from files that are already here."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from whybox.core.errors import InputError, UnknownNameError
from whybox.datasets import cifar10, digits, folder, mnist, newsgroups

Preprocess = Callable[[Image.Image], Tensor]
Arrays = tuple[np.ndarray, np.ndarray]

_BUNDLED = "digits"
_TEXT = "20newsgroups"
_LOCAL: dict[str, Callable[[Path, str], Arrays]] = {
    "MNIST": lambda root, split: mnist.read("MNIST", root, split),
    "FashionMNIST": lambda root, split: mnist.read("FashionMNIST", root, split),
    "CIFAR10": cifar10.read,
}
NAMES = (_BUNDLED, *_LOCAL, _TEXT, "folder:PATH")


def load(
    name: str, split: str = "test", root: str | Path | None = None, preprocess: Preprocess | None = None
) -> tuple[Tensor | list[str], Tensor | None]:
    """Load a data set: `(inputs, labels)`, all of one split.

    | name | inputs | where under the root |
    |---|---|---|
    | `digits` | (n, 1, 8, 8) | comes with scikit-learn; a fixed fifth of every class (seed 0) is the test split |
    | `MNIST`, `FashionMNIST` | (n, 1, 28, 28) | `MNIST/raw/t10k-images-idx3-ubyte` …, plain or `.gz`, as torchvision |
    | `CIFAR10` | (n, 3, 32, 32) | `cifar-10-batches-py/` as torchvision, or pictures in `cifar10/test/CLASS/` |
    | `20newsgroups` | n texts | `sklearn/20news-bydate_py3.pkz`, scikit-learn's own cache |
    | `folder:PATH` | (n, 3, h, w) | PATH: pictures in one folder per class, or flat |

    Pictures are float32 in [0, 1], unless `preprocess` is given; digits are then ready for the model `digits`.
    Labels are int64 of shape (n,), counting the classes in their usual order (folders: in alphabetical order), or None
    for a flat folder. The samples keep the order of the files. A folder that has a folder named like the split inside
    is read from there; another one is read whole, whatever the split. Its pictures must be of one size unless
    `preprocess` makes them so. Everything is held in memory, and nothing is ever downloaded.

    Args:
        name: one of the above, in upper or lower case.
        split: "train" or "test".
        root: the folder that holds the data; the environment variable WHYBOX_DATA if it is not given.
        preprocess: turns a PIL image into one input, such as `Model.preprocess`.

    Raises:
        UnknownNameError: there is no such data set or split.
        InputError: the files are absent (the message says where they were looked for and how they must lie) or
            damaged, or `preprocess` is given for texts.
    """
    if split not in ("train", "test"):
        raise UnknownNameError("split", split, ("train", "test"), "A split is 'train' or 'test'.")
    if name.lower().startswith("folder:"):
        return folder.read(Path(name.partition(":")[2]).expanduser(), split, preprocess)
    known = {known.lower(): known for known in NAMES}.get(name.lower())
    if known == _BUNDLED:
        return _tensors(digits.read(split), preprocess)
    if known == _TEXT:
        if preprocess is not None:
            raise InputError("20newsgroups holds texts; leave out preprocess, which takes pictures")
        return newsgroups.read(_root(_TEXT, root), split)
    if known in _LOCAL:
        return _tensors(_LOCAL[known](_root(known, root), split), preprocess)
    raise UnknownNameError("data set", name, NAMES, f"Known are {', '.join(NAMES)}.")


def _root(name: str, root: str | Path | None) -> Path:
    """The folder that holds the data."""
    found = root if root is not None else os.environ.get("WHYBOX_DATA")
    if not found:
        raise InputError(
            f"{name} is not part of whybox and is never downloaded: give root=FOLDER, or set the environment "
            "variable WHYBOX_DATA, to the folder that holds it"
        )
    return Path(found).expanduser()


def _tensors(arrays: Arrays, preprocess: Preprocess | None) -> tuple[Tensor, Tensor]:
    """Pictures (n, h, w, c), as bytes or as floats in [0, 1], and labels: as inputs and labels."""
    pictures, labels = arrays
    if preprocess is None:
        inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        inputs = inputs / 255 if pictures.dtype == np.uint8 else inputs
    else:
        pixels = pictures if pictures.dtype == np.uint8 else np.rint(pictures * 255).astype(np.uint8)
        shaped = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        inputs = torch.stack([preprocess(Image.fromarray(picture)) for picture in shaped])
    return inputs.contiguous(), torch.from_numpy(labels.astype(np.int64))
