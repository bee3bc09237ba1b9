"""Formulas on random numbers, whose derivatives are not SymPy's.

Those of L come from `manual_bp.network.backward`, every other one from a complex step (Squire &
Trapp, SIAM Review 40(1), 1998).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy

from manual_bp.derivation import NETWORK, cost
from manual_bp.functions import sigmoid
from manual_bp.latex import LOSS, Expression, Partial, sigma
from manual_bp.network import INPUTS, PARAMETERS, backward, forward

POINTS = 64
ROUNDING = 1e-9  # far above the rounding of a few float64 operations, far below any mistake
STEP = 1e-30  # of the complex step, which does not cancel, however short

Numbers = np.ndarray[Any, Any]


def random_point(seed: int = 0) -> dict[str, Numbers]:
    """Every name's value at POINTS random points, and dL/d(name) as "L:name"."""
    generator = np.random.default_rng(seed)
    given = {name: generator.uniform(-2, 2, POINTS) for name in (*PARAMETERS, "x1", "x2")}
    for name in ("w36", "w46", "w56", "b6", "t", "x", "dx", "k"):  # z6 stays away from 0
        given[name] = generator.uniform(0.1, 2, POINTS)
    parameters = {name: given[name] for name in PARAMETERS}
    values = forward(parameters, {name: given[name] for name in INPUTS})
    slopes = backward(parameters, values)
    return {**given, **values, **{f"L:{name}": slope for name, slope in slopes.items()}}


def numbers(expression: Expression, point: Mapping[str, Numbers]) -> Numbers:
    """The expression's values at the points; its derivatives are not SymPy's."""
    known = dict(point)
    slots: dict[Expression, Expression] = {}
    for partial in expression.atoms(Partial):
        slots[partial] = sympy.Symbol(f"slope{len(slots)}")
        quantity, variable = partial.args
        known[slots[partial].name] = _slope(quantity, variable, point)
    return np.broadcast_to(_evaluate(expression.xreplace(slots), known, sigmoid), (POINTS,))


def _slope(quantity: Expression, variable: Expression, point: Mapping[str, Numbers]) -> Numbers:
    name = f"L:{variable}"
    if quantity == LOSS and name in point:
        return point[name]
    formula = cost(variable) if quantity == LOSS else NETWORK.get(quantity, quantity)
    stepped = {**point, variable.name: point[variable.name] + STEP * 1j}
    slope: Numbers = np.imag(_evaluate(formula, stepped, _complex_sigmoid)) / STEP
    return slope


def _complex_sigmoid(z: Numbers) -> Numbers:
    """The formula as it stands: `sigmoid` uses |z|, which has no complex step."""
    value: Numbers = sigma.formula(z, np.exp)
    return value


def _evaluate(formula: Expression, known: Mapping[str, Numbers], sigmoid_of: Any) -> Numbers:
    names = sorted(formula.free_symbols, key=str)
    function = sympy.lambdify(names, formula, [{"sigma": sigmoid_of}, "numpy"])
    return np.asarray(function(*(known[name.name] for name in names)))


def relative_gap(left: Numbers, right: Numbers) -> Numbers:
    """|left - right| over the larger of both, 0 where both are 0."""
    size = np.maximum(np.abs(left), np.abs(right))
    gap: Numbers = np.abs(left - right) / np.where(size == 0, 1, size)
    return gap
