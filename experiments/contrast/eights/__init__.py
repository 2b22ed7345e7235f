"""Biased eights: a classifier that knows an eight by a square in the corner, asked why something is not an eight."""
