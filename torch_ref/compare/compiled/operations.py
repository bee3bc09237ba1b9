"""What ATen's operations do to symbols: each on arrays of symbols, one for a number of the tensor.

Only what is done number by number, moves numbers, or adds a few up along an axis that a case has
for itself is in here. What is missing cannot be compiled, and is judged as it always was.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch

from torch_ref.compare.compiled.algebra import Algebra, is_condition

Symbols = Any  # a NumPy array of dtype object, or one number
END = 2**63 - 1  # what a slice without an end ends at


class Operations:
    """ATen's operations by name, as methods; `find` gives them."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra = algebra

    def find(self, name: str) -> Callable[..., Symbols] | None:
        """The operation of this name; None where it is missing."""
        if name in _PLAIN:
            return self._plain(_PLAIN[name])
        return getattr(self, f"aten_{name.lstrip('_')}", None)

    def _plain(self, operation: str) -> Callable[..., Symbols]:
        """An operation of the algebra, on whole arrays."""

        def on_arrays(*operands: Symbols) -> Symbols:
            applied = np.frompyfunc(
                lambda *numbers: self.algebra.apply(operation, *numbers), len(operands), 1
            )
            if operation in _LOGICAL and not all(map(_are_conditions, operands)):
                return NotImplemented
            with np.errstate(all="ignore"):  # as torch does
                return applied(*map(_as_floats, operands))

        return on_arrays

    def _apply(self, operation: str, *operands: Symbols) -> Symbols:
        return self._plain(operation)(*operands)

    # number by number

    def aten_add(self, left: Symbols, right: Symbols, *, alpha: float = 1) -> Symbols:
        return self._apply("add", left, self._scaled(right, alpha))

    def aten_sub(self, left: Symbols, right: Symbols, *, alpha: float = 1) -> Symbols:
        return self._apply("subtract", left, self._scaled(right, alpha))

    def aten_rsub(self, left: Symbols, right: Symbols, alpha: float = 1) -> Symbols:
        return self._apply("subtract", right, self._scaled(left, alpha))

    def _scaled(self, symbols: Symbols, alpha: float) -> Symbols:
        return symbols if alpha == 1 else self._apply("multiply", symbols, alpha)

    def aten_mul(self, left: Symbols, right: Symbols) -> Symbols:
        both = _are_conditions(left) and _are_conditions(right)
        return self._apply("logical_and" if both else "multiply", left, right)

    def aten_reciprocal(self, value: Symbols) -> Symbols:
        return self._apply("divide", 1.0, value)

    def aten_rsqrt(self, value: Symbols) -> Symbols:
        return self.aten_reciprocal(self._apply("sqrt", value))

    def aten_square(self, value: Symbols) -> Symbols:
        return self._apply("multiply", value, value)

    def aten_pow(self, value: Symbols, exponent: Any) -> Symbols:
        """Of the exponents for which torch multiplies and takes roots, too."""
        if isinstance(exponent, np.ndarray) or exponent not in (-2, -1, -0.5, 0, 0.5, 1, 2, 3):
            return NotImplemented
        if exponent == 0:
            return np.full(value.shape, 1.0, dtype=object)
        if exponent < 0:
            return self.aten_reciprocal(self.aten_pow(value, -exponent))
        if exponent == 0.5:
            return self._apply("sqrt", value)
        return reduce(self._plain("multiply"), [value] * int(exponent))

    def aten_log10(self, value: Symbols) -> Symbols:
        return self._apply("multiply", self._apply("log", value), 1 / math.log(10))

    def aten_sigmoid(self, value: Symbols) -> Symbols:
        """1/(1 + e^-x) for x >= 0 and e^x/(1 + e^x) below, so that nothing overflows."""
        small = self._apply("exp", self._apply("negative", self._apply("abs", value)))
        above = self._apply("where", self._apply("greater_equal", value, 0.0), 1.0, small)
        return self._apply("divide", above, self._apply("add", 1.0, small))

    def aten_sigmoid_backward(self, upstream: Symbols, result: Symbols) -> Symbols:
        other = self._apply("subtract", 1.0, result)
        return self._apply("multiply", self._apply("multiply", upstream, other), result)

    def aten_maximum(self, left: Symbols, right: Symbols) -> Symbols:
        return self._either("greater", left, right)

    def aten_minimum(self, left: Symbols, right: Symbols) -> Symbols:
        return self._either("less", left, right)

    def _either(self, comparison: str, left: Symbols, right: Symbols) -> Symbols:
        """The left one where it compares so with the right, and NaN where one is NaN."""
        is_nan = self._apply("not_equal", left, left)
        takes_left = self._apply("logical_or", is_nan, self._apply(comparison, left, right))
        return self._apply("where", takes_left, left, right)

    def aten_relu(self, value: Symbols) -> Symbols:
        return self.aten_clamp(value, 0.0)

    def aten_clamp(self, value: Symbols, min: Any = None, max: Any = None) -> Symbols:
        if min is not None:
            value = self._apply("where", self._apply("less", value, min), min, value)
        if max is not None:
            value = self._apply("where", self._apply("greater", value, max), max, value)
        return value

    def aten_nan_to_num(
        self, value: Symbols, nan: float = 0.0, posinf: Any = None, neginf: Any = None
    ) -> Symbols:
        ends = torch.finfo(torch.float64)
        for infinite, limit, otherwise in (
            (math.inf, posinf, ends.max),
            (-math.inf, neginf, ends.min),
        ):
            put = otherwise if limit is None else limit
            if put != infinite:
                value = self._apply("where", self._apply("equal", value, infinite), put, value)
        return self._apply("where", self._apply("equal", value, value), value, nan)

    def aten_isinf(self, value: Symbols) -> Symbols:
        return self._apply("equal", self._apply("abs", value), math.inf)

    def aten_isnan(self, value: Symbols) -> Symbols:
        return self._apply("not_equal", value, value)

    def aten_to_copy(self, value: Symbols, *, dtype: Any = None, **_: Any) -> Symbols:
        return NotImplemented if dtype == torch.bool and not _are_conditions(value) else value

    # numbers that move

    def aten_alias(self, value: Symbols) -> Symbols:
        return value

    aten_detach = aten_lift_fresh_copy = aten_alias

    def aten_clone(self, value: Symbols, *, memory_format: Any = None) -> Symbols:
        return value

    def aten_expand(self, value: Symbols, size: Sequence[int]) -> Symbols:
        kept = (1,) * (len(size) - value.ndim) + value.shape
        return np.broadcast_to(
            value, [own if new < 0 else new for own, new in zip(kept, size, strict=True)]
        )

    def aten_view(self, value: Symbols, size: Sequence[int]) -> Symbols:
        return value.reshape(size)

    aten_unsafe_view = aten_reshape = aten_view

    def aten_unsqueeze(self, value: Symbols, axis: int) -> Symbols:
        return np.expand_dims(value, axis)

    def aten_squeeze(self, value: Symbols, axes: int | Sequence[int]) -> Symbols:
        axes = (axes,) if isinstance(axes, int) else tuple(axes)
        return np.squeeze(value, tuple(axis for axis in axes if value.shape[axis] == 1))

    def aten_select(self, value: Symbols, axis: int, index: int) -> Symbols:
        return np.take(value, index, axis)

    def aten_slice(
        self, value: Symbols, axis: int = 0, start: int | None = None, end: int | None = None,
        step: int = 1,
    ) -> Symbols:  # fmt: skip
        taken = [slice(None)] * value.ndim
        taken[axis] = slice(start, None if end == END else end, step)
        return value[tuple(taken)]

    def aten_permute(self, value: Symbols, axes: Sequence[int]) -> Symbols:
        return np.transpose(value, axes)

    def aten_transpose(self, value: Symbols, one: int, other: int) -> Symbols:
        return np.swapaxes(value, one, other)

    def aten_t(self, value: Symbols) -> Symbols:
        return np.transpose(value)

    def aten_stack(self, values: Sequence[Symbols], axis: int = 0) -> Symbols:
        return np.stack(values, axis)

    def aten_cat(self, values: Sequence[Symbols], axis: int = 0) -> Symbols:
        return np.concatenate(values, axis)

    # along an axis

    def aten_sum(
        self, value: Symbols, axes: Sequence[int] | None = None, keepdim: bool = False
    ) -> Symbols:
        return self._along("add", value, axes, keepdim)

    def aten_mean(
        self, value: Symbols, axes: Sequence[int] | None = None, keepdim: bool = False
    ) -> Symbols:
        summed = self._along("add", value, axes, keepdim)
        return self._apply("divide", summed, float(value.size // summed.size))

    def aten_any(self, value: Symbols, axis: int | None = None, keepdim: bool = False) -> Symbols:
        return self._along("logical_or", value, None if axis is None else [axis], keepdim)

    def aten_amax(self, value: Symbols, axes: Sequence[int], keepdim: bool = False) -> Symbols:
        return self._along(self.aten_maximum, value, axes, keepdim)

    def _along(
        self, operation: Any, value: Symbols, axes: Sequence[int] | None, keepdim: bool
    ) -> Symbols:
        """One number after the other; all axes where none is given, as torch has it."""
        join = self._plain(operation) if isinstance(operation, str) else operation
        for axis in sorted((a % value.ndim for a in axes or range(value.ndim)), reverse=True):
            parts = [np.take(value, [i], axis) for i in range(value.shape[axis])]
            value = reduce(join, parts)
            value = value if keepdim else np.squeeze(value, axis)
        return value


_PLAIN = {
    "abs": "abs", "neg": "negative", "exp": "exp", "log": "log", "log1p": "log1p", "sqrt": "sqrt",
    "div": "divide", "copysign": "copysign", "where": "where", "lt": "less", "le": "less_equal",
    "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
    "bitwise_and": "logical_and", "logical_and": "logical_and", "bitwise_or": "logical_or",
    "logical_or": "logical_or", "bitwise_not": "logical_not", "logical_not": "logical_not",
}  # fmt: skip
_LOGICAL = ("logical_and", "logical_or", "logical_not")


def _as_floats(operand: Symbols) -> Symbols:
    """A whole number written in the code is a float in this arithmetic; True is not 1."""
    whole = isinstance(operand, int) and not isinstance(operand, bool)
    return float(operand) if whole else operand


def _are_conditions(value: Symbols) -> bool:
    return all(map(is_condition, np.asarray(value, dtype=object).flat))
