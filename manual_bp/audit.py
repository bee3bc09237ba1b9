r"""Which printed lines of the assignment are wrong, by what, and what belongs there.

Every claim of `manual_bp.derivation` is checked twice, and both checks must agree:

* symbolically: SymPy differentiates the network itself, and printed minus right must cancel to 0;
* on random numbers: derivatives of L come from `manual_bp.network.backward`, every other one from
  a complex step (Squire & Trapp, SIAM Review 40(1), 1998), so no SymPy derivative is used.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import sympy
from sympy.printing.latex import LatexPrinter

from manual_bp.derivation import (
    CLAIMS,
    LOSS,
    NETWORK,
    Claim,
    Expression,
    Partial,
    cost,
    reading_problem,
    sides,
    sigma,
)
from manual_bp.functions import sigmoid
from manual_bp.network import INPUTS, PARAMETERS, backward, forward

POINTS = 64
ROUNDING = 1e-9  # far above the rounding of a few float64 operations, far below any mistake
SIMPLE = 12  # operations a factor or a term may have to be worth printing
STEP = 1e-30  # of the complex step, which does not cancel, however short

ACTIVATIONS = {node: value for node, value in NETWORK.items() if value.func == sigma}

Numbers = np.ndarray[Any, Any]


class ContradictionError(RuntimeError):
    """The symbolic check and the random numbers disagree about a line: one of them is broken."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one printed line.

    problem: what is wrong, in words; belongs: what should stand there, as LaTeX (both empty where
    the line is right); evidence: the numbers; repeats: the earlier line that prints the same.
    """

    label: str
    printed: str
    right: bool
    problem: str
    belongs: str
    evidence: str
    repeats: str = ""

    def to_dict(self) -> dict[str, object]:
        """The fields by name, for JSON."""
        return asdict(self)


def audit(claims: Sequence[Claim] = CLAIMS) -> tuple[Finding, ...]:
    """A finding for every claim, in the order of the text.

    Raises ContradictionError where the two checks of a line disagree.
    """
    point = random_point()
    findings: list[Finding] = []
    for claim in claims:
        finding = _check(claim, point, _repeated(claim, findings))
        findings.append(finding)
    return tuple(findings)


def summary(findings: Sequence[Finding]) -> str:
    """How many lines are wrong, right and repeated; then a remark on every repeated line.

    A line that only repeats the one before is neither wrong nor right here, but counted apart.
    """
    repeats = Counter(finding.repeats for finding in findings if finding.repeats)
    judged = [finding.right for finding in findings if not finding.repeats]
    counts = (
        f"{len(findings)} printed lines checked: {judged.count(False)} wrong, "
        f"{judged.count(True)} right, {repeats.total()} that only repeat the line before"
    )
    remarks = [
        f"remark: {label} is printed {count + 1} times, word for word: once is enough"
        for label, count in repeats.items()
    ]
    return "\n".join([counts, *remarks])


def _repeated(claim: Claim, before: Sequence[Finding]) -> str:
    """The label of the first of the lines just before that print the same, word for word."""
    if not before or before[-1].printed != claim.printed:
        return ""
    return before[-1].repeats or before[-1].label


def _check(claim: Claim, point: Mapping[str, Numbers], repeats: str) -> Finding:
    malformed = reading_problem(claim.printed)
    same = same_value(claim.of, claim.expression)
    left, right = numbers(claim.of, point), numbers(claim.expression, point)
    gap = relative_gap(left, right)
    if same != bool(np.all(gap <= ROUNDING)):
        raise ContradictionError(
            f"{claim.label}: symbolically {'right' if same else 'wrong'}, but both sides differ "
            f"by up to {gap.max():.1e} at {POINTS} random points."
        )
    if same and not malformed:
        evidence = f"equal at {POINTS} random points to {gap.max():.0e}"
        return Finding(claim.label, claim.printed, True, "", "", evidence, repeats)
    problem, belongs = _malformed(claim, malformed) if malformed else _mistake(claim, point)
    first = int(np.argmax(gap > ROUNDING))
    formula = "what can be read" if malformed else "the printed formula"
    evidence = (
        f"differ at {int(np.sum(gap > ROUNDING))} of {POINTS} random points; at the first, "
        f"{_left_side(claim)} = {left[first]:.6g}, {formula} = {right[first]:.6g}"
    )
    return Finding(claim.label, claim.printed, False, problem, belongs, evidence, repeats)


# ---- symbolically ---------------------------------------------------------------------------


@cache
def same_value(left: Expression, right: Expression) -> bool:
    """Whether both are the same function of the inputs and parameters."""
    difference = written_out(by_node(left) - by_node(right))
    # sigma(z) of different z are algebraically independent, so cancelling decides
    return bool(sympy.cancel(sympy.together(difference)) == 0)


@cache
def by_node(expression: Expression) -> Expression:
    """The value in terms of the nodes x3, x4, x5, z6: derivatives carried out by SymPy."""
    x6 = sympy.Symbol("x6")
    carried_out = expression.replace(Partial, derivative)
    return carried_out.xreplace(_node_names(None)).xreplace({x6: NETWORK[x6]})


def derivative(quantity: Expression, variable: Expression) -> Expression:
    """What the printed d quantity / d variable is in the network.

    Of L it counts every path; of a node, the node's other inputs are held fixed, as in the text:
    there dz6/dx3 is w36, although x4 and x5 depend on x3 too. For the x of (1), L is (1) itself.
    """
    if quantity == LOSS:
        if variable not in _reachable(LOSS):
            return sympy.diff(cost(variable), variable)
        result = sympy.diff(written_out(LOSS, variable), variable)
        return result.xreplace(_node_names(variable))
    return sympy.diff(NETWORK.get(quantity, quantity), variable)


def written_out(expression: Expression, stop: Expression = None) -> Expression:
    """Every node replaced by what it is computed from, down to the inputs or to `stop`."""
    for node in reversed(NETWORK):
        if node != stop:
            expression = expression.xreplace({node: NETWORK[node]})
    return expression


@cache
def _reachable(quantity: Expression) -> frozenset[Expression]:
    """All names that `quantity` is computed from."""
    direct = NETWORK[quantity].free_symbols if quantity in NETWORK else set()
    return frozenset(direct).union(*map(_reachable, direct))


@cache
def _node_names(stop: Expression) -> Mapping[Expression, Expression]:
    """Written-out nodes, and sigma of a node, by the node's name."""
    by_value = {written_out(node, stop): node for node in NETWORK if node not in (stop, LOSS)}
    return by_value | {value: node for node, value in ACTIVATIONS.items()}


# ---- on random numbers ----------------------------------------------------------------------


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


# ---- what is wrong, and what belongs there --------------------------------------------------


def _malformed(claim: Claim, reason: str) -> tuple[str, str]:
    belongs = right_form(claim)
    strange, missing = _strange_and_missing(claim, belongs)
    problem = f"the formula breaks off: {reason}"
    for name, other in _pairs(strange, missing):
        problem += f"; before that, {_plain(name)} stands where {_plain(other)} belongs"
    return problem, in_latex(belongs)


def _mistake(claim: Claim, point: Mapping[str, Numbers]) -> tuple[str, str]:
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
        return f"the formula is {_plain(name)}, not {_left_side(claim)}"
    return (
        f"{_left_side(claim)} is wrong by the factor {_plain(factor)}: "
        f"the formula is {_plain(name)}"
    )


def _left_side(claim: Claim) -> str:
    """What the line says that its formula is, in the text's own words where it prints them."""
    if _is_quantity(claim.of) or "=" not in claim.printed:
        return _plain(claim.of)
    return plain(sides(claim.printed)[0]) or _plain(claim.of)


def _is_quantity(expression: Expression) -> bool:
    return expression.is_Symbol or isinstance(expression, Partial)


def _by_terms(claim: Claim, belongs: Expression) -> str:
    """Terms of a sum that stand where others belong, while the rest of the sum is right."""
    printed, right = (set(sympy.Add.make_args(side)) for side in (claim.expression, belongs))
    strange, missing = (_plain(sympy.Add(*terms)) for terms in (printed - right, right - printed))
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
    return f"wrong by the factor {_plain(factor)}: printed = {_plain(factor)} × right"


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
        f"{_plain(name)} stands where {_plain(other)} belongs" for name, other in pairs
    ) + "".join(
        f" ({_plain(name)} is 0: {name.args[1]} does not enter {name.args[0]})" for name in zeros
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
        return f"the term {_plain(-term)} is missing: printed = right - {_plain(-term)}"
    return f"the term {_plain(term)} does not belong: printed = right + {_plain(term)}"


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
        raise ContradictionError(f"{claim.label}: {_plain(right)} is not {_plain(claim.of)}.")
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


def chain_rule(quantity: Expression, variable: Expression) -> Expression:
    """d quantity / d variable along every path, one node at a time, as d) derives it.

    Weights are carried out, derivatives of sigma and L are left as names; below z6, where all
    paths meet, dL/dz6 stands for the rest.
    """
    z6 = sympy.Symbol("z6")
    if quantity == LOSS and variable in _reachable(z6):
        return Partial(LOSS, z6) * chain_rule(z6, variable)
    if quantity == variable:
        return sympy.Integer(1)
    if quantity not in NETWORK or (quantity == LOSS and variable not in _reachable(LOSS)):
        return Partial(quantity, variable)  # no paths to follow, as for the x of (1)
    if variable not in _reachable(quantity):
        return sympy.Integer(0)
    total = sympy.Integer(0)
    for node in sorted(NETWORK[quantity].free_symbols, key=str):
        slope = sympy.diff(NETWORK[quantity], node)
        weight = slope if slope.is_Symbol or slope.is_Number else Partial(quantity, node)
        if node == variable or variable in _reachable(node):
            total += weight * chain_rule(node, variable)
    return total


# ---- formulas as LaTeX and as plain text ----------------------------------------------------


def in_latex(expression: Expression) -> str:
    """The expression as the assignment would print it."""
    return str(_Latex({"order": "grlex", "ln_notation": True}).doprint(expression))


class _Latex(LatexPrinter):  # type: ignore[misc]
    """SymPy's LaTeX, with the assignment's derivatives and its order of the factors."""

    def _print_Partial(self, expression: Expression, exp: str = "") -> str:  # noqa: N802
        quantity, variable = (self._print(part) for part in expression.args)
        fraction = rf"\frac{{\partial {quantity}}}{{\partial {variable}}}"
        return rf"\left({fraction}\right)^{{{exp}}}" if exp else fraction

    def _print_sigma(self, expression: Expression, exp: str = "") -> str:
        power = f"^{{{exp}}}" if exp else ""
        return rf"\sigma({self._print(expression.args[0])}){power}"

    def _print_Mul(self, expression: Expression) -> str:  # noqa: N802
        quotient = sympy.fraction(expression)[1] != 1
        if quotient or expression.could_extract_minus_sign() or not expression.has(Partial):
            return str(super()._print_Mul(expression))
        groups = [
            [factor for factor in expression.args if _place(factor) == place] for place in range(4)
        ]
        slopes, weights, sums, others = (list(map(self._print, group)) for group in groups)
        brackets = [rf"\left[{text}\right]" for text in sums]
        parts = [*slopes, " ".join(weights), *brackets, " ".join(others)]
        times = r" \times " if slopes or sums else " "
        return times.join(part for part in parts if part)

    def _print_Add(self, expression: Expression, order: Any = None) -> str:  # noqa: N802
        terms = self._as_ordered_terms(expression, order=order)
        if expression.has(Partial):
            terms = sorted(terms, key=lambda term: (term.count_ops(), str(term)))
        terms = sorted(terms, key=lambda term: term.could_extract_minus_sign())  # x - t, not -t + x
        return " + ".join(self._print(term) for term in terms).replace("+ -", "- ")


def _place(factor: Expression) -> int:
    """Where the assignment puts a factor: dL/dv, weights, sums, the other derivatives."""
    if isinstance(factor, Partial):
        return 0 if factor.args[0] == LOSS else 3
    return 2 if factor.is_Add else 1


def _plain(expression: Expression) -> str:
    return plain(in_latex(expression))


SIGNS = {
    r"\partial": "∂", r"\sigma": "σ", r"\rho": "ρ", r"\ln": "ln", r"\times": "×",
    r"\left": "", r"\right": "",
}  # fmt: skip
RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
SUM = re.compile(r"\\sum_\{(\w+)=(\w+)\}\^(\w+)")
SUBSCRIPT = re.compile(r"_\{(\w+)\}|_(\w)")
POWER = re.compile(r"\^\{(-?\d+)\}|\^(\d)")
FRACTION = re.compile(r"(ln\s*)?\\frac\{([^{}]*)\}\{([^{}]*)\}")
GROUP = re.compile(r"(?<!\\frac)(?<!\})\{([^{}]*)\}")
BROKEN_OFF = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)$")


def plain(latex: str) -> str:
    r"""LaTeX as one line of plain text: \frac{\partial L}{\partial z_6} as ∂L/∂z6."""
    text = SUM.sub(r"Σ[\1=\2..\3] ", latex.replace("&", "").replace("$", ""))
    text = re.sub(r"\\(?!frac)[A-Za-z]+", lambda word: SIGNS.get(word[0], word[0]), text)
    text = SUBSCRIPT.sub(lambda script: script[1] or script[2], text)
    text = POWER.sub(lambda script: (script[1] or script[2]).translate(RAISED), text)
    text = re.sub(r"∂ +", "∂", text)
    before = ""
    while text != before:  # from the inside out
        before, text = text, FRACTION.sub(_quotient, text)
        text = GROUP.sub(r"\1", text) if text == before else text
    text = BROKEN_OFF.sub(r"\1/\2", text)
    text = re.sub(r"\| *(?=[\w(\[∂])", " · ", text).replace("|", "")
    text = re.sub(r" +", " ", text)
    text = re.sub(r" (?=[)\]])|(?<=[(\[]) |(?<=σ) ", "", text)
    text = re.sub(r"(^|[(\[])- ", r"\1-", text.strip())
    return re.sub(r"\b(\d+) \(", r"\1(", text)


def _quotient(match: re.Match[str]) -> str:
    """a/b, with brackets where they are needed; | marks its end, before what may be a factor."""
    logarithm, above, below = match.groups()
    above, below = above.strip(), below.strip()
    if above.startswith("∂") and below.startswith("∂"):
        return f"{above}/{below}"
    outer = re.sub(r"\([^()]*\)", "", above)
    above = f"({above})" if " + " in outer or " - " in outer else above
    below = f"({below})" if " " in below else below
    return f"ln({above}/{below})" if logarithm else f"{above}/{below}|"


ASCII = str.maketrans(
    {"∂": "d", "σ": "sigma", "ρ": "rho", "×": "*", "·": "*", "Σ": "sum", "✓": "ok", "✗": "WRONG"}
)
HIGH = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def in_ascii(text: str) -> str:
    """Plain text for a terminal that has no other letters: ∂L/∂z6 as dL/dz6, z6² as z6^2."""
    return HIGH.sub(lambda power: "^" + power[0].translate(LOWERED), text).translate(ASCII)
