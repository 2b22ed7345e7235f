"""What was measured, kept as it comes: files that say what they were measured with."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def blocks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """So many pictures in blocks that bound memory."""
    return ((start, min(start + size, count)) for start in range(0, count, size))


def known(path: Path, settings: dict[str, str]) -> bool:
    """Whether this was measured, with these settings."""
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        return file.metadata() == settings


def keep(found: dict[str, Tensor], path: Path, settings: dict[str, str]) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in found.items()}, path.with_suffix(".part"), settings)
    path.with_suffix(".part").rename(path)


def joined(paths: list[Path]) -> dict[str, Tensor]:
    """What was measured of all blocks: rows one after the other, and sums of what has none."""
    parts = [load_file(path) for path in paths]
    return {
        name: torch.stack([p[name] for p in parts]).sum() if value.ndim == 0 else torch.cat([p[name] for p in parts])
        for name, value in parts[0].items()
    }
