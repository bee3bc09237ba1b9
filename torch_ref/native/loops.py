"""Stages written out in C, each as one loop over a block of samples that compilers vectorise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_ref.native.c_math import Format
from torch_ref.native.stages import CONDITIONS, Stage
from torch_ref.native.symbols import Symbol

FORMS = {
    "negative": "(-{})",
    "add": "({} + {})",
    "subtract": "({} - {})",
    "multiply": "({} * {})",
    "divide": "({} / {})",
    "less": "({} < {})",
    "less_equal": "({} <= {})",
    "greater": "({} > {})",
    "greater_equal": "({} >= {})",
    "equal": "({} == {})",
    "not_equal": "({} != {})",
    "logical_and": "({} & {})",
    "logical_or": "({} | {})",
    "logical_not": "(!{})",
    "where": "({} ? {} : {})",
    "abs": "absolute({})",
    "copysign": "with_sign_of({}, {})",
    "sqrt": "square_root({})",
    "exp": "exponential({})",
    "exp of -|x|": "exponential_of_negative({})",
    "log": "natural_logarithm({})",
    "log1p": "logarithm_of_one_plus({})",
    "either_log": "either_logarithm({}, {}, {})",
    "either_log of normal": "either_logarithm_of_normal({}, {}, {})",
    "isinf": "infinite({})",
}


@dataclass(frozen=True)
class Loops:
    """Writes one loop a stage, over `count` samples i.

    names: of what each operation gives. arguments: how sample i of an argument is read, by its
    name; those that are not in here are in scope by that name already. kept: the arrays in which
    values wait for later stages.
    """

    kind: Format
    forms: Mapping[str, str]
    names: Mapping[Symbol, str]
    arguments: Mapping[str, str]
    kept: Mapping[Symbol, str]

    def loop(
        self,
        stage: Stage,
        stores: Sequence[tuple[Symbol, str]] = (),
        sums: Mapping[str, str] | None = None,
    ) -> str:
        """The loop; stores: values of this stage and the arrays they go to; sums: what is added to
        which sum."""
        reduced = sums or {}
        pragma = f"reduction(+ : {', '.join(reduced)})" if reduced else ""
        lines = "\n    ".join(
            [
                *self._loads(stage),
                *(self._statement(value) for value in stage.computed),
                *(f"{array}[i] = {self._number(value)};" for value, array in stores),
                *(f"{name} += {term};" for name, term in reduced.items()),
            ]
        )
        return (
            f"  #pragma omp simd {pragma}\n"
            f"  for (int64_t i = 0; i < count; i++) {{\n    {lines}\n  }}"
        )

    def _loads(self, stage: Stage) -> list[str]:
        own = [name for name in stage.arguments if name in self.arguments]
        return [f"const T {name} = {self.arguments[name]};" for name in own] + [
            f"const int {self.names[value]} = {self.kept[value]}[i] != 0;"
            if value.operation in CONDITIONS
            else f"const T {self.names[value]} = {self.kept[value]}[i];"
            for value in stage.loaded
        ]

    def _number(self, value: Symbol) -> str:
        """A value as an array holds it, a condition as 0 or 1."""
        name = self.names[value]
        return f"{name} ? (T)1 : (T)0" if value.operation in CONDITIONS else name

    def _statement(self, value: Symbol) -> str:
        kind = "int" if value.operation in CONDITIONS else "T"
        operation = "exp of -|x|" if _is_exp_of_negative(value) else value.operation
        form = self.forms[operation].format(*map(self._text, value.operands))
        return f"const {kind} {self.names[value]} = {form};"

    def _text(self, operand: Any) -> str:
        if not isinstance(operand, Symbol):
            return self.kind.number(operand)
        return operand.operands[0] if operand.operation == "argument" else self.names[operand]


def _is_exp_of_negative(value: Symbol) -> bool:
    """Whether this is exp(-|x|), which cannot overflow."""
    if value.operation != "exp" or value.operands[0].operation != "negative":
        return False
    inner = value.operands[0].operands[0]
    return isinstance(inner, Symbol) and inner.operation == "abs"
