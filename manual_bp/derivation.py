r"""The assignment's derivation, a) to d): every printed equation as a claim that can be checked.

Source: "CS 489, Winter 2021: Assignment 3", question 1. What is printed is copied here, mistakes
included, and read by `read`; nothing below says which lines are right. `manual_bp.audit` finds
out. In words, the text derives

    a)  dL/dz6  = 2 (z6^2 - t) / z6^3                                             (5)
    b)  dL/dw46 = dL/dz6 x4            c)  dL/db6 = dL/dz6          w <- w - k dL/dw
    d)  dL/dz3  = dL/dz6 [w36 + sum over i = 4, 5 of w3i wi6 sigma'(zi)] sigma'(z3)

Needs SymPy, which `import manual_bp` does not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy

Expression = Any  # a SymPy expression; SymPy has no types of its own

LOSS = sympy.Symbol("L")


class Partial(sympy.Function):  # type: ignore[misc]
    """The printed derivative of the first argument for the second, not carried out yet."""

    nargs = 2

    @classmethod
    def eval(cls, quantity: Expression, variable: Expression) -> None:
        """Never simplified: the audit carries it out."""


class sigma(sympy.Function):  # type: ignore[misc]  # noqa: N801, its printed name
    """The logistic function. Its derivative is left to SymPy: see `fdiff`."""

    nargs = 1

    @staticmethod
    def formula(z: Any, exp: Any = sympy.exp) -> Any:
        """1 / (1 + exp(-z)), of a SymPy expression or, with their `exp`, of numbers."""
        return 1 / (1 + exp(-z))

    def fdiff(self, argindex: int = 1) -> Expression:
        """The formula's derivative, its exponential written as 1/sigma - 1."""
        z = self.args[0]
        slot = sympy.Dummy()
        derivative = sympy.diff(self.formula(slot), slot)
        in_sigma = sympy.expand(sympy.cancel(derivative.subs(sympy.exp(-slot), 1 / sigma(z) - 1)))
        return sympy.factor_terms(in_sigma)


@dataclass(frozen=True)
class Claim:
    """One printed line: that `expression`, its right side, equals `of`, its left side.

    label: where it stands; printed: its LaTeX, word for word; of, expression: both sides, with
    every derivative still to be carried out. A line that starts with "=" has the left side of
    the lines above it.
    """

    label: str
    printed: str
    of: Expression
    expression: Expression


class MalformedError(ValueError):
    """The printed form is no formula; `fragment` is what can be read before it goes wrong."""

    def __init__(self, message: str, fragment: Expression) -> None:
        super().__init__(message)
        self.fragment = fragment


# ---- reading LaTeX, as much as the assignment uses ------------------------------------------

TOKEN = re.compile(r"\\[A-Za-z]+|\d+|[A-Za-z]|[^\sA-Za-z0-9]")
CLOSING = {"{": "}", "(": ")", "[": "]"}
LAYOUT = (r"\left", r"\right", "&")


def read(latex: str) -> Expression:
    """One side of a printed equation as a SymPy expression; its derivatives stay `Partial`.

    Raises MalformedError where brackets do not match or something is left out.
    """
    tokens = _tokens(latex)
    problem = bracket_problem(latex)
    if problem:
        raise MalformedError(problem, _fragment(tokens))
    return _Reader(tokens).whole()


def bracket_problem(latex: str) -> str:
    """What is wrong with the brackets of `latex`, in words; empty where they match."""
    awaited: list[str] = []
    opened: list[str] = []
    for token in _tokens(latex):
        if token in CLOSING:
            awaited.append(CLOSING[token])
            opened.append(token)
        elif token in CLOSING.values():
            if not awaited or awaited[-1] != token:
                return f"{token} closes nothing"
            awaited.pop()
            opened.pop()
    return f"{' and '.join(opened)} opened but never closed" if opened else ""


def reading_problem(printed: str) -> str:
    """Why the right side of `printed`, or all of it where it has none, is no formula; or empty."""
    if "=" not in printed:
        return bracket_problem(printed)
    try:
        read(sides(printed)[1])
    except MalformedError as error:
        return str(error)
    return ""


def sides(printed: str) -> tuple[str, str]:
    """The printed text left and right of its first "=" that stands in no braces."""
    depth = 0
    for place, character in enumerate(printed):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "=" and depth == 0:
            return printed[:place], printed[place + 1 :]
    raise ValueError(f"{printed!r} is no equation: it has no '='.")


def _tokens(latex: str) -> list[str]:
    return [token for token in TOKEN.findall(latex) if token not in LAYOUT]


def _fragment(tokens: list[str]) -> Expression:
    """The longest beginning that is a formula once its open brackets are closed."""
    for length in range(len(tokens), 0, -1):
        if tokens[length : length + 1] == ["_"]:
            continue  # a name without its subscript is another name
        awaited: list[str] = []
        for token in tokens[:length]:
            if token in CLOSING:
                awaited.append(CLOSING[token])
            elif awaited and token == awaited[-1]:
                awaited.pop()
        try:
            return _Reader(tokens[:length] + awaited[::-1]).whole()
        except MalformedError:
            continue
    return sympy.nan


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, tokens: Sequence[str], index: dict[str, str] | None = None) -> None:
        self.tokens = list(tokens)
        self.place = 0
        self.index = index or {}  # the running index of a sum and its value

    def whole(self) -> Expression:
        result = self.sum()
        if self.next:
            raise MalformedError(f"{self.next} stands where the formula should end", result)
        return result

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        token = self.next
        if not token or (expected and token not in expected):
            raise MalformedError(f"{' or '.join(expected)} is missing", sympy.nan)
        self.place += 1
        return token

    def sum(self) -> Expression:
        """term + term - term ..."""
        result = -self.product() if self._skip("-") else self.product()
        while self.next in ("+", "-"):
            result = (
                result + self.product() if self.take("+", "-") == "+" else result - self.product()
            )
        return result

    def product(self) -> Expression:
        """Factors side by side or with \\times between them."""
        result = self.power()
        while self.next and self.next not in ("+", "-", "=", *CLOSING.values()):
            self._skip(r"\times")
            result = result * self.power()
        return result

    def power(self) -> Expression:
        base = self.factor()
        return base ** self.script() if self._skip("^") else base

    def factor(self) -> Expression:
        token = self.take()
        if token in ("(", "["):
            return self._until(CLOSING[token])
        if token.isdigit():
            return sympy.Integer(token)
        if token == r"\frac":
            return self.fraction()
        if token == r"\sum":
            return self.summation()
        if token == r"\ln":
            return sympy.log(self.power())
        if token in (r"\sigma", r"\rho"):
            self.take("(")
            argument = self._until(")")
            return sigma(argument) if token == r"\sigma" else rho(argument)
        if token.isalpha():
            return sympy.Symbol(token + (self.subscript() if self._skip("_") else ""))
        raise MalformedError(f"{token} stands where a formula should go on", sympy.nan)

    def fraction(self) -> Expression:
        r"""A quotient, \frac{\partial y}{\partial v}, or the operator \frac{\partial}{\partial v}.

        \partial y over something else is read as what it says: the differential y' dv, divided.
        """
        self.take("{")
        if not self._skip(r"\partial"):
            return self._until("}") / self._group()
        if self._skip("}"):
            variable = self._differentiated()
            return Partial(self.power(), variable)
        quantity = self._until("}")
        if self.tokens[self.place : self.place + 2] == ["{", r"\partial"]:
            return Partial(quantity, self._differentiated())
        (variable,) = quantity.free_symbols
        return Partial(quantity, variable) * sympy.Symbol(f"d{variable}") / self._group()

    def summation(self) -> Expression:
        """The product after it, once for every value of the index."""
        self.take("_")
        self.take("{")
        name = self.take()
        self.take("=")
        first = int(self.take())
        self.take("}")
        self.take("^")
        last = int(self.script())
        start = self.place
        total = sympy.Integer(0)
        for value in range(first, last + 1):
            body = _Reader(self.tokens[start:], {name: str(value)})
            total += body.product()
            self.place = start + body.place
        return total

    def script(self) -> Expression:
        return self._group() if self.next == "{" else self.factor()

    def subscript(self) -> str:
        """The characters of a subscript, a running index replaced by its value."""
        if not self._skip("{"):
            token = self.take()
            if not token.isalnum():
                raise MalformedError("a subscript is missing", sympy.nan)
            return self.index.get(token, token)
        text = ""
        while self.next != "}":
            token = self.take()
            text += self.index.get(token, token)
        self.take("}")
        return text

    def _differentiated(self) -> Expression:
        self.take("{")
        self.take(r"\partial")
        return self._until("}")

    def _group(self) -> Expression:
        self.take("{")
        return self._until("}")

    def _until(self, closing: str) -> Expression:
        result = self.sum()
        self.take(closing)
        return result

    def _skip(self, token: str) -> bool:
        if self.next != token:
            return False
        self.place += 1
        return True


# ---- what the text starts from: (1), (2) and the network ------------------------------------


def cost(x: Expression) -> Expression:
    """(1), the cost of an output x; t is the target."""
    return read(r"\frac{t}{x} - \ln\frac{t}{x} - 1").subs(sympy.Symbol("x"), x)


def rho(z: Expression) -> Expression:
    """(2), the activation z^2."""
    return z**2


def _network() -> dict[Expression, Expression]:
    z3, x3, z4, x4, z5, x5, z6, x6 = sympy.symbols("z3 x3 z4 x4 z5 x5 z6 x6")
    return {
        z3: read("w_{13} x_1 + w_{23} x_2 + b_3"),
        x3: sigma(z3),
        z4: read("w_{34} x_3 + b_4"),
        x4: sigma(z4),
        z5: read("w_{35} x_3 + b_5"),
        x5: sigma(z5),
        z6: read("w_{36} x_3 + w_{46} x_4 + w_{56} x_5 + b_6"),
        x6: rho(z6),
        LOSS: cost(x6),
    }


NETWORK = _network()  # each value by what it is computed from, inputs first


# ---- the derivation, line by line -----------------------------------------------------------


def _block(label: str, *printed: str, of: Expression = None) -> tuple[Claim, ...]:
    """Lines with one left side, which the first one prints unless `of` is given."""
    of = read(sides(printed[0])[0]) if of is None else of
    numbered = enumerate(printed, start=1)
    return tuple(
        Claim(f"{label}, line {n}" if len(printed) > 1 else label, line, of, _right_side(line))
        for n, line in numbered
    )


def _right_side(printed: str) -> Expression:
    """What is printed right of "=", as far as it can be read."""
    try:
        return read(sides(printed)[1])
    except MalformedError as error:
        return error.fragment


def _update(parameter: str) -> Expression:
    """The gradient descent step w - k dL/dw, which an update line names by its "w =" alone."""
    w = sympy.Symbol(parameter)
    return w - sympy.Symbol("k") * Partial(LOSS, w)


A = (
    *_block(
        "a) dL/dx",
        r"\frac{\partial L}{\partial x} = \frac{\partial}{\partial x}"
        r" \left(\frac{t}{x} - \ln \frac{t}{x} - 1 \right)",
        r"= -\frac{t}{x^2} + \frac{1}{x}",
        r"= \frac{x - t}{x^2}",
    ),
    *_block("a) (3)", r"\frac{\partial L}{\partial x_6} = \frac{x_6 - t}{x_6^2}"),
    *_block("a) x6", r"x_6 = \rho(z_6)"),
    *_block("a) x6 by (2)", r"x_6 = z_6^2"),
    *_block(
        "a) (4)",
        r"\frac{\partial x_6}{\partial z_6} = \frac{\partial}{\partial z_6} z_6^2",
        r"= 2z_6",
    ),
    *_block(
        "a) chain",
        r"\frac{\partial L}{\partial z_6} &= \frac{\partial L}{\partial x_6}"
        r" \frac{\partial x_6}{\partial z_6}",
        r"= \frac{x_6 - t}{x_6^2} 2z_6",
        r"= \frac{z_6^2 - t}{(z_6^2)^2} 2z_6",
        r"= \frac{2(z_6^2 - t)}{z_6^2}",
    ),
    *_block("a) (5)", r"\frac{\partial L}{\partial z_6} = \frac{2(z_6^2 - t)}{z_6^3}"),
)

# b) and c) print the sum z6 inside a derivative: a claim of its own, that this is z6.
PRINTED_Z6 = r"w_{36} x_3 + w_{46} x_4 w_{56} x_5 + b_6"

B = (
    *_block(
        "b) chain",
        r"\frac{\partial L}{\partial w_{46}} &= \frac{\partial L}{\partial z_6}"
        r" \times \frac{\partial z_6}{\partial w_{46}}",
        r"= \frac{\partial L}{\partial z_6} \times \frac{\partial}{\partial w_{46}}"
        rf" \left({PRINTED_Z6} \right)",
        r"= \frac{\partial L}{\partial z_6} \times x_4",
        r"= \frac{\partial L}{\partial z_6} \times \sigma(z_4)",
        r"= \frac{2(z_6^2 - t)}{z_6^3} \sigma(z_4)",
    ),
    Claim("b) z6 in line 2", PRINTED_Z6, read("z_6"), read(PRINTED_Z6)),
    *_block(
        "b) update",
        r"w_{46} = w_{46} - k \left(\frac{\partial L}{\partial w_{46}}\right)",
        r"= w_{46} - k \left(\frac{2(z_6^2 - t)}{z_6^3}\sigma(z_4)\right)",
        of=_update("w46"),
    ),
)

C = (
    *_block(
        "c) chain",
        r"\frac{\partial L}{\partial b_6} &= \frac{\partial L}{\partial z_6}"
        r" \times \frac{\partial z_6}{\partial b_6}",
        r"= \frac{\partial L}{\partial z_6} \times \frac{\partial}{\partial b_6}"
        rf" \left({PRINTED_Z6} \right)",
        r"= \frac{\partial L}{\partial z_6} \times 1",
        r"= \frac{2(z_6^2 - t)}{z_6^2}",
    ),
    Claim("c) z6 in line 2", PRINTED_Z6, read("z_6"), read(PRINTED_Z6)),
    *_block(
        "c) update",
        r"b_6 = b_6 - k \left(\frac{\partial L}{\partial b_6}\right)",
        r"= b_6 - k \frac{2(z_6^2 - t)}{z_6^3}",
        of=_update("b6"),
    ),
)

REPEATED = (
    r"= \frac{\partial L}{\partial z_6} \times \left[w_{36}"
    r" + w_{35} w_{56} \frac{\partial x_5}{\partial z_5}"
    r" + w_{34} w_{46} \frac{\partial x_4}{\partial z_4} \right]"
    r" \times \frac{\partial x_3}{\partial z_3}"
)
BY_SUM = (
    r"\left[w_{36} + \sum_{i=4}^5 w_{3i} w_{i6} \sigma(z_i) (1 - \sigma(z_i)) \right]"
    r" \times \sigma(z_3) (1 - \sigma(z_3))"
)

D = (
    *_block(
        "d) chain",
        r"\frac{\partial L}{\partial z_3} &= \frac{\partial L}{\partial x_3}"
        r" \times \frac{\partial x_3}{\partial z_3}",
        r"= \left[\frac{\partial z_6}{\partial x_3} \frac{\partial L}{\partial z_6}"
        r" + \frac{\partial z_5}{\partial x_3} \frac{\partial L}{\partial z_5}"
        r" + \frac{\partial z_4}{\partial x_3} \frac{\partial L}{\partial z_4} \right]"
        r" \times \frac{\partial x_3}{\partial z_3}",
        r"= \left[\frac{\partial z_6}{\partial x_3} \frac{\partial L}{\partial z_6}"
        r" + \frac{\partial z_5}{\partial x_3} \frac{\partial L}{\partial x_5}"
        r" \frac{\partial x_5}{\partial z_5}"
        r" + \frac{\partial z_4}{\partial x_3} \frac{\partial L}{\partial x_4}"
        r" \frac{\partial x_4}{\partial z_4} \right]"
        r" \times \frac{\partial x_3}{\partial z_3}",
        r"= \left[\frac{\partial z_6}{\partial x_3} \frac{\partial L}{\partial z_6}"
        r" + \frac{\partial z_5}{\partial x_3} \left(\frac{\partial z_6}{\partial x_5}"
        r" \frac{\partial L}{\partial z_6} \right) \frac{\partial x_5}{\partial z_5}"
        r" + \frac{\partial z_4}{\partial x_3} \left(\frac{\partial z_6}{\partial x_4}"
        r" \frac{\partial L}{\partial z_6} \right) \frac{\partial x_4}{\partial z_4} \right]"
        r" \times \frac{\partial x_3}{\partial z_3}",
        r"= \frac{\partial L}{\partial z_6} \times \left[\frac{\partial z_6}{\partial x_3}"
        r" + \frac{\partial z_5}{\partial x_3} \frac{\partial z_6}{\partial x_5}"
        r" \frac{\partial x_5}{\partial z_5}"
        r" + \frac{\partial z_4}{\partial x_3} \frac{\partial z_6}{\partial x_4}"
        r" \frac{\partial x_4}{\partial z_4} \right]"
        r" \times \frac{\partial x_3}{\partial z_3}",
        *[REPEATED] * 10,  # printed so often
        r"= \frac{\partial L}{\partial z_6} \times \left[w_{36}"
        r" + w_{35} w_{56} \frac{\partial x_5}{\partial z_5}"
        r" + w_{34} w_{46} \frac{\partial x_4}{\partial z_5} \right]"
        r" \times \frac{\partial x_5}{\partial z_5}",
        r"= \frac{\partial L}{\partial z_5} \times \left[w_{36}"
        r" + w_{35} w_{56} \frac{\partial x_5}{\partial z_",  # printed so far
    ),
    *_block("d) from exercise 2", r"\frac{\partial \sigma(x)}{x} = \sigma(x)(1 - \sigma(x))"),
    *_block(
        "d) inserted",
        r"\frac{\partial L}{\partial z_3} = \frac{\partial L}{\partial z_6}"
        r" \times \left[w_{36} + w_{35} w_{56} \sigma(z_5) (1 - \sigma(z_5))"
        r" + w_{34} w_{46} \sigma(z_4) (1 - \sigma(z_4)) \right]"
        r" \times \sigma(z_3) (1 - \sigma(z_3))",
        rf"= \frac{{\partial L}}{{\partial z_6}} \times {BY_SUM}",
    ),
    Claim(
        "d) name of (5)",
        r"(5) our definition of $\frac{\partial L}{\partial z_3}$",
        read(r"\frac{\partial L}{\partial z_3}"),
        A[-1].expression,
    ),
    *_block(
        "d) result",
        rf"\frac{{\partial L}}{{\partial z_3}} = \frac{{2(z_6^2 - t)}}{{z_6^3}} \times {BY_SUM}",
    ),
)

CLAIMS = (*A, *B, *C, *D)
