"""The source of `manual_bp` run on formulas instead of numbers: exact, by SymPy.

A `Formula` stands for an array of real numbers that all lie in one *cell*: an open interval, or a
single point, of the one variable that the source compares with constants. Within a cell every
such comparison has one answer, so the source gives one formula. A comparison that depends on
anything else is answered both ways, in a run of its own each.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sympy
from sympy import Expr, Rational, Symbol, floor


class UnprovableError(Exception):
    """The source does something that formulas do not."""


class SplitError(Exception):
    """The answer changes inside the cell, at these points."""

    def __init__(self, points: set[Expr]) -> None:
        self.points = points


@dataclass(frozen=True)
class Cell:
    """low < variable < high, or variable = low where they are equal; None: no variable at all."""

    variable: Symbol | None = None
    low: Expr = -sympy.oo
    high: Expr = sympy.oo

    @property
    def sample(self) -> Expr:
        """A number in the cell."""
        if self.low == self.high or (self.high.is_finite and self.low.is_finite):
            return (self.low + self.high) / 2
        if self.high.is_finite:
            return self.high - 1
        return self.low + 1 if self.low.is_finite else sympy.S.Zero

    def strictly_inside(self, point: Expr) -> bool:
        return bool(self.low < point) and bool(point < self.high)

    def at(self, expression: Expr) -> Expr:
        """The expression with the variable's value, where the cell is a point."""
        return expression.subs(self.variable, self.low) if self.low == self.high else expression


@dataclass
class Run:
    """One way through the source: `answers` to the comparisons that the cell leaves open.

    Those met for the first time are answered by -1 and go into `open` with the other two.
    """

    cell: Cell
    answers: dict[Expr, int] = field(default_factory=dict)
    open: list[dict[Expr, int]] = field(default_factory=list)

    def sign(self, expression: Expr) -> int:
        """-1, 0 or 1, the same for every number in the cell; SplitError where it is not."""
        expression = sympy.cancel(self.cell.at(expression))
        known = _sign(expression)
        if known is not None:
            return known
        if expression.free_symbols != {self.cell.variable}:
            return self._choose(expression)
        self._split_at(_sign_changes(expression, self.cell.variable))
        at_sample = _sign(expression.subs(self.cell.variable, self.cell.sample))
        if at_sample is None:
            raise UnprovableError(f"the sign of {expression} is not known")
        return at_sample

    def _split_at(self, points: set[Expr]) -> None:
        inside = {point for point in points if self.cell.strictly_inside(point)}
        if inside:
            raise SplitError(inside)

    def _choose(self, expression: Expr) -> int:
        for known, sign in ((expression, 1), (-expression, -1)):
            if known in self.answers:
                return sign * self.answers[known]
        self.open += [{**self.answers, expression: sign} for sign in (0, 1)]
        self.answers[expression] = -1
        return -1


def _sign(expression: Expr) -> int | None:
    """The sign that SymPy sees for all values of the symbols, if it does."""
    if expression.is_zero:
        return 0
    return 1 if expression.is_positive else -1 if expression.is_negative else None


def _sign_changes(expression: Expr, variable: Symbol) -> set[Expr]:
    """Where a rational function, or the floor of one plus a number, can change its sign."""
    floors = expression.atoms(floor)
    if len(floors) == 1:
        (step,) = floors
        level = step - expression
        if not level.is_number:
            raise UnprovableError(f"{expression} is compared with 0")
        return _sign_changes(step.args[0] - sympy.ceiling(level), variable) | _sign_changes(
            step.args[0] - floor(level) - 1, variable
        )
    numerator, denominator = sympy.fraction(sympy.together(expression))
    if not (numerator.is_polynomial(variable) and denominator.is_polynomial(variable)):
        raise UnprovableError(f"{expression} is compared with 0")
    return {
        root
        for part in (numerator, denominator)
        if part.has(variable)
        for root in sympy.Poly(part, variable).real_roots()
    }


class Formula:
    """A number of a run, as its formula. Behaves like a floating array of one library."""

    shape: tuple[int, ...] = ()
    ndim = 0

    def __init__(self, run: Run, expression: Expr) -> None:
        self.run, self.expression = run, run.cell.at(expression)

    @property
    def dtype(self) -> None:
        return None

    def of(self, expression: Expr) -> "Formula":
        return Formula(self.run, expression)

    def sign_against(self, other: Any) -> int:
        return self.run.sign(self.expression - _expression(other))

    def __index__(self) -> int:
        if not self.expression.is_Integer:
            raise TypeError(f"{self.expression} is not a whole number")
        return int(self.expression)

    def __neg__(self) -> "Formula":
        return self.of(-self.expression)

    def __pos__(self) -> "Formula":
        return self

    def __add__(self, other: Any) -> "Formula":
        return self.of(self.expression + _expression(other))

    def __sub__(self, other: Any) -> "Formula":
        return self.of(self.expression - _expression(other))

    def __rsub__(self, other: Any) -> "Formula":
        return self.of(_expression(other) - self.expression)

    def __mul__(self, other: Any) -> "Formula":
        return self.of(self.expression * _expression(other))

    def __truediv__(self, other: Any) -> "Formula":
        # cancelled at once: x drops out of t/x = (r x)/x, and formulas stay short
        return self.of(sympy.cancel(self.expression / _expression(other)))

    def __rtruediv__(self, other: Any) -> "Formula":
        return self.of(sympy.cancel(_expression(other) / self.expression))

    def __floordiv__(self, other: Any) -> "Formula":
        return self.of(floor(sympy.cancel(self.expression / _expression(other))))

    def __mod__(self, other: Any) -> "Formula":
        return self.of(sympy.Mod(self.expression, _expression(other)))

    def __pow__(self, other: Any) -> "Formula":
        exponent = _expression(other)
        if not exponent.is_Integer:  # SymPy can take minutes over formulas like s^s
            raise UnprovableError(f"{exponent} is an exponent")
        return self.of(self.expression**exponent)

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Any) -> bool:
        return self.sign_against(other) < 0

    def __le__(self, other: Any) -> bool:
        return self.sign_against(other) <= 0

    def __gt__(self, other: Any) -> bool:
        return self.sign_against(other) > 0

    def __ge__(self, other: Any) -> bool:
        return self.sign_against(other) >= 0

    def __eq__(self, other: object) -> bool:
        return self.sign_against(other) == 0

    def __ne__(self, other: object) -> bool:
        return self.sign_against(other) != 0

    __hash__ = None  # type: ignore[assignment]


def _expression(value: Any) -> Expr:
    if isinstance(value, bool) or not isinstance(value, (Formula, int)):
        raise UnprovableError(f"{type(value).__name__} in a formula")
    return value.expression if isinstance(value, Formula) else sympy.Integer(value)


class Namespace:
    """What the source uses of an array library and of `math`, on formulas."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def smallest_normal(self) -> Formula:
        """That of float64; whatever the dtype, it lies below all other borders of the source."""
        return Formula(self.run, Rational(1, 2**1022))

    def exp(self, value: Formula) -> Formula:
        return value.of(sympy.exp(value.expression))

    def log(self, value: Formula) -> Formula:
        return Formula(self.run, sympy.log(_expression(value)))

    def log1p(self, value: Formula) -> Formula:
        return value.of(sympy.log(1 + value.expression))

    def abs(self, value: Formula) -> Formula:
        return -value if value < 0 else value

    def where(self, condition: Any, left: Any, right: Any) -> Any:
        if not isinstance(condition, bool):
            raise UnprovableError("where on something that is no condition")
        return left if condition else right

    def ones_like(self, value: Formula) -> Formula:
        return Formula(self.run, sympy.S.One)

    def zeros_like(self, value: Formula) -> Formula:
        return Formula(self.run, sympy.S.Zero)

    def isinf(self, value: Formula) -> bool:
        return False  # no real number is

    def finfo(self, dtype: None) -> "Namespace":
        return self


class _Literals(ast.NodeTransformer):
    """Every number written in the source becomes an exact formula: 1 / 3 is a third."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            return node
        text = ast.Constant(repr(node.value))
        return ast.Call(ast.Name("_exactly", ast.Load()), [text], [])


def compile_exact(source: str) -> Any:
    """The code of a module's source with its numbers exact."""
    tree = _Literals().visit(ast.parse(source))
    return compile(ast.fix_missing_locations(tree), "<formulas>", "exec")


def namespace_for(code: Any, run: Run) -> dict[str, Any]:
    """The module's names, run on formulas: code from `compile_exact`."""
    library = Namespace(run)
    names: dict[str, Any] = {
        "__name__": "formulas",
        "_exactly": lambda text: Formula(run, Rational(text)),
    }
    exec(code, names)
    names.update(array_namespace=lambda *arrays: library, math=library)
    return names


def all_runs(cell: Cell) -> Iterator[Run]:
    """Runs until every comparison that the cell leaves open has had every answer."""
    waiting: list[dict[Expr, int]] = [{}]
    while waiting:
        run = Run(cell, waiting.pop())
        yield run
        waiting += run.open
