r"""The assignment's derivation, a) to d): every printed equation as a claim that can be checked.

Source: "CS 489, Winter 2021: Assignment 3", question 1. What is printed is copied here, mistakes
included, and read by `manual_bp.latex`; nothing below says which lines are right. `manual_bp.audit`
finds out. In words, the text derives

    a)  dL/dz6  = 2 (z6^2 - t) / z6^3                                             (5)
    b)  dL/dw46 = dL/dz6 x4            c)  dL/db6 = dL/dz6          w <- w - k dL/dw
    d)  dL/dz3  = dL/dz6 [w36 + sum over i = 4, 5 of w3i wi6 sigma'(zi)] sigma'(z3)

Needs SymPy, which `import manual_bp` does not.
"""

from dataclasses import dataclass

import sympy

from manual_bp.latex import LOSS, Expression, MalformedError, Partial, read, rho, sides, sigma


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


# ---- what the text starts from: (1), (2) and the network ------------------------------------


def cost(x: Expression) -> Expression:
    """(1), the cost of an output x; t is the target."""
    return read(r"\frac{t}{x} - \ln\frac{t}{x} - 1").subs(sympy.Symbol("x"), x)


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
