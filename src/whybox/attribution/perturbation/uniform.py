"""Random numbers as a function of key, number, column and salt alone, so that chunks and devices do not change them."""

import torch
from torch import Tensor


def uniform(key: Tensor, number: Tensor, columns: int, salt: int = 0) -> Tensor:
    """Numbers in [0, 1), float64 (k, columns): row j depends on key[j] and number[j] (int64), and on salt, alone.

    SplitMix64 (Steele, Lea & Flood 2014, doi 10.1145/2660193.2660195) as a counter: nothing is drawn in order, so
    any row can be made at any time, and again.
    """
    row = _mix(_mix(key + torch.tensor(salt) * _GAMMA) + number * _GAMMA)[:, None]
    bits = _mix(row + torch.arange(1, columns + 1) * _GAMMA)
    return _shift(bits, 11).double() * 2.0**-53


_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # int64 arithmetic wraps around, as that of the generator does


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ _shift(state, 27)) * (0x94D049BB133111EB - 2**64)
    return state ^ _shift(state, 31)


def _shift(bits: Tensor, places: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
