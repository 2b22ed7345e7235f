"""Explainers with parameters of their own, which are fitted once and then explain any input in one pass."""
