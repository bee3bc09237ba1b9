"""Printed formulas as SymPy expressions: LaTeX, as much of it as the assignment uses."""

import re
from collections.abc import Sequence
from typing import Any

import sympy

Expression = Any  # a SymPy expression; SymPy has no types of its own

LOSS = sympy.Symbol("L")

TOKEN = re.compile(r"\\[A-Za-z]+|\d+|[A-Za-z]|[^\sA-Za-z0-9]")
CLOSING = {"{": "}", "(": ")", "[": "]"}
LAYOUT = (r"\left", r"\right", "&")


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


def rho(z: Expression) -> Expression:
    """(2), the activation z^2."""
    return z**2


class MalformedError(ValueError):
    """The printed form is no formula; `fragment` is what can be read before it goes wrong."""

    def __init__(self, message: str, fragment: Expression) -> None:
        super().__init__(message)
        self.fragment = fragment


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
