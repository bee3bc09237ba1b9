"""How the errors of a quantity are spread: elements counted by error over bound, log scale."""

from bisect import bisect_left

import torch
from torch import Tensor

# Bins: equal; up to 2^-16 of what rounding allows; (4^k, 4^(k+1)] from there to 2^16; beyond.
LOWEST, HIGHEST = -8, 8
BINS = 2 + (HIGHEST - LOWEST) + 1
WITHIN = 2 - LOWEST  # so many bins, the first ones, hold what rounding allows: a ratio of at most 1
EMPTY = (0,) * BINS
ENDS = (0.0, *(4.0**k for k in range(LOWEST, HIGHEST + 1)))
FEW = 128  # elements that are counted faster one by one than by ten operations on a tensor
# A float64 is its sign, 11 bits of biased exponent and 52 of fraction; as an integer 0 is the least
# that is not negative. Numbers below 2^-1022, which no ratio is, would count as 0.
_FRACTION, _BIAS = 52, 1023
_ZERO, _UNDECIDED = -512, -513


def histogram(ratio: Tensor) -> tuple[int, ...]:
    """BINS counts of the elements of `ratio`, float64 of any shape: 0 to infinity, or -1 for an
    undecided element, which is not counted.

    The bins are found from the exponents, which is cheaper than a logarithm.
    """
    if ratio.numel() <= FEW:
        return _one_by_one(ratio.reshape(-1).tolist())
    below = ratio.reshape(-1).view(torch.int64) - 1  # so that a power of 4 ends its bin
    power = (below >> _FRACTION).sub_(_BIAS) >> 1
    place = power.clamp_(_UNDECIDED, HIGHEST).sub_(_UNDECIDED)
    counts: list[int] = torch.bincount(place, minlength=HIGHEST - _UNDECIDED + 1).tolist()
    zero, lowest = _ZERO - _UNDECIDED, LOWEST - _UNDECIDED
    return (counts[zero], sum(counts[zero + 1 : lowest]), *counts[lowest:])


def _one_by_one(ratios: list[float]) -> tuple[int, ...]:
    counts = list(EMPTY)
    for ratio in ratios:
        if ratio >= 0:
            counts[bisect_left(ENDS, ratio)] += 1
    return tuple(counts)


def added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip(one, other, strict=True)))
