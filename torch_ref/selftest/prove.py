"""Which mutants are no change at all: proved on formulas, never assumed.

Two formulas are *equal* where SymPy shows that their difference does not change and is 0 at a
sample. The loss has several forms, each for a region; where a mutant moves a border, the forms
that it exchanges need only be *equal within rounding*: the end of a series, which is cut off, is
less than 2^-53 of the value. `_mean_over_batch` has a file of its own, `shapes.py`.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import sympy
from sympy import Expr, Poly, Rational, Symbol

from torch_ref.selftest.mutate import FUNCTIONS, NETWORK, Mutant, original
from torch_ref.selftest.shapes import same_for_every_shape
from torch_ref.selftest.symbolic import (
    Cell,
    Formula,
    Run,
    SplitError,
    all_runs,
    compile_exact,
    namespace_for,
)

EQUAL = "equal formula"
WITHIN_ROUNDING = "equal within rounding"
EVERY_SHAPE = "equal for every shape"

_ROUNDING = Rational(1, 2**53)
_MOST_CELLS = 64

_Z, _RATIO, _X = sympy.symbols("z r x")  # SymPy is slow where it knows that they are real
_FIELD = sympy.field([_RATIO], sympy.QQ)[0].from_expr  # rational functions of the ratio
_LOSS_IS_ZERO_AT = sympy.S.One  # t/x = 1, whatever the form


def prove(mutant: Mutant) -> str | None:
    """EQUAL, WITHIN_ROUNDING or EVERY_SHAPE if the mutant is shown to be so, else None."""
    try:
        if mutant.function == "_mean_over_batch":
            return EVERY_SHAPE if same_for_every_shape(mutant) else None
        return _compare_everywhere(mutant)
    except Exception:  # a mutant can raise anything at all; then nothing is shown
        return None


def _compare_everywhere(mutant: Mutant) -> str | None:
    """The proof that holds in every cell; cells are split until each has one formula."""
    codes = [_code(one) for one in (original(mutant.function), mutant)]
    network = mutant.function in NETWORK
    answer = _network_formulas if network else _scalar_formulas
    variable = None if network else _RATIO if "saito" in mutant.function else _Z
    low = sympy.S.Zero if variable is _RATIO else -sympy.oo
    waiting, proofs = [Cell(variable, low, sympy.oo)], {EQUAL}
    for _ in range(_MOST_CELLS):
        if not waiting:
            return WITHIN_ROUNDING if WITHIN_ROUNDING in proofs else EQUAL
        cell = waiting.pop()
        try:
            for run in all_runs(cell):
                right, changed = (answer(mutant, namespace_for(code, run), run) for code in codes)
                proof = _compare(cell, right, changed)
                if proof is None:
                    return None
                proofs.add(proof)
        except SplitError as split:
            waiting += _split(cell, split.points)
    return None


def _split(cell: Cell, points: set[Expr]) -> Iterator[Cell]:
    borders = [cell.low, *sorted(points), cell.high]
    for low, high in pairwise(borders):
        yield Cell(cell.variable, low, high)
    for point in points:
        yield Cell(cell.variable, point, point)


@cache
def _code(mutant: Mutant) -> Any:
    return compile_exact(mutant.module_source())


def _scalar_formulas(mutant: Mutant, names: Mapping[str, Any], run: Run) -> dict[str, Formula]:
    """The public function that the mutated one serves, on symbols."""
    public = "itakura_saito" if mutant.function.startswith("_") else mutant.function
    arguments = (_X, _RATIO * _X) if "saito" in public else (_Z,)
    return {public: names[public](*(Formula(run, argument) for argument in arguments))}


def _network_formulas(mutant: Mutant, names: dict[str, Any], run: Run) -> dict[str, Formula]:
    """The forward or backward pass with a symbol for each argument; scalar functions stay names."""
    for name in FUNCTIONS:
        names[name] = _unknown_function(name)
    function = names[mutant.function]
    code = function.__code__
    given = code.co_varnames[: code.co_argcount]
    result = function(*(Formula(run, Symbol(name, real=True)) for name in given))
    return result if isinstance(result, dict) else {mutant.function: result}


def _unknown_function(name: str) -> Any:
    def function(*arguments: Formula) -> Formula:
        inside = [argument.expression for argument in arguments]
        return arguments[0].of(sympy.Function(name, real=True)(*inside))

    return function


def _compare(
    cell: Cell, right: Mapping[str, Formula], changed: Mapping[str, Formula]
) -> str | None:
    if right.keys() != changed.keys():
        return None
    pairs = [(right[name].expression, changed[name].expression) for name in right]
    if all(_equal(cell, *pair) for pair in pairs):
        return EQUAL
    if all(_equal_within_rounding(cell, *pair) for pair in pairs):
        return WITHIN_ROUNDING
    return None


def _equal(cell: Cell, left: Expr, right: Expr) -> bool:
    """Whether the difference has no derivative, and is 0 where every symbol has a sample value."""
    if left == right:
        return True
    difference = left - right
    symbols = difference.free_symbols
    samples = {s: cell.sample if s == cell.variable else sympy.S.One for s in symbols}
    at_sample = difference.subs(samples)
    if abs(sympy.N(at_sample, 50)) > _ROUNDING**2:  # soon told, where simplifying takes long
        return False
    return _is_zero(at_sample) and all(_is_zero(difference.diff(symbol)) for symbol in symbols)


def _is_zero(expression: Expr) -> bool:
    if expression.is_rational_function() and expression.free_symbols:
        return not sympy.field(list(expression.free_symbols), sympy.QQ)[0].from_expr(expression)
    return bool(sympy.simplify(sympy.expand_log(expression, force=True)) == 0)


def _equal_within_rounding(cell: Cell, left: Expr, right: Expr) -> bool:
    """Whether |left - right| < 2^-53 |left| in the cell, for forms of the loss.

    Both are 0 at ratio 1. By Cauchy's mean value theorem (left - right)/left at one ratio is
    (left' - right')/left' at another one nearer to 1; the derivatives are rational functions, whose
    roots in an interval Sturm's theorem counts.
    """
    if cell.variable != _RATIO or left.free_symbols | right.free_symbols > {_RATIO}:
        return False
    if cell.low == cell.high:
        return bool(abs(sympy.N((left - right) / left, 50)) < _ROUNDING)
    low, high = sympy.Min(cell.low, _LOSS_IS_ZERO_AT), sympy.Max(cell.high, _LOSS_IS_ZERO_AT)
    if not high.is_finite or not all(
        _is_zero(form.subs(_RATIO, _LOSS_IS_ZERO_AT)) for form in (left, right)
    ):
        return False
    return _slopes_alike(left, right, low, high)


@cache
def _slopes_alike(left: Expr, right: Expr, low: Expr, high: Expr) -> bool:
    """Whether the slopes differ by less than 2^-53 of left's, which is 0 only at ratio 1."""
    slope, other = _slope(left), _slope(right)
    error = (slope - other) / slope
    elsewhere = slope / (_FIELD(_RATIO) - 1)
    size, error = (Poly(part.as_expr(), _RATIO) for part in (error.denom, error.numer))
    limits = [_ROUNDING * size - error, _ROUNDING * size + error]
    never_zero = [Poly(elsewhere.numer.as_expr(), _RATIO), size, *limits]
    signs = {sympy.sign(form.eval((low + high) / 2)) for form in (size, *limits)}
    return len(signs) == 1 and not any(form.count_roots(low, high) for form in never_zero)


@cache
def _slope(form: Expr) -> Any:
    """The derivative by the ratio, a rational function in lowest terms."""
    if form.is_rational_function():
        return _FIELD(form).diff(_FIELD(_RATIO))  # sooner than differentiating a long formula
    return _FIELD(form.diff(_RATIO))
