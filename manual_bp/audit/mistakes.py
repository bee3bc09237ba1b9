"""What is wrong with a printed line, in words, and what belongs there."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import sympy

from manual_bp.audit.numeric import ROUNDING, Numbers, numbers, relative_gap
from manual_bp.audit.printing import in_latex, in_plain, plain
from manual_bp.audit.symbolic import ACTIVATIONS, by_node, chain_rule, derivative, same_value
from manual_bp.derivation import NETWORK, Claim
from manual_bp.latex import LOSS, Expression, Partial, sides, sigma
from manual_bp.network import PARAMETERS

SIMPLE = 12  # operations a factor or a term may have to be worth printing


class ContradictionError(RuntimeError):
    """The symbolic check and the random numbers disagree about a line: one of them is broken."""


def malformed(claim: Claim, reason: str) -> tuple[str, str]:
    belongs = right_form(claim)
    strange, missing = _strange_and_missing(claim, belongs)
    problem = f"the formula breaks off: {reason}"
    for name, other in _pairs(strange, missing):
        problem += f"; before that, {in_plain(name)} stands where {in_plain(other)} belongs"
    return problem, in_latex(belongs)


def mistake(claim: Claim, point: Mapping[str, Numbers]) -> tuple[str, str]:
    """What is wrong in words, and what belongs there; the first explanation that is simple."""
    belongs = right_form(claim)
    by_factor = _by_factor(claim) if _is_quantity(claim.of) else ""
    name = None if claim.printed.startswith("=") else _name_of(claim.expression, point)
    if name is not None and not by_factor:
        return _wrong_name(claim, name), in_latex(name)
    problem = (
        by_factor
        or _by_difference(claim, belongs)
        or _by_terms(claim, belongs)
        or _by_factor(claim)
        or _by_derivatives(claim, belongs)
        or "wrong by no simple factor or term"
    )
    return problem, in_latex(belongs)


def _name_of(expression: Expression, point: Mapping[str, Numbers]) -> Expression:
    """The derivative of L, or of sigma, that the expression is; None where it is none."""
    x = sympy.Symbol("x")
    names = [Partial(sigma(x), x), *(Partial(LOSS, node) for node in NETWORK if node != LOSS)]
    names += [Partial(LOSS, sympy.Symbol(name)) for name in PARAMETERS]
    values = numbers(expression, point)
    for name in names:
        close = np.all(relative_gap(numbers(name, point), values) <= ROUNDING)
        if close and same_value(name, expression):  # the numbers first: they are quicker
            return name
    return None


def _wrong_name(claim: Claim, name: Expression) -> str:
    factor = _simple(by_node(claim.of) / by_node(claim.expression))
    if factor is None:
        return f"the formula is {in_plain(name)}, not {left_side(claim)}"
    return (
        f"{left_side(claim)} is wrong by the factor {in_plain(factor)}: "
        f"the formula is {in_plain(name)}"
    )


def left_side(claim: Claim) -> str:
    """What the line says that its formula is, in the text's own words where it prints them."""
    if _is_quantity(claim.of) or "=" not in claim.printed:
        return in_plain(claim.of)
    return plain(sides(claim.printed)[0]) or in_plain(claim.of)


def _is_quantity(expression: Expression) -> bool:
    return expression.is_Symbol or isinstance(expression, Partial)


def _by_terms(claim: Claim, belongs: Expression) -> str:
    """Terms of a sum that stand where others belong, while the rest of the sum is right."""
    printed, right = (set(sympy.Add.make_args(side)) for side in (claim.expression, belongs))
    strange, missing = (in_plain(sympy.Add(*terms)) for terms in (printed - right, right - printed))
    if not (printed & right and printed - right and right - printed):
        return ""
    return f"{strange} stands where {missing} belongs"


def _by_factor(claim: Claim) -> str:
    right = by_node(claim.of)
    if right == 0:
        return ""
    factor = _simple(by_node(claim.expression) / right)
    if factor is None:
        return ""
    if factor == 0:
        return "what is printed is 0"
    return f"wrong by the factor {in_plain(factor)}: printed = {in_plain(factor)} × right"


def _by_derivatives(claim: Claim, belongs: Expression) -> str:
    """Derivatives that stand where others belong."""
    strange, missing = _strange_and_missing(claim, belongs)
    if not strange or strange.total() != missing.total() or strange.total() > 2:
        return ""
    pairs = _pairs(strange, missing)
    for name, other in pairs:
        strange[name] -= 1
        missing[other] -= 1
    pairs += zip(strange.elements(), missing.elements())  # no two of these have a name in common
    zeros = [name for name, _ in pairs if derivative(*name.args) == 0]
    return ", and ".join(
        f"{in_plain(name)} stands where {in_plain(other)} belongs" for name, other in pairs
    ) + "".join(
        f" ({in_plain(name)} is 0: {name.args[1]} does not enter {name.args[0]})" for name in zeros
    )


def _strange_and_missing(
    claim: Claim, belongs: Expression
) -> "tuple[Counter[Expression], Counter[Expression]]":
    """The derivatives that only the printed formula has, and those that only the right one has."""
    printed, right = _derivatives(claim.expression), _derivatives(belongs)
    return printed - right, right - printed


def _pairs(
    strange: "Counter[Expression]", missing: "Counter[Expression]"
) -> list[tuple[Expression, Expression]]:
    """Derivatives of the same quantity, where one is strange and one is missing."""
    pairs: list[tuple[Expression, Expression]] = []
    unused = list(missing.elements())
    for name in strange.elements():
        other = next((other for other in unused if other.args[0] == name.args[0]), None)
        if other is not None:
            pairs.append((name, other))
            unused.remove(other)
    return pairs


def _by_difference(claim: Claim, belongs: Expression) -> str:
    """One term too much or too few, by the derivatives' names or carried out."""
    term = _simple(claim.expression - belongs)
    if term is None:
        term = _simple(by_node(claim.expression) - by_node(claim.of))
    if term is None:
        return ""
    if term.could_extract_minus_sign():
        return f"the term {in_plain(-term)} is missing: printed = right - {in_plain(-term)}"
    return f"the term {in_plain(term)} does not belong: printed = right + {in_plain(term)}"


def _simple(expression: Expression) -> Expression:
    """The expression as one short product, None where it is none."""
    factored = sympy.factor(sympy.cancel(sympy.together(expression)))
    short = not factored.has(sympy.Add) and sympy.count_ops(factored) <= SIMPLE
    return factored if short else None


def _derivatives(expression: Expression) -> "Counter[Expression]":
    """How often each printed derivative occurs."""
    return Counter(
        node for node in sympy.preorder_traversal(expression) if isinstance(node, Partial)
    )


def right_form(claim: Claim) -> Expression:
    """The left side's value in the words of the printed line; checked to be the same value.

    Raises ContradictionError where it is not.
    """
    right = sympy.Add(*(_right_term(term, claim) for term in sympy.Add.make_args(claim.of)))
    if not same_value(right, claim.of):
        raise ContradictionError(f"{claim.label}: {in_plain(right)} is not {in_plain(claim.of)}.")
    return right


def _right_term(term: Expression, claim: Claim) -> Expression:
    """By the chain rule; what the line does not leave as a derivative is carried out."""
    printed = claim.expression.atoms(Partial)
    if not _is_quantity(term) and term.atoms(Partial) <= printed:
        return term  # an update in its first form
    right = sympy.factor(term.replace(Partial, chain_rule))
    loss_kept = any(partial.args[0] == LOSS for partial in printed)
    others_kept = bool(printed) and not claim.expression.has(sigma)
    for partial in right.atoms(Partial):
        kept = loss_kept if partial.args[0] == LOSS else others_kept
        if not kept or right == term:
            right = right.xreplace({partial: _carried_out(partial)})
    right = NETWORK.get(right, right)
    x6 = sympy.Symbol("x6")
    if right.has(x6) and not claim.expression.has(x6):
        right = sympy.factor(right.xreplace({x6: NETWORK[x6]}))
    return right.xreplace(ACTIVATIONS) if claim.expression.has(sigma) else right


def _carried_out(partial: Expression) -> Expression:
    value = derivative(*partial.args)
    return value if value.has(sigma) else sympy.factor(value)
