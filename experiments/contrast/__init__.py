"""Contrast: why one class and not another, as in the papers and in figures of merit."""
