"""Which sizes the axes of a one-case twin have: where code that is right for others goes wrong."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

Way = Callable[[np.random.Generator, int, int], int]  # a size from low to high, inclusive


def any_size(generator: np.random.Generator, low: int, high: int) -> int:
    """Low to high, inclusive."""
    return int(generator.integers(low, high + 1))


def _prime_size(generator: np.random.Generator, low: int, high: int) -> int:
    return _one_of(generator, _primes(low, high), high)


def _odd_size(generator: np.random.Generator, low: int, high: int) -> int:
    return _one_of(generator, range(low | 1, high + 1, 2), high)


def _even_size(generator: np.random.Generator, low: int, high: int) -> int:
    return _one_of(generator, range(low + low % 2, high + 1, 2), high)


def _one_of(generator: np.random.Generator, sizes: Sequence[int], otherwise: int) -> int:
    return sizes[int(generator.integers(len(sizes)))] if len(sizes) else otherwise


@cache
def _primes(low: int, high: int) -> Sequence[int]:
    """From low to high, inclusive, by the sieve of Eratosthenes."""
    is_prime = np.ones(high + 1, dtype=bool)
    is_prime[:2] = False
    for n in range(2, math.isqrt(high) + 1):
        if is_prime[n]:
            is_prime[n * n :: n] = False
    return tuple((low + np.flatnonzero(is_prime[low:])).tolist())


def _smallest_size(generator: np.random.Generator, low: int, high: int) -> int:
    return low


def _largest_size(generator: np.random.Generator, low: int, high: int) -> int:
    return high


class _OneSmallest:
    """The smallest size for one axis alone, and what `others` gives for the rest."""

    def __init__(self, axis: int, others: Way) -> None:
        self.axis, self.others, self.asked = axis, others, 0

    def __call__(self, generator: np.random.Generator, low: int, high: int) -> int:
        smallest = self.asked == self.axis
        self.asked += 1
        return low if smallest else self.others(generator, low, high)


class _EqualSizes:
    """One size for all axes, as far as each may have it."""

    def __init__(self) -> None:
        self.size: int | None = None

    def __call__(self, generator: np.random.Generator, low: int, high: int) -> int:
        if self.size is None:
            self.size = any_size(generator, low, high)
        return min(max(self.size, low), high)


# By turns: code that is right for even sizes, or where none is 1, need not be right for others.
# Each is made anew for a case, since some know what was asked before.
_WAYS: tuple[Callable[[], Way], ...] = (
    lambda: any_size,
    lambda: _prime_size,
    lambda: _smallest_size,
    lambda: _OneSmallest(0, _odd_size),
    lambda: _largest_size,
    _EqualSizes,
    lambda: _OneSmallest(1, _even_size),
)


def way_of(chosen: int) -> Way:
    """How the sizes of a set are chosen; any, of the sets after the first ones."""
    return _WAYS[chosen]() if chosen < len(_WAYS) else any_size


def set_of_sizes(turn: int) -> int:
    """Which set of sizes a turn of all strata has: a new one in each of the first 8 turns, then one
    more whenever the turns have doubled, since each means recording both sides anew."""
    return turn if turn < 8 else turn % (8 + turn.bit_length() - 3)
