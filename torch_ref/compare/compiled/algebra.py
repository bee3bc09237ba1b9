"""Symbols that stand for the numbers of one case, written as short as IEEE 754 allows.

What is known without the numbers is worked out here: constants, selections of one and the same,
|x| of what cannot be negative. Nothing is rewritten that could round otherwise.
"""

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


class Algebra(Graph):
    """All symbols of one trace; `apply` makes them."""

    def __init__(self) -> None:
        super().__init__(np.dtype(np.float64))
        self._sizes: dict[Symbol, bool] = {}

    def apply(self, operation: str, *operands: Any) -> Any:
        """The operation on symbols, floats and bools."""
        if not any(isinstance(operand, Symbol) for operand in operands):
            with np.errstate(all="ignore"):
                return _OF_NUMBERS[operation](*operands).item()
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
        if operation == "less" and self.is_size(first) and _is(operands[1], 0.0):
            return False
        return None

    def _joined(self, both: bool, operands: tuple[Any, ...]) -> Any:
        """What is left of "and" (`both`) or "or"; None if it is all of it."""
        known = [operand for operand in operands if not isinstance(operand, Symbol)]
        left = list(dict.fromkeys(one for one in operands if isinstance(one, Symbol)))
        if any(one is not both for one in known):
            return not both
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
        return _without(1.0, (left, right))

    def _selected(self, condition: Any, yes: Any, no: Any) -> Any:
        if isinstance(condition, bool):
            return yes if condition else no
        if yes is no or (_is_number(yes, no) and repr(yes) == repr(no)):
            return yes
        if is_condition(yes) or is_condition(no):
            otherwise = self.apply("logical_not", condition)
            return self.apply(
                "logical_or",
                self.apply("logical_and", condition, yes),
                self.apply("logical_and", otherwise, no),
            )
        return None

    def is_size(self, value: Any) -> bool:
        """Whether it is known that a number is not negative, unless it is NaN."""
        if not isinstance(value, Symbol):
            return bool(value >= 0)
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
            return all(map(self.is_size, operands[1:]))
        return operation == "copysign" and self.is_size(operands[1])


def is_condition(value: Any) -> bool:
    """Whether it is true or false, and no number."""
    if isinstance(value, Symbol):
        return value.operation in CONDITIONS
    return isinstance(value, bool)


def _is(value: Any, number: float) -> bool:
    return not isinstance(value, Symbol) and repr(value) == repr(number)


def _is_number(*values: Any) -> bool:
    return not any(isinstance(value, Symbol) for value in values)


def _without(neutral: float, operands: tuple[Any, ...]) -> Any:
    """The other operand, where one is neutral."""
    left, right = operands
    if _is(left, neutral):
        return right
    return left if _is(right, neutral) else None
