"""Symbols that stand for the numbers of one case, written as short as IEEE 754 allows.

What is known without the numbers is worked out here: constants, selections of one and the same,
|x| of what cannot be negative. Nothing is rewritten that could round otherwise.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from torch_ref.native.stages import CONDITIONS
from torch_ref.native.symbols import Graph, Symbol

_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "negative": np.negative, "abs": np.abs, "exp": np.exp, "log": np.log, "log1p": np.log1p,
    "sqrt": np.sqrt, "add": np.add, "subtract": np.subtract, "multiply": np.multiply,
    "divide": np.divide, "copysign": np.copysign, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal, "equal": np.equal,
    "not_equal": np.not_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_not": np.logical_not, "where": np.where,
}  # fmt: skip


MOST = 200_000  # symbols, of all cases; a C compiler would take minutes for more
# Comparisons of a finite number with itself, and with infinity.
_OF_FINITE = {"equal": (True, False), "not_equal": (False, True), "less": (False, True)}


class CannotCompileError(Exception):
    """The code is more than formulas of single numbers; the message says what it does."""


class Algebra(Graph):
    """All symbols of one trace; `apply` makes them."""

    def __init__(self) -> None:
        super().__init__(np.dtype(np.float64))
        self._sizes: dict[Symbol, bool] = {}
        self._numbers: dict[Symbol, bool] = {}
        self._finite: set[Symbol] = set()

    def apply(self, operation: str, *operands: Any) -> Any:
        """The operation on symbols, floats and bools."""
        if not any(isinstance(operand, Symbol) for operand in operands):
            with np.errstate(all="ignore"):
                return _OF_NUMBERS[operation](*operands).item()
        if len(self.known) > MOST:
            raise CannotCompileError(f"it takes more than {MOST:,} operations a case")
        known = self._without_the_numbers(operation, operands)
        return self.symbol(operation, *operands) if known is None else known

    def _without_the_numbers(self, operation: str, operands: tuple[Any, ...]) -> Any:
        """The shorter form, None where there is none."""
        first = operands[0]
        if operation == "abs":
            if self.is_size(first):
                return first
            return self.apply("abs", first.operands[0]) if first.operation == "negative" else None
        if operation in ("logical_and", "logical_or"):
            return self._joined(operation == "logical_and", operands)
        if operation == "logical_not":
            return first.operands[0] if first.operation == "logical_not" else None
        if operation == "where":
            return self._selected(*operands)
        if operation == "multiply":
            return self._multiplied(*operands)
        if operation == "add" and all(map(self.is_size, operands)):  # -0.0 + 0.0 would be 0.0
            return _without(0.0, operands)
        if operation == "not_equal" and is_condition(first) and _is(operands[1], 0.0):
            return first
        below = {"less": 0.0, "equal": -math.inf}.get(operation)
        if below is not None and _is(operands[1], below) and self.is_size(first):
            return False
        return self._of_finite(operation, *operands) if operation in _OF_FINITE else None

    def assume_finite(self, value: Any) -> None:
        """From now on formulas need only hold where this is no infinity and no NaN."""
        if not isinstance(value, Symbol) or value in self._finite:
            return
        self._finite.add(value)
        sum_of_sizes = value.operation == "add" and all(map(self.is_size, value.operands))
        if sum_of_sizes or value.operation in ("abs", "negative"):
            for operand in value.operands:
                self.assume_finite(operand)

    def is_finite(self, value: Any) -> bool:
        """Whether that is known or assumed of a number."""
        if not isinstance(value, Symbol):
            return math.isfinite(value)
        signed = value.operation in ("abs", "negative")
        return value in self._finite or (signed and self.is_finite(value.operands[0]))

    def is_number(self, value: Any) -> bool:
        """Whether that is known or assumed: no NaN, but it may be infinite."""
        if not isinstance(value, Symbol):
            return not math.isnan(value)
        if value not in self._numbers:
            self._numbers[value] = self.is_finite(value) or self._is_number(value)
        return self._numbers[value]

    def _is_number(self, value: Symbol) -> bool:
        operation, operands = value.operation, value.operands
        if operation == "add" and all(map(self.is_size, operands)):
            return all(map(self.is_number, operands))
        return operation in ("add", "subtract", "multiply") and all(map(self.is_finite, operands))

    def _of_finite(self, operation: str, left: Any, right: Any) -> Any:
        """A comparison of a number with itself, or of a finite one's size with infinity."""
        if is_condition(left):
            return None
        if left is right:
            return _OF_FINITE[operation][0] if self.is_number(left) else None
        sized = operation != "less" or self.is_size(left)
        ended = _is(right, math.inf) and sized and self.is_finite(left)
        return _OF_FINITE[operation][1] if ended else None

    def _joined(self, both: bool, operands: tuple[Any, ...]) -> Any:
        """What is left of "and" (`both`) or "or"; None if it is all of it."""
        known = [operand for operand in operands if not isinstance(operand, Symbol)]
        left = list(dict.fromkeys(one for one in operands if isinstance(one, Symbol)))
        if any(one is not both for one in known):
            return not both
        if both and _asks_whether_finite(left):
            return self.apply("less", left[1].operands[0], math.inf)
        return left[0] if len(left) == 1 else None

    def _multiplied(self, left: Any, right: Any) -> Any:
        """Times 1, and a choice of two constants times a constant."""
        for one, other in ((left, right), (right, left)):
            chosen = isinstance(one, Symbol) and one.operation == "where"
            if chosen and _is_number(other, *one.operands[1:]):
                condition, *numbers = one.operands
                return self.apply(
                    "where", condition, *(self.apply("multiply", each, other) for each in numbers)
                )
        if left is right and isinstance(left, Symbol) and left.operation == "abs":
            return self.apply("multiply", *left.operands, *left.operands)
        return _without(1.0, (left, right))

    def _selected(self, condition: Any, yes: Any, no: Any) -> Any:
        if isinstance(condition, bool):
            return yes if condition else no
        if yes is no or (_is_number(yes, no) and repr(yes) == repr(no)):
            return yes
        if is_condition(yes) and is_condition(no):
            otherwise = self.apply("logical_not", condition)
            return self.apply(
                "logical_or",
                self.apply("logical_and", condition, yes),
                self.apply("logical_and", otherwise, no),
            )
        return None

    def is_size(self, value: Any) -> bool:
        """Whether it is known that a number is at least +0, unless it is NaN."""
        if not isinstance(value, Symbol):
            return math.copysign(1.0, value) > 0
        if value not in self._sizes:
            self._sizes[value] = self._is_size(value)
        return self._sizes[value]

    def _is_size(self, value: Symbol) -> bool:
        operation, operands = value.operation, value.operands
        if operation in ("abs", "exp"):
            return True
        if operation == "multiply" and operands[0] is operands[1]:
            return True
        if operation in ("add", "multiply", "divide"):
            return all(map(self.is_size, operands))
        if operation == "where":
            condition, yes, no = operands
            clamped = condition.operation == "less" and condition.operands == (no, 0.0)
            return self.is_size(yes) and (self.is_size(no) or (clamped and self._is_gap(no)))
        if operation == "copysign":  # not by any size: one that is NaN has a sign of its own
            sign = operands[1]
            return sign.operation == "abs" if isinstance(sign, Symbol) else self.is_size(sign)
        return False

    def _is_gap(self, value: Any) -> bool:
        """Whether it is a size less something, which is -0 nowhere."""
        subtracted = isinstance(value, Symbol) and value.operation == "subtract"
        return subtracted and self.is_size(value.operands[0])


def is_condition(value: Any) -> bool:
    """Whether it is true or false, and no number."""
    if isinstance(value, Symbol):
        return value.operation in CONDITIONS
    return isinstance(value, bool)


def _is(value: Any, number: float) -> bool:
    return not isinstance(value, Symbol) and repr(value) == repr(number)


def _is_number(*values: Any) -> bool:
    return not any(isinstance(value, Symbol) for value in values)


def _asks_whether_finite(conditions: list[Symbol]) -> bool:
    """Whether this is x == x and |x| != infinity, as torch has isfinite(x): |x| < infinity is one
    comparison."""
    if [one.operation for one in conditions] != ["equal", "not_equal"]:
        return False
    (value, same), (size, limit) = (one.operands for one in conditions)
    of_it = isinstance(size, Symbol) and (size.operation, size.operands) == ("abs", (value,))
    return same is value and of_it and _is(limit, math.inf)


def _without(neutral: float, operands: tuple[Any, ...]) -> Any:
    """The other operand, where one is neutral."""
    left, right = operands
    if _is(left, neutral):
        return right
    return left if _is(right, neutral) else None
