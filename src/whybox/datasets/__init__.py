"""Data sets by name, from local files: `whybox.datasets.load("digits")`. Nothing is ever downloaded."""

from whybox.datasets.images import read_image
from whybox.datasets.load import load

__all__ = ["load", "read_image"]
