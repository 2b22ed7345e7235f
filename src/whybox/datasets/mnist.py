"""MNIST and Fashion-MNIST: IDX files, plain or gzipped, in the folders that torchvision uses."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from whybox.core.errors import InputError


def read(name: str, root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 28, 28, 1) as bytes, and labels."""
    stem = root / name / "raw" / ("train" if split == "train" else "t10k")
    pictures, labels = _idx(stem, "images-idx3-ubyte", 3), _idx(stem, "labels-idx1-ubyte", 1)
    if len(pictures) != len(labels):
        raise InputError(f"{stem.parent} holds {len(pictures)} pictures but {len(labels)} labels; fetch it anew")
    return pictures[..., None], labels


def _idx(stem: Path, ending: str, axes: int) -> np.ndarray:
    """The array in an IDX file of bytes: two zeros, the type (8), the number of axes, their sizes, the values."""
    path = stem.with_name(f"{stem.name}-{ending}")
    packed = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"found neither {path} nor {packed.name} beside it; the data are never downloaded") from error
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{packed} is damaged: {error}") from error
    shape = tuple(int(size) for size in np.frombuffer(content[4 : 4 + 4 * axes], dtype=">i4"))
    if content[:4] != bytes((0, 0, 8, axes)) or math.prod(shape) != len(content) - 4 - 4 * axes:
        raise InputError(f"{path} is damaged or no IDX file of {axes} axes")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
