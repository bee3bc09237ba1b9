"""Formulas as a graph of symbols: the operations that one sample, or one case, goes through.

Equal expressions are one symbol, and selections are simplified where that changes no value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Symbol:
    """One value of one sample: an operation on other symbols and constants.

    operation: "argument" (operands: its name), a function of the array API, or an operator by its
    name there ("add", "less_equal", ...); of two symbols with the same operands there is only one.
    """

    operation: str
    operands: tuple[Any, ...]
    graph: "Graph"

    @property
    def dtype(self) -> "np.dtype[Any]":
        return self.graph.dtype

    def __array_namespace__(self, api_version: str | None = None) -> "Graph":
        return self.graph

    def __neg__(self) -> Any:
        return self.graph.symbol("negative", self)

    def __add__(self, other: Any) -> Any:
        return self.graph.symbol("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self.graph.symbol("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self.graph.symbol("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.graph.symbol("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return self.graph.symbol("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.graph.symbol("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self.graph.symbol("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.graph.symbol("divide", other, self)

    def __lt__(self, other: Any) -> Any:
        return self.graph.symbol("less", self, other)

    def __gt__(self, other: Any) -> Any:
        return self.graph.symbol("greater", self, other)

    def __ge__(self, other: Any) -> Any:
        return self.graph.symbol("greater_equal", self, other)

    def __and__(self, other: Any) -> Any:
        return self.graph.symbol("logical_and", self, other)

    def __or__(self, other: Any) -> Any:
        return self.graph.symbol("logical_or", self, other)

    def __bool__(self) -> bool:
        raise TypeError("A symbol has no truth value: the formulas must not branch on numbers.")


@dataclass(eq=False)
class Graph:
    """All symbols of one recording; to `manual_bp`, the namespace of its arrays."""

    dtype: "np.dtype[Any]"
    known: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    __name__: str = "symbols"  # array-api-compat asks every namespace for its name

    def symbol(self, operation: str, *operands: Any) -> Any:
        """The one symbol of this operation on these operands."""
        key = (operation, *(o if isinstance(o, Symbol) else (type(o), repr(o)) for o in operands))
        if key not in self.known:
            self.known[key] = Symbol(operation, operands, self)
        return self.known[key]

    def exp(self, value: Any) -> Any:
        return self.symbol("exp", value)

    def log(self, value: Any) -> Any:
        return self.symbol("log", value)

    def log1p(self, value: Any) -> Any:
        return self.symbol("log1p", value)

    def abs(self, value: Any) -> Any:
        return self.symbol("abs", value)

    def isinf(self, value: Any) -> Any:
        return self.symbol("isinf", value)

    def ones_like(self, value: Any) -> float:
        return 1.0

    def zeros_like(self, value: Any) -> float:
        return 0.0

    def finfo(self, dtype: "np.dtype[Any]") -> Any:
        return np.finfo(dtype)

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        """Selection; what is known of the condition is made use of in both branches."""
        if isinstance(condition, bool):
            return yes if condition else no
        yes, no = assuming(yes, {condition: True}), assuming(no, {condition: False})
        if _quotients(yes, no) and yes.operands[1] is no.operands[1]:
            # one division instead of two, of the same two numbers
            numerator = self.where(condition, yes.operands[0], no.operands[0])
            return self.symbol("divide", numerator, yes.operands[1])
        return yes if yes is no else self.symbol("where", condition, yes, no)


def _quotients(*values: Any) -> bool:
    return all(isinstance(value, Symbol) and value.operation == "divide" for value in values)


def assuming(value: Any, known: Mapping[Symbol, Any]) -> Any:
    """The value written shorter, if these symbols are known to be others, True or False."""
    done: dict[Any, Any] = dict(known)

    def simple(value: Any) -> Any:
        if not isinstance(value, Symbol) or value.operation == "argument":
            return value
        if value not in done:
            done[value] = _rebuilt(value, [simple(operand) for operand in value.operands])
        return done[value]

    return simple(value)


def _rebuilt(value: Symbol, operands: list[Any]) -> Any:
    graph = value.graph
    if value.operation == "where":
        return graph.where(*operands)
    if value.operation in ("logical_and", "logical_or"):
        neutral = value.operation == "logical_and"
        if (not neutral) in [o for o in operands if isinstance(o, bool)]:
            return not neutral
        left = [operand for operand in operands if operand is not neutral]
        return graph.symbol(value.operation, *left) if len(left) == 2 else (left or [neutral])[0]
    return graph.symbol(value.operation, *operands)


def in_order(outputs: Iterable[Any]) -> list[Symbol]:
    """Every symbol that the outputs need, operands before what is made of them."""
    order: dict[Symbol, None] = {}
    waiting: list[tuple[Any, bool]] = [(output, False) for output in reversed(list(outputs))]
    while waiting:  # not by recursion: formulas may be deeper than Python's stack
        value, operands_are_in = waiting.pop()
        if operands_are_in:
            order[value] = None
        elif isinstance(value, Symbol) and value not in order:
            waiting.append((value, True))
            waiting.extend((operand, False) for operand in reversed(value.operands))
    return list(order)
