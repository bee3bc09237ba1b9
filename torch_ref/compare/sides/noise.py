"""How far rounding moves a hand in NumPy: it runs again with a random error in every operation.

Monte Carlo arithmetic (Parker 1997, section 3): each result of an operation that rounds is off by
two unit roundoffs, up or down, so that float64 holds it even beside a power of two; a sum, or a
product of matrices, by two of the sum of its terms' sizes. What is exact stays as it is: a choice
by it is none that rounding could turn. What comes out then scatters as rounding scatters it,
however the formula loses digits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torch_ref.compare.sides.into_numpy import IntoNumPy, Seen, plain, plain_operands
from torch_ref.compare.twin import Values

RUNS = 8
# Of the largest deviation in so few runs, how much is granted.
SAFETY = 4
# What does not round; any other ufunc does.
_EXACT = {"positive", "negative", "absolute", "fabs", "sign", "signbit", "copysign", "maximum",
          "minimum", "fmax", "fmin", "floor", "ceil", "rint", "trunc", "heaviside", "ldexp",
          "clip", "conjugate"}  # fmt: skip
# Functions that multiply or add up themselves, without a ufunc that could be told of.
_PRODUCTS = {"dot", "vdot", "inner", "outer", "einsum", "correlate", "convolve", "trace"}

# What may be exact, so that a choice by it is none that rounding could turn.
_ARITHMETIC = {"add", "subtract", "multiply", "divide"}
_LONGER = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps  # not on every machine


@dataclass(frozen=True)
class _Noise:
    unit_roundoff: float
    generator: np.random.Generator

    def errors(self, sizes: Any, kind: str) -> Any:
        """Random errors for numbers of these sizes, of the dtype kind "f" or "c"."""
        ways = (-1.0, 1.0) if kind == "f" else (-1.0, 1.0, -1.0j, 1.0j)
        finite = np.where(np.isfinite(sizes), sizes, 0.0)  # what is infinite is so exactly
        return 2 * self.unit_roundoff * self.generator.choice(ways, np.shape(sizes)) * finite

    def holds(self, numbers: Any) -> Any:
        """Where the dtype under test has these numbers as they are, its range left aside."""
        fraction, _ = np.frexp(numbers)
        return np.mod(fraction / self.unit_roundoff, 1) == 0


_noise: ContextVar[_Noise | None] = ContextVar("_noise", default=None)


class Noisy(Seen):
    """An array whose operations are off at random, as its results' are, within `noise`."""

    def __getitem__(self, key: Any) -> Any:
        return _noisy(super().__getitem__(key))

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: Any, *inputs: Any, out: Any = None, **kwargs: Any
    ) -> Any:
        args, kwargs = plain_operands(inputs, out, kwargs)
        exact = _exactly(ufunc, method, args)  # before `out` may overwrite them
        result = getattr(ufunc, method)(*args, **kwargs)
        if ufunc.__name__ not in _EXACT and not isinstance(result, tuple):
            sizes = _sizes(ufunc, method, args, kwargs, result)
            result = _off(result, sizes if exact is None else sizes * _rounds(result, exact), out)
        return out[0] if out is not None and len(out) == 1 else _noisy(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func.__module__ in ("numpy.linalg", "numpy.fft"):  # stable: as if arguments were off
            args = tuple(_off(plain(arg), _largest(arg)) for arg in args)
        result = super().__array_function__(func, types, args, kwargs)
        if func.__name__ not in _PRODUCTS:
            return result
        sizes = func(*map(_size, args), **{key: kwargs[key] for key in kwargs.keys() - {"out"}})
        return _noisy(_off(plain(result), sizes, kwargs.get("out")))


@contextmanager
def noise(unit_roundoff: float, seed: int) -> Iterator[None]:
    """While it is on, NumPy's operations on tensors' numbers are off by so much at random."""
    token = _noise.set(_Noise(unit_roundoff, np.random.default_rng(seed)))
    try:
        with IntoNumPy(_noisy), np.errstate(all="ignore"):
            yield
    finally:
        _noise.reset(token)


def scattered(hand: Callable[[], Values], expected: Values, unit_roundoff: float) -> Values:
    """How far the hand's numbers may be off: SAFETY times the largest deviation from `expected`, in
    RUNS runs. Infinite where one alone is no number; 0 of a hand that does nothing in NumPy."""
    found = {name: torch.zeros_like(value) for name, value in expected.items()}
    for run in range(RUNS):
        with noise(unit_roundoff, run):
            answer = hand()
        for name, value in expected.items():
            deviation = (answer[name] - value).abs().nan_to_num(nan=torch.inf)
            deviation = torch.where(answer[name].isnan() & value.isnan(), 0.0, deviation)
            found[name] = torch.maximum(found[name], SAFETY * deviation)
    return found


def _sizes(ufunc: np.ufunc, method: str, args: Any, kwargs: Any, result: Any) -> Any:
    """What a result is off by a part of: its terms' sizes together, or its own."""
    adds = ufunc.signature is not None or (ufunc is np.add and method != "__call__")
    if not adds or method == "at":
        return np.abs(result) if result is not None else None
    others = {key: kwargs[key] for key in kwargs.keys() - {"out"}}
    return getattr(ufunc, method)(*map(_size, args), **others)


def _exactly(ufunc: np.ufunc, method: Any, args: Any) -> Any:
    """The result in more digits than float64 has, where it can be had and may be exact."""
    real = all(np.asarray(arg).dtype.kind in "fiu" for arg in args)
    if ufunc.__name__ not in _ARITHMETIC or method != "__call__" or not (_LONGER and real):
        return None
    return ufunc(*(np.asarray(arg, np.longdouble) for arg in args))


def _rounds(result: Any, exact: Any) -> Any:
    """Where a result is not what it is in more digits, or the dtype under test has to round it."""
    noise = _noise.get()
    if noise is None:
        return True
    return (np.asarray(result, np.longdouble) != exact) | ~noise.holds(result)


def _off(result: Any, sizes: Any, out: Any = None) -> Any:
    """The result, or what it is written to, with random errors."""
    noise = _noise.get()
    if noise is None or sizes is None or not _floating(result):
        return result
    errors = noise.errors(sizes, result.dtype.kind)
    if out is None:
        return result + errors
    result += errors
    return result


def _floating(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.inexact)) and value.dtype.kind in "fc"


def _noisy(value: Any) -> Any:
    """A single number, too, which would be nobody's else."""
    return np.asarray(value).view(Noisy) if _floating(value) else value


def _size(value: Any) -> Any:
    return np.abs(plain(value)) if _floating(value) else value


def _largest(value: Any) -> Any:
    """As errors of matrices are bounded, by their norms: what is 0 is off, too."""
    if not _floating(value) or not value.size:
        return None
    return np.full(value.shape, _size(value).max())
