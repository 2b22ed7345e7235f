"""Where in the input an activation belongs: feature maps, channels-last maps and rows of tokens, as one grid."""

import torch
from torch import Tensor

# Class, distillation and register tokens that may stand before the patches of a token model.
MOST_PREFIX_TOKENS = 16


def to_grid(activation: Tensor, positions: tuple[int, ...]) -> Tensor | None:
    """The activation as feature maps (n, k, *grid) over an input whose positions are of this shape, or None.

    Understood are maps (n, k, h, w), channels-last maps (n, h, w, k) as in Swin, and tokens (n, t, k) as in ViT,
    whose first tokens (class, distillation, registers) stand for no place and are left out. For an input with one
    axis of positions, as a time series, or three, as a video: maps (n, k, *grid).
    """
    if activation.ndim == len(positions) + 2:
        if len(positions) == 2 and _skew(activation.shape[1:3], positions) < _skew(activation.shape[2:4], positions):
            return activation.movedim(-1, 1)
        return activation
    if activation.ndim == 3 and len(positions) == 2:
        grid = _token_grid(activation.shape[1], positions)
        if grid is not None:
            patches = activation[:, activation.shape[1] - grid[0] * grid[1] :]
            return patches.reshape(len(patches), *grid, -1).movedim(-1, 1)
    return None


def by_position(relevance: Tensor, inputs: Tensor) -> Tensor:
    """One value per position, (n, *grid): the channels summed, and a layer's relevance laid out over the input.

    A table (n, d) stays as it is. Of relevance inside a model for pictures, rows of tokens and channels-last maps are
    laid out as in `to_grid`; for a row of token numbers (n, t), relevance (n, t, d) is summed over d.
    """
    if relevance.ndim <= 2:
        return relevance
    if inputs.ndim == 2 and relevance.ndim == 3:
        return relevance.sum(2)
    grid = to_grid(relevance, tuple(inputs.shape[2:])) if inputs.ndim > 2 else None
    return relevance.sum(1) if grid is None else grid.sum(1)


def _skew(grid: torch.Size, positions: tuple[int, ...]) -> float:
    """How differently the two axes are scaled down: 1 where the grid has the picture's proportions."""
    down, right = positions[0] / grid[0], positions[1] / grid[1]
    return max(down / right, right / down)


def _token_grid(tokens: int, positions: tuple[int, ...]) -> tuple[int, int] | None:
    """The grid of patches with the picture's proportions that leaves the fewest tokens over."""
    height, width = positions
    for prefix in range(min(MOST_PREFIX_TOKENS, tokens - 1) + 1):
        patches = tokens - prefix
        rows = round((patches * height / width) ** 0.5)
        if rows and patches % rows == 0 and rows * width == patches // rows * height:
            return rows, patches // rows
    return None
