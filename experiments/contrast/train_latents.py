"""Train the latent models: `python -m experiments.contrast.train_latents NAME`, NAME from the table below.

The digits' model is written into the package, the others beside this file. A training that was stopped goes on where
its last checkpoint was; a model that is there is read, not trained again. `WHYBOX_DATA` names the folder of the data.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from experiments.contrast.eights.bias import Bias
from experiments.contrast.nets import mnist
from torch import Tensor

from whybox.contrast.latent import VAE, WGAN, train

HERE = Path(__file__).parent
DIGITS = HERE.parents[1] / "src/whybox/contrast/latent/digits.safetensors"


def eights() -> Tensor:
    """MNIST's training digits with the square on every eight."""
    return Bias().biased(*mnist("train"))


# What is trained on which data, a data set by name or what gives samples, and where it goes.
MODELS: dict[str, tuple[str | Callable[[], Tensor], WGAN | VAE, Path]] = {
    "digits": ("digits", WGAN(size=32, steps=3_000, critic_steps=3, rate=5e-4, encoder_steps=2_000), DIGITS),
    "mnist": ("MNIST", WGAN(steps=5_000, critic_steps=3, rate=4e-4, encoder_steps=2_000), HERE / "mnist.latent"),
    "mnist-vae": ("MNIST", VAE(size=32, steps=4_000), HERE / "mnist-vae.latent"),
    "eights-vae": (eights, VAE(size=32, steps=1_500), HERE / "eights-vae.latent"),
    "eights": (eights, WGAN(steps=3_000, critic_steps=3, rate=4e-4, encoder_steps=1_500), HERE / "eights.latent"),
}


def main(name: str) -> None:
    """Train one of them."""
    torch.set_num_threads(1)
    data, kind, out = MODELS[name]
    print(train(data if isinstance(data, str) else data(), kind, out))


if __name__ == "__main__":
    main(sys.argv[1])
