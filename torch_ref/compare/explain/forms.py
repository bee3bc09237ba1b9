"""Elementwise formulas c * F(v) * dL/dg: v a named value, dL/dg one of the hand's gradients."""

from dataclasses import dataclass

from torch import Tensor

from torch_ref.compare.explain.arithmetic import times
from torch_ref.compare.explain.columns import Column, Pair
from torch_ref.compare.explain.functions import Function
from torch_ref.compare.explain.numbers import Constant
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

CONSTANTS = {1.0: "", -1.0: "-", 2.0: "2 * ", -2.0: "-2 * ", 0.5: "1/2 * ", -0.5: "-1/2 * "}


@dataclass(frozen=True)
class Factor:
    """A function of a quantity laid along the question's elements."""

    column: Column | Pair
    function: Function

    @property
    def text(self) -> str:
        return self.function.text.format(self.column.label)

    def at(self, question: Question, places: Tensor | None = None) -> Side:
        return self.function.of(self.column.at(question, places))


@dataclass(frozen=True, eq=False)
class Form:
    """A formula with its numbers, flat over all draws, and how it is written.

    product: gradient first, "dL/dz6 * x4"; path: factor first, "w36 * dL/dz6"; multiplier: what
    the gradient is multiplied by, "x4", "" for nothing. factor and gradient: None where there is
    none, and in a formula that is not elementwise, whose multiplier is None, too. constant: the
    number in front.
    """

    side: Side
    product: str
    path: str
    multiplier: str | None = None
    factor: Factor | None = None
    gradient: Column | None = None
    constant: float = 1.0


def form_of(
    question: Question,
    factor: Factor | None,
    gradient: Column | None,
    constant: Constant,
) -> Form:
    """The form of these terms, of which one at least is there, written as people write it."""
    sides = [term.at(question) for term in (factor, gradient) if term is not None]
    side = sides[0] if len(sides) == 1 else times(*sides)
    if constant.value != 1:
        side = constant.times(side)
    text = CONSTANTS.get(constant.value, f"{constant.text} * ")
    label = gradient.label if gradient else ""
    if factor is None:
        multiplier = "-1" if text == "-" else text.removesuffix(" * ")
        product = path = text + label
    elif factor.function.divides:
        multiplier = f"{text}1/{factor.text}"
        product = path = f"{text}{label or '1'} / {factor.text}"
    else:
        multiplier = text + factor.text
        path = f"{multiplier} * {label}" if label else multiplier
        product = f"{label} * {multiplier}" if label else multiplier
        if text == "-" and label:
            product = f"-{label} * {factor.text}"
    return Form(side, product, path, multiplier, factor, gradient, constant.value)
