"""Latent models: what a contrast moves in, instead of the pixels; `whybox.latent`."""

from whybox.contrast.latent.model import Latent

__all__ = ["Latent"]
