"""Elementwise formulas c * F(v) * dL/dg: v a named value, dL/dg one of the hand's gradients.

All of them are tried at once on a small sample; what is left is tested on every element.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import exact, picked, scaled, times
from torch_ref.compare.explain.columns import Column, Pair, boolean, columns, numeric
from torch_ref.compare.explain.functions import FUNCTIONS, MASKS, PAIR_FUNCTIONS, Function
from torch_ref.compare.explain.numbers import fitted_constant
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

CONSTANTS = {1.0: "", -1.0: "-", 2.0: "2 * ", -2.0: "-2 * ", 0.5: "1/2 * ", -0.5: "-1/2 * "}
MOST_TRIES = 40
MOST_PAIRED = 24


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


Groups = tuple[tuple[tuple[Function, ...], Sequence[Column | Pair]], ...]


class Catalogue:
    """Every factor that can be laid along a question's elements, with its numbers in the sample."""

    def __init__(self, question: Question, groups: Groups | None = None) -> None:
        self.question = question
        self.groups = _single(question) if groups is None else groups
        self.factors = [
            Factor(column, function)
            for functions, group in self.groups
            for function in functions
            for column in group
        ]

    @cached_property
    def paired(self) -> "Catalogue":
        """Functions of the difference of two values instead."""
        laid = columns(self.question, numeric(self.question), is_gradient=False)[:MOST_PAIRED]
        return Catalogue(
            self.question, ((PAIR_FUNCTIONS, [Pair(*two) for two in permutations(laid, 2)]),)
        )

    @cached_property
    def sampled(self) -> Side:
        """Shape (factors + 1, sample); the last row is 1, no factor."""
        sample = self.question.sample
        rows = []
        for functions, group in self.groups:
            if group:
                plain = _stacked([column.at(self.question, sample) for column in group])
                rows += [function.of(plain) for function in functions]
        rows.append(exact(torch.ones(1, len(sample), dtype=torch.float64)))
        return Side(torch.cat([r.value for r in rows]), torch.cat([r.bound for r in rows]))

    def factor(self, row: int) -> Factor | None:
        return self.factors[row] if row < len(self.factors) else None

    def forms(
        self,
        target: Side,
        gradients: tuple[str, ...],
        holds: Callable[[Side], bool],
        *,
        most: int = 1,
    ) -> list[Form]:
        """At most `most` forms of the target for which `holds`, plain ones first.

        gradients: those that may take part; "loss" stands for none, the direct path.
        """
        names = tuple(name for name in gradients if name != "loss")
        grads: list[Column | None] = [*columns(self.question, names, is_gradient=True)]
        if "loss" in gradients:
            grads.append(None)
        found: list[Form] = []
        for _, factor, gradient, constant in self._candidates(target, grads)[:MOST_TRIES]:
            side = _numbers(self.question, factor, gradient)
            side = side if constant == 1 else scaled(constant, side)
            if holds(side):
                found.append(_form(side, factor, gradient, constant))
                if len(found) == most:
                    break
        return found

    def _candidates(
        self, target: Side, gradients: list[Column | None]
    ) -> list[tuple[tuple[int, ...], Factor | None, Column | None, float]]:
        """What fits in the sample, in the order of preference."""
        wanted = picked(target, self.question.sample)
        found = []
        for order, gradient in enumerate(gradients):
            terms = self.sampled
            if gradient is not None:
                terms = times(terms, gradient.at(self.question, self.question.sample))
            for constant in CONSTANTS:
                fits = _fit(scaled(constant, terms) if constant != 1 else terms, wanted)
                for row in fits.nonzero().reshape(-1).tolist():
                    factor = self.factor(row)
                    if factor is None and gradient is None:
                        continue
                    weight = factor.function.weight if factor else -1
                    far = gradient is not None and gradient.name not in self.question.consumers
                    key = (weight + (abs(constant) != 1), int(far), order, row)
                    found.append((key, factor, gradient, constant))
        return sorted(found, key=lambda each: each[0])


def _single(question: Question) -> Groups:
    """Functions of one value, and masks."""
    laid = columns(question, numeric(question), is_gradient=False)
    masks = columns(question, boolean(question), is_gradient=False)
    return ((FUNCTIONS, laid), (MASKS, masks))


def scaled_copies(question: Question, gradients: tuple[str, ...]) -> Iterator[Form]:
    """Forms of the hand's number that are a gradient times any constant, fitted."""
    for gradient in columns(question, gradients, is_gradient=True):
        side = gradient.at(question)
        constant = fitted_constant(question, question.manual, side)
        if constant is None or constant.value == 0:
            continue
        product = constant.times(side)
        if question.answered_by(product):
            text = f"{constant.text} * {gradient.label}"
            yield Form(product, text, text, constant.text, None, gradient)


def _numbers(question: Question, factor: Factor | None, gradient: Column | None) -> Side:
    sides = [term.at(question) for term in (factor, gradient) if term is not None]
    return sides[0] if len(sides) == 1 else times(*sides)


def _form(side: Side, factor: Factor | None, gradient: Column | None, number: float) -> Form:
    """The form of these terms, written as people write it."""
    constant, label = CONSTANTS[number], gradient.label if gradient else ""
    if factor is None:
        multiplier = "-1" if constant == "-" else constant.removesuffix(" * ")
        product = path = constant + label
    elif factor.function.divides:
        multiplier = f"{constant}1/{factor.text}"
        product = path = f"{constant}{label or '1'} / {factor.text}"
    else:
        multiplier = constant + factor.text
        path = f"{multiplier} * {label}" if label else multiplier
        product = f"{label} * {multiplier}" if label else multiplier
        if constant == "-" and label:
            product = f"-{label} * {factor.text}"
    return Form(side, product, path, multiplier, factor, gradient, number)


def _fit(terms: Side, wanted: Side) -> Tensor:
    """Which rows of `terms`, shape (rows, sample), agree with `wanted`, shape (sample,)."""
    agrees = (terms.value - wanted.value).abs() <= terms.bound + wanted.bound
    return agrees.all(1)


def _stacked(sides: list[Side]) -> Side:
    return Side(
        torch.stack([side.value for side in sides]), torch.stack([side.bound for side in sides])
    )
