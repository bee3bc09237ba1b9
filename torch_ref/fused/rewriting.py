"""Graphs made cheaper for C, where the numbers stay what they are."""

from collections.abc import Sequence
from typing import Any

from torch_ref.native.symbols import Symbol, assuming, in_order


def rare_conditions(values: Sequence[Symbol]) -> list[Symbol]:
    """The conditions that only numbers at the ends of the range meet: infinite, or subnormal."""
    return [
        symbol
        for symbol in in_order(values)
        if symbol.operation == "isinf"
        or (symbol.operation == "less" and symbol.operands[1] == _smallest_normal(symbol))
    ]


def _smallest_normal(symbol: Symbol) -> Any:
    return symbol.graph.finfo(symbol.dtype).smallest_normal


def with_shared_logarithms(value: Symbol) -> Symbol:
    """One logarithm for both branches of a selection, if one takes log1p(d) and the other log(x).

    C computes both branches for all samples; "either_log" of (condition, d, x) selects before.
    """
    for selection in in_order([value]):
        if selection.operation != "where":
            continue
        condition, yes, no = selection.operands
        one_plus = [one for one in in_order([yes]) if one.operation == "log1p"]
        plain = [one for one in in_order([no]) if one.operation == "log"]
        if len(one_plus) == len(plain) == 1:
            arguments = (one_plus[0].operands[0], plain[0].operands[0])
            shared = value.graph.symbol("either_log", condition, *arguments)
            yes, no = assuming(yes, {one_plus[0]: shared}), assuming(no, {plain[0]: shared})
            together = value.graph.symbol("where", condition, yes, no)
            return with_shared_logarithms(assuming(value, {selection: together}))
    return value


def telling(watched: Sequence[Symbol], sure: Sequence[Symbol]) -> list[Symbol]:
    """Those of `watched` that can be infinite or NaN while the others, and all of `sure`, are not.

    What is infinite or NaN stays so when it is negated, added to, subtracted, multiplied or
    divided by something.
    """
    seen = set(sure)
    for value in reversed(in_order([*watched, *sure])):
        if value in seen or value in watched:
            seen |= {one for one in _carried(value) if isinstance(one, Symbol)}
    return [value for value in watched if value not in seen]


def _carried(value: Symbol) -> tuple[Any, ...]:
    """The operands that cannot be infinite or NaN without this value being so."""
    if value.operation in ("negative", "abs", "add", "subtract", "multiply"):
        return value.operands
    return value.operands[:1] if value.operation == "divide" else ()
