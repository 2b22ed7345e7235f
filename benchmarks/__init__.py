"""Benchmarks of whybox against raw PyTorch and against Captum: `python -m benchmarks`, or `make bench`."""
