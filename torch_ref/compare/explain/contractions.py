"""Formulas with a sum in them: matrix products and sums over axes of gradients and values."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import (
    SMALLEST_NORMAL,
    UNIT_ROUNDOFF,
    agree,
    joined,
    scaled,
)
from torch_ref.compare.explain.columns import Sizes, axis_sizes, numeric
from torch_ref.compare.explain.evidence import Evidence
from torch_ref.compare.explain.forms import CONSTANTS, Form
from torch_ref.compare.explain.patterns import Pattern, patterns
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

MOST_PRODUCTS = 5e7  # elementary products of one contraction: more would take too long
MOST_PROBES = 3000
EVERYTHING = slice(None)


@dataclass(frozen=True)
class Operand:
    """A gradient of the hand or a value, and which of its axes are longer than 1 in some draw."""

    name: str
    is_gradient: bool
    axes: tuple[int, ...]

    @property
    def label(self) -> str:
        return f"dL/d{self.name}" if self.is_gradient else self.name

    def of(self, draw: Evidence) -> Side:
        """Its numbers without the axes of size 1."""
        side = (draw.gradients if self.is_gradient else draw.values)[self.name]
        shape = [side.value.shape[axis] for axis in self.axes]
        return Side(side.value.double().reshape(shape), side.bound.reshape(shape))


@dataclass(frozen=True)
class Contraction:
    """The sum of a gradient, or of a gradient times a value, over what the pattern sums."""

    gradient: Operand
    value: Operand | None
    pattern: Pattern

    def of(self, draw: Evidence, cut: slice = EVERYTHING) -> Side:
        """Its numbers for one draw, in the shape of the quantity in question.

        cut: which terms of the sum are taken.
        """
        operands = [_cut(self.gradient.of(draw), self.pattern.left, self.pattern.summed, cut)]
        if self.value is not None and self.pattern.right is not None:
            right = _cut(self.value.of(draw), self.pattern.right, self.pattern.summed, cut)
            operands.append(right)
        side, shape = _contracted(self.pattern, operands), draw.manual.value.shape
        return Side(side.value.reshape(shape), side.bound.reshape(shape))

    def at(self, question: Question, cut: slice = EVERYTHING) -> Side:
        return joined([self.of(draw, cut) for draw in question.draws])

    @property
    def summed_axes(self) -> str:
        """The axes of the gradient that are summed, in words."""
        labels = zip(self.gradient.axes, self.pattern.left, strict=True)
        places = [str(axis) for axis, label in labels if label in self.pattern.summed]
        return f"axis {places[0]}" if len(places) == 1 else f"axes {' and '.join(places)}"

    @property
    def text(self) -> str:
        if self.value is None:
            return f"{self.gradient.label} summed over {self.summed_axes}"
        if self.pattern.left == self.pattern.right:
            return f"{self.gradient.label} * {self.value.label} summed over {self.summed_axes}"
        return _matrix_product(self.gradient.label, self.value.label, self.pattern) or (
            f'einsum("{self.pattern.equation}", {self.gradient.label}, {self.value.label})'
        )


def contraction_forms(
    question: Question,
    target: Side,
    gradients: tuple[str, ...],
    holds: Callable[[Side], bool],
) -> Iterator[tuple[Form, Contraction]]:
    """Contractions that make the target, times a constant, for which `holds`."""
    probe = _Probe(question, target)
    for contraction in islice(_contractions(question, gradients), MOST_PROBES):
        for constant in probe.constants(contraction):
            side = contraction.at(question)
            side = side if constant == 1 else scaled(constant, side)
            if holds(side):
                text = CONSTANTS[constant] + contraction.text
                yield Form(side, text, text), contraction


class _Probe:
    """The smallest draw with anything decided: most contractions are sorted out there."""

    def __init__(self, question: Question, target: Side) -> None:
        counted = [int(part.sum()) for part in question.split(question.decided)]
        sizes = [sum(v.value.numel() for v in draw.values.values()) for draw in question.draws]
        at = min(range(len(sizes)), key=lambda draw: (counted[draw] == 0, sizes[draw]))
        self.draw = question.draws[at]
        self.target = question.split_side(target)[at]
        self.decided = question.split(question.decided)[at]

    def constants(self, contraction: Contraction) -> list[float]:
        side = contraction.of(self.draw)
        return [
            constant
            for constant in CONSTANTS
            if bool(agree(scaled(constant, side), self.target)[self.decided].all())
        ]


def _contractions(question: Question, gradients: tuple[str, ...]) -> Iterator[Contraction]:
    """All that make a tensor of the quantity's shape, one gradient alone first."""
    target = axis_sizes([draw.manual.value for draw in question.draws])
    if target is None:
        return
    grads = _operands(question, gradients, is_gradient=True)
    for gradient, axes in grads:
        for pattern in patterns(axes, None, target):
            yield Contraction(gradient, None, pattern)
    values = _operands(question, numeric(question), is_gradient=False)
    for gradient, axes in grads:
        for value, others in values:
            if _affordable(question, gradient, value):
                for pattern in patterns(axes, others, target):
                    yield Contraction(gradient, value, pattern)


def _operands(
    question: Question, names: tuple[str, ...], *, is_gradient: bool
) -> list[tuple[Operand, list[Sizes]]]:
    result = []
    for name in names:
        sources = [draw.gradients if is_gradient else draw.values for draw in question.draws]
        if not all(name in source for source in sources):
            continue
        sizes = axis_sizes([source[name].value for source in sources])
        if sizes is not None:
            kept = tuple(axis for axis, size in enumerate(sizes) if set(size) != {1})
            result.append((Operand(name, is_gradient, kept), [sizes[axis] for axis in kept]))
    return result


def _affordable(question: Question, gradient: Operand, value: Operand) -> bool:
    return all(
        gradient.of(draw).value.numel() * value.of(draw).value.numel() <= MOST_PRODUCTS
        for draw in question.draws
    )


def _cut(side: Side, labels: str, summed: str, cut: slice) -> Side:
    index = tuple(cut if label in summed else EVERYTHING for label in labels)
    return Side(side.value[index], side.bound[index])


def _contracted(pattern: Pattern, operands: list[Side]) -> Side:
    """The einsum of values, and of their bounds: |a| e_b + e_a |b| + e_a e_b + n u |a| |b|."""
    value = _einsum(pattern, [side.value for side in operands])
    sizes = [side.value.abs() for side in operands]
    most = [size + side.bound for size, side in zip(sizes, operands, strict=True)]
    largest, plain = _einsum(pattern, most), _einsum(pattern, sizes)
    terms = _terms(pattern, operands) + 2
    rounding = min(terms, 3 * terms**0.5 + 2) * UNIT_ROUNDOFF * largest
    return Side(value, (largest - plain).clamp(min=0.0) + 3 * rounding + SMALLEST_NORMAL)


def _terms(pattern: Pattern, operands: list[Side]) -> int:
    """How many products are summed."""
    sizes: dict[str, int] = {}
    for labels, side in zip((pattern.left, pattern.right or ""), operands):
        sizes |= dict(zip(labels, side.value.shape, strict=True))
    return math.prod(sizes[label] for label in pattern.summed)


def _einsum(pattern: Pattern, operands: list[Tensor]) -> Tensor:
    result: Tensor = torch.einsum(pattern.equation, *operands)
    return result


def _matrix_product(left: str, right: str, pattern: Pattern) -> str | None:
    """ "dL/dz.T @ x" where that is what the pattern is, else None."""
    labels = zip(pattern.left, pattern.right or "", pattern.result)
    batch = len(list(takewhile(lambda axis: len(set(axis)) == 1, labels)))
    one, two = pattern.left[batch:], (pattern.right or "")[batch:]
    rows, summed = pattern.result[batch:], pattern.summed
    if len(summed) != 1 or summed not in one or summed not in two:
        return None
    if (len(one), len(two), len(rows)) not in ((2, 2, 2), (2, 1, 1), (1, 2, 1)):
        return None
    if rows[0] not in one:
        one, two, left, right = two, one, right, left
    mark = ".mT" if batch else ".T"
    first = left if one[-1] == summed else left + mark
    second = right if two[0] == summed else right + mark
    return f"{first} @ {second}"
