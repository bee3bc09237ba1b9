"""Which operations are written in C, and how: those whose bits IEEE 754 determines, and selections.

exp, log and the like are left to torch, since two libraries round them differently.
"""

from collections.abc import Callable
from typing import Any

import torch

from torch_ref.compare.tape.recording import Step, Value

# By name, the text for the operands; NaN goes through as in torch. Of 0 and -0 torch calls the one
# or the other the larger, by their place in memory: bounds, which are not negative, never meet -0.
_ARITHMETIC = {
    "add": "({} + {})",
    "sub": "({} - {})",
    "mul": "({} * {})",
    "div": "({} / {})",
    "neg": "(-{})",
    "abs": "fabs({})",
    "reciprocal": "(1.0 / {})",
    "maximum": "larger({}, {})",
    "copysign": "__builtin_copysign({}, {})",
}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LOGICAL = {
    "bitwise_and": "&",
    "logical_and": "&",
    "bitwise_or": "|",
    "logical_or": "|",
    "mul": "&",
}
FUNCTIONS = """
static inline double larger(double a, double b) { return (a > b) | (a != a) ? a : b; }
"""


def form(step: Step, result: Value) -> str | None:
    """The C expression with a {} for every operand of `operands`; None where torch must do it."""
    if result.dtype not in (torch.float64, torch.bool) or not _alike(step, result):
        return None
    rule = _RULES.get(step.name)
    return rule(step, result) if rule else None


def operands(step: Step) -> list[Any]:
    """The values and numbers that a form is about."""
    return [arg for arg in step.args if isinstance(arg, (Value, int, float))]


def _alike(step: Step, result: Value) -> bool:
    """Whether all operands are float64 or bool and lie number by number beside the result, or are
    one number."""
    if any(isinstance(arg, Value) and arg.constant is not None for arg in step.args):
        return False
    return bool(result.shape) and all(
        value.shape == result.shape and value.dtype in (torch.float64, torch.bool)
        for value in step.needs
    )


def _is(dtype: torch.dtype, *values: Any) -> bool:
    return all(value.dtype == dtype for value in values if isinstance(value, Value))


def _arithmetic(step: Step, result: Value) -> str | None:
    logical = result.dtype == torch.bool
    if step.kwargs or not (logical or result.dtype == torch.float64):
        return None
    if logical:
        return f"({{}} {_LOGICAL[step.name]} {{}})" if step.name in _LOGICAL else None
    return _ARITHMETIC[step.name]


def _comparison(step: Step, result: Value) -> str | None:
    return None if step.kwargs else f"({{}} {_COMPARISONS[step.name]} {{}})"


def _logical(step: Step, result: Value) -> str | None:
    if not _is(torch.bool, *step.args):
        return None
    return f"({{}} {_LOGICAL[step.name]} {{}})"


def _not(step: Step, result: Value) -> str | None:
    return "(!{})" if _is(torch.bool, *step.args) else None


def _where(step: Step, result: Value) -> str | None:
    return "({} ? {} : {})" if step.args[0].dtype == torch.bool else None


def _clamp(step: Step, result: Value) -> str | None:
    if len(step.args) > 1 and any(isinstance(arg, Value) for arg in step.args[1:]):
        return None
    low, high = (*step.args[1:], None, None)[:2]
    low, high = step.kwargs.get("min", low), step.kwargs.get("max", high)
    text = "{0}"
    for sign, limit in (("<", low), (">", high)):
        if limit is not None:
            text = f"({text} {sign} {literal(limit)} ? {literal(limit)} : {text})"
    return text


def _nan_to_num(step: Step, result: Value) -> str | None:
    nan, above, below = (*step.args[1:], None, None, None)[:3]
    nan, above, below = (
        step.kwargs.get(name, given)
        for name, given in (("nan", nan), ("posinf", above), ("neginf", below))
    )
    most = torch.finfo(torch.float64).max
    nan, above, below = (
        literal(default if number is None else number)
        for number, default in ((nan, 0.0), (above, most), (below, -most))
    )
    text = f"{{0}} == INFINITY ? {above} : {{0}} == -INFINITY ? {below} : {{0}}"
    return f"({{0}} != {{0}} ? {nan} : {text})"


def _conversion(step: Step, result: Value) -> str | None:
    to_numbers = _is(torch.bool, step.args[0]) and result.dtype == torch.float64
    return "((double){})" if to_numbers and set(step.kwargs) <= {"dtype"} else None


def _infinite(step: Step, result: Value) -> str | None:
    return "(fabs({}) == INFINITY)" if _is(torch.float64, *step.args) else None


_RULES: dict[str, Callable[[Step, Value], str | None]] = {
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(_COMPARISONS, _comparison),
    **dict.fromkeys(set(_LOGICAL) - {"mul"}, _logical),
    "bitwise_not": _not,
    "logical_not": _not,
    "where": _where,
    "clamp": _clamp,
    "nan_to_num": _nan_to_num,
    "_to_copy": _conversion,
    "isinf": _infinite,
}


def literal(number: Any) -> str:
    """A number as C writes it, to the bit."""
    if number != number:
        return "NAN"
    if number in (float("inf"), float("-inf")):
        return "INFINITY" if number > 0 else "(-INFINITY)"
    if isinstance(number, bool):
        return str(int(number))
    return f"({float(number).hex()})"
