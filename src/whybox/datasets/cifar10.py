"""CIFAR-10: the Python batches that torchvision reads, or pictures in one folder per class."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from whybox.core.errors import InputError
from whybox.datasets import folder


def read(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 32, 32, 3) as bytes, and labels."""
    batches = root / "cifar-10-batches-py"
    if batches.is_dir():
        names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
        parts = [_batch(batches / name) for name in names]
        pictures = np.concatenate([data for data, _ in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return pictures, np.concatenate([labels for _, labels in parts])
    pictures_folder = root / "cifar10" / split
    if pictures_folder.is_dir():
        return folder.arrays(*folder.classes(pictures_folder))
    raise InputError(
        f"found neither {batches} (torchvision's layout) nor {pictures_folder} (one folder of pictures per class); "
        "the data are never downloaded"
    )


class _Arrays(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else, so that no file can run code."""

    _ALLOWED = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module: str, name: str) -> Any:
        """The three names that an array needs."""
        if module.partition(".")[0] == "numpy" and name in self._ALLOWED:
            return {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, and might run code")


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pictures (n, 3072) and the labels of one batch file."""
    try:
        with path.open("rb") as file:
            content = _Arrays(file, encoding="latin1").load()
        return np.asarray(content["data"], dtype=np.uint8).reshape(-1, 3072), np.asarray(content["labels"])
    except Exception as error:  # a damaged pickle fails in many ways
        raise InputError(f"{path} is absent, damaged or no batch of CIFAR-10: {error}") from error
