"""Models by name: `whybox.models.load("torchvision:squeezenet1_0")`."""

from whybox.models.load import load
from whybox.models.preprocess import ImagePreprocess

__all__ = ["ImagePreprocess", "load"]
