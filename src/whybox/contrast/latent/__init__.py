"""Latent models: what a contrast moves in instead of the pixels. `whybox.latent`."""

from whybox.contrast.latent.model import Latent
from whybox.contrast.latent.training import train
from whybox.contrast.latent.vae import VAE
from whybox.contrast.latent.wgan import WGAN

__all__ = ["VAE", "WGAN", "Latent", "train"]
