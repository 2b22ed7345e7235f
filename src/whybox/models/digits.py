"""The embedded model: a small CNN for scikit-learn's handwritten digits, trained by experiments/train_digits.py."""

from collections import OrderedDict
from importlib.resources import as_file, files

from torch import nn

from whybox.core.model import Model
from whybox.models.checkpoints import Weights, load_weights, source
from whybox.models.preprocess import ImagePreprocess

# White ink on black, 8 × 8 pixels, as the data have it; values from 0 to 1.
PREPROCESS = ImagePreprocess(mode="L", resize=(8, 8), interpolation="bilinear")


def digits_net() -> nn.Module:
    """Four convolutions, global average pooling and one linear layer: (n, 1, 8, 8) → (n, 10)."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 32, 3, padding=1),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 64, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(64, 64, 3, padding=1),
            relu4=nn.ReLU(),
            average=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(64, 10),
        )
    )


def load_digits(weights: Weights) -> Model:
    """`digits`, with the weights that come with whybox unless others are given."""
    module = digits_net()
    if weights is None:
        with as_file(files("whybox.models") / "digits.safetensors") as path:
            load_weights(module, path)
    elif weights != "random":
        load_weights(module, weights)
    return Model(
        module,
        name="digits" if weights is None else f"digits ({source(weights, '')})",
        preprocess=PREPROCESS,
        labels=[str(digit) for digit in range(10)],
    )
