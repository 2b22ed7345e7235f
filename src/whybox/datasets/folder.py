"""Folders of pictures: one folder per class, or flat."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from whybox.core.errors import InputError
from whybox.datasets.images import read_image

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read(path: Path, split: str, preprocess: Callable[[Image.Image], Tensor] | None) -> tuple[Tensor, Tensor | None]:
    """The pictures as inputs, and the labels of the class folders, or None if the folder is flat."""
    if not path.is_dir():
        raise InputError(f"there is no folder {str(path)!r}; it should hold pictures, or one folder of them per class")
    path = path / split if (path / split).is_dir() else path
    flat = _pictures(path)
    files, labels = (flat, None) if flat else classes(path)
    if preprocess is not None:
        inputs = torch.stack([preprocess(read_image(file)) for file in files])
    else:
        inputs = (torch.from_numpy(arrays(files, ())[0]).permute(0, 3, 1, 2) / 255).contiguous()
    return inputs, None if labels is None else torch.tensor(labels)


def classes(path: Path) -> tuple[list[Path], list[int]]:
    """The pictures in the class folders, and the number of their class in alphabetical order."""
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    found = [(file, label) for label, entry in enumerate(folders) for file in _pictures(entry)]
    if not found:
        raise InputError(f"{path} holds no pictures ({', '.join(_SUFFIXES)}), nor do the folders in it")
    return [file for file, _ in found], [label for _, label in found]


def arrays(files: Sequence[Path], labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of one size as bytes (n, h, w, 3), and the labels."""
    pictures = [np.asarray(read_image(file)) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise InputError(
                f"{file} has {picture.shape[1]} × {picture.shape[0]} pixels, {files[0].name} has "
                f"{pictures[0].shape[1]} × {pictures[0].shape[0]}: give preprocess=, such as model.preprocess"
            )
    return np.stack(pictures), np.asarray(labels)


def _pictures(path: Path) -> list[Path]:
    """The pictures that lie in this folder itself, by name."""
    return sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and not file.name.startswith("."))
