"""A recorded graph written out as one Python function of floats, for a sample at a time.

Of a selection only the branch that is taken is computed. Where an argument leaves a function's
domain, `math` raises ValueError or OverflowError, and a division by 0 ZeroDivisionError.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_ref.native.symbols import Symbol, in_order

FORMS = {
    "negative": "-{}",
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "less": "{} < {}",
    "greater": "{} > {}",
    "greater_equal": "{} >= {}",
    "logical_and": "{} and {}",
    "logical_or": "{} or {}",
    "abs": "abs({})",
    "exp": "exp({})",
    "log": "log({})",
    "log1p": "log1p({})",
    "isinf": "isinf({})",
}


def function(
    arguments: Sequence[str],
    outputs: Mapping[str, Symbol],
    watched: Sequence[Symbol],
    forms: Mapping[str, str] = FORMS,
) -> "Callable[..., tuple[dict[str, float], float]]":
    """The function of the arguments, floats in this order, to the outputs and one number more.

    The last is 0 while all that is watched is finite, else NaN; it may be NaN, too, where numbers
    are so large that their sum is infinite.
    """
    text = source(arguments, outputs, watched, forms)
    used = ("exp", "log", "log1p", "isinf", "inf")
    names: dict[str, Any] = {name: getattr(math, name) for name in used}
    exec(text, names)  # what is run was written above, from formulas of this package
    made: Callable[..., tuple[dict[str, float], float]] = names["sample"]
    return made


def source(
    arguments: Sequence[str],
    outputs: Mapping[str, Symbol],
    watched: Sequence[Symbol],
    forms: Mapping[str, str] = FORMS,
) -> str:
    """The function's source."""
    needed = [*outputs.values(), *watched]
    writer = _Writer(forms, _times_used(needed))
    lines = writer.block(needed, frozenset(), "    ")
    results = ", ".join(f"{name!r}: {writer.text(value)}" for name, value in outputs.items())
    total = " + ".join(writer.text(value) for value in watched)
    head = f"def sample({', '.join(arguments)}):"
    return "\n".join([head, *lines, f"    return {{{results}}}, ({total or 0.0}) * 0.0", ""])


def _times_used(values: Sequence[Symbol]) -> dict[Symbol, int]:
    used = dict.fromkeys(in_order(values), 0)
    for value in used:
        for operand in value.operands:
            if isinstance(operand, Symbol):
                used[operand] += 1
    for value in values:
        used[value] += 2  # needed by name
    return used


@dataclass
class _Writer:
    forms: Mapping[str, str]
    used: Mapping[Symbol, int]
    names: dict[Symbol, str] = field(default_factory=dict)

    def block(self, needed: Sequence[Any], known: frozenset[Symbol], indent: str) -> list[str]:
        """Statements that compute what is needed and not known yet."""
        always = self._always(needed)
        lines: list[str] = []
        scope = set(known)
        for value in in_order(v for v in needed if isinstance(v, Symbol)):
            if value not in always or value in scope or value.operation == "argument":
                continue
            if value.operation == "where":
                lines += self._selection(value, frozenset(scope), indent)
            elif self.used[value] > 1:
                lines.append(f"{indent}{self._name(value)} = {self._form(value)}")
            else:
                continue  # written where it is used
            scope.add(value)
        return lines

    def _always(self, needed: Iterable[Any]) -> set[Symbol]:
        """What has to be computed whichever branches are taken."""
        found: set[Symbol] = set()
        waiting = [value for value in needed if isinstance(value, Symbol)]
        while waiting:
            value = waiting.pop()
            if value not in found:
                found.add(value)
                operands = value.operands[: 1 if value.operation == "where" else None]
                waiting += [operand for operand in operands if isinstance(operand, Symbol)]
        return found

    def _selection(self, value: Symbol, known: frozenset[Symbol], indent: str) -> list[str]:
        condition, *branches = value.operands
        name = self._name(value)
        inner = [self.block([branch], known, indent + "    ") for branch in branches]
        yes, no = (self.text(branch) for branch in branches)
        if not any(inner):
            return [f"{indent}{name} = {yes} if {self.text(condition)} else {no}"]
        return [
            f"{indent}if {self.text(condition)}:",
            *inner[0],
            f"{indent}    {name} = {yes}",
            f"{indent}else:",
            *inner[1],
            f"{indent}    {name} = {no}",
        ]

    def text(self, operand: Any) -> str:
        """An operand in a line: its name, or what it is computed by."""
        if not isinstance(operand, Symbol):
            return repr(float(operand))
        if operand.operation == "argument":
            return str(operand.operands[0])
        if operand.operation == "where" or self.used[operand] > 1:
            return self._name(operand)
        return f"({self._form(operand)})"

    def _form(self, value: Symbol) -> str:
        return self.forms[value.operation].format(*map(self.text, value.operands))

    def _name(self, value: Symbol) -> str:
        return self.names.setdefault(value, f"v{len(self.names)}")
