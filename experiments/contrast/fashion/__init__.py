"""Contrasts of Fashion-MNIST: what a plain and a residual net take for the difference between two garments."""
