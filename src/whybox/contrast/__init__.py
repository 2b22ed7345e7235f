"""Contrast: why this class and not that one, in the space of natural inputs."""
