"""Formulas as the assignment prints them, in LaTeX, and as plain text."""

import re
from typing import Any

import sympy
from sympy.printing.latex import LatexPrinter

from manual_bp.latex import LOSS, Expression, Partial


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


def in_plain(expression: Expression) -> str:
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
