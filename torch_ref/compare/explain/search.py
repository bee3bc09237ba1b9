"""The search for an elementwise formula: every factor at once on a sample, the rest one by one.

Most formulas are sorted out at a single element, the one whose number is known best.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import permutations

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import (
    agree,
    exact,
    minus,
    over,
    picked,
    scaled,
    stacked,
    times,
)
from torch_ref.compare.explain.columns import Column, Pair, boolean, columns, numeric
from torch_ref.compare.explain.forms import CONSTANTS, Factor, Form, form_of
from torch_ref.compare.explain.functions import FUNCTIONS, MASKS, PAIR_FUNCTIONS, Function
from torch_ref.compare.explain.numbers import Constant, fitted_constant
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

MOST_TRIES = 40
MOST_PAIRED = 24
Groups = tuple[tuple[tuple[Function, ...], Sequence[Column | Pair]], ...]
Candidate = tuple[tuple[int, ...], Factor | None, Column | None]


class Catalogue:
    """Every factor that can be laid along a question's elements, with its numbers in the sample."""

    def __init__(self, question: Question) -> None:
        self.question = question
        laid = columns(question, numeric(question), is_gradient=False)
        masks = columns(question, boolean(question), is_gradient=False)
        self.laid = laid
        self.groups: Groups = ((FUNCTIONS, laid), (MASKS, masks))

    @staticmethod
    def of(question: Question) -> "Catalogue":
        """The question's catalogue, made once."""
        if "catalogue" not in question.memory:
            question.memory["catalogue"] = Catalogue(question)
        catalogue: Catalogue = question.memory["catalogue"]
        return catalogue

    @cached_property
    def paired(self) -> "Catalogue":
        """Functions of the difference of two values instead."""
        return _Paired(self)

    @cached_property
    def factors(self) -> list[Factor]:
        return [
            Factor(column, function)
            for functions, group in self.groups
            for function in functions
            for column in group
        ]

    @cached_property
    def sampled(self) -> Side:
        """Shape (factors + 1, sample); the last row is 1, no factor."""
        rows = []
        for functions, group in self.groups:
            if group:
                plain = self.plain(group)
                rows += [function.of(plain) for function in functions]
        rows.append(exact(torch.ones(1, len(self.question.sample), dtype=torch.float64)))
        return Side(torch.cat([r.value for r in rows]), torch.cat([r.bound for r in rows]))

    def plain(self, group: Sequence[Column | Pair]) -> Side:
        """The numbers of some quantities in the sample, shape (quantities, sample)."""
        return stacked([column.at(self.question, self.question.sample) for column in group])

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

        gradients: those that may take part; "loss" stands for none, the direct path. A constant
        other than those of CONSTANTS is fitted where none of them will do.
        """
        names = tuple(name for name in gradients if name != "loss")
        grads: list[Column | None] = [*columns(self.question, names, is_gradient=True)]
        if "loss" in gradients:
            grads.append(None)
        found: list[Form] = []
        for form in self._possible(target, grads):
            if holds(form.side):
                found.append(form)
                if len(found) == most:
                    break
        return found or self._fitted(target, grads, holds)

    def _possible(self, target: Side, gradients: list[Column | None]) -> Iterator[Form]:
        """What fits in the sample with a constant of CONSTANTS, in the order of preference."""
        wanted = picked(target, self.question.sample)
        found: list[tuple[Candidate, float]] = []
        for order, gradient in enumerate(gradients):
            given = self._given(gradient)
            for constant in CONSTANTS:
                for row in matching(self.sampled, given, wanted, constant):
                    candidate = self._candidate(row, order, gradient, abs(constant) != 1)
                    found.append((candidate, constant))
        for (_, factor, gradient), constant in sorted(found, key=lambda each: each[0][0])[
            :MOST_TRIES
        ]:
            if factor is not None or gradient is not None:
                number = Constant(constant, 0.0, f"{constant:g}")
                yield form_of(self.question, factor, gradient, number)

    def _fitted(
        self, target: Side, gradients: list[Column | None], holds: Callable[[Side], bool]
    ) -> list[Form]:
        """A form with another constant: one that people write, any before a gradient alone."""
        wanted = picked(target, self.question.sample)
        found = [
            self._candidate(row, order, gradient, True)
            for order, gradient in enumerate(gradients)
            for row in proportional(self.sampled, self._given(gradient), wanted)
        ]
        for _, factor, gradient in sorted(found, key=lambda each: each[0])[:MOST_TRIES]:
            if factor is None and gradient is None:
                continue
            plain = form_of(self.question, factor, gradient, Constant(1.0, 0.0, "1")).side
            constant = fitted_constant(self.question, target, plain)
            if constant is None or constant.value == 0 or (factor and not constant.short):
                continue
            form = form_of(self.question, factor, gradient, constant)
            if holds(form.side):
                return [form]
        return []

    def _given(self, gradient: Column | None) -> Side | None:
        return None if gradient is None else gradient.at(self.question, self.question.sample)

    def _candidate(
        self, row: int, order: int, gradient: Column | None, other_constant: bool
    ) -> Candidate:
        """The terms of a row, after the key by which they are preferred."""
        factor = self.factor(row)
        weight = factor.function.weight if factor else -1
        far = gradient is not None and gradient.name not in self.question.consumers
        return (weight + other_constant, int(far), order, row), factor, gradient


class _Paired(Catalogue):
    """Functions of the differences of all pairs of some values."""

    def __init__(self, single: Catalogue) -> None:
        self.question = single.question
        self.laid = single.laid[:MOST_PAIRED]
        pairs = [Pair(*two) for two in permutations(self.laid, 2)]
        self.groups = ((PAIR_FUNCTIONS, pairs),)

    def plain(self, group: Sequence[Column | Pair]) -> Side:
        rows = super().plain(self.laid)
        left, right = torch.tensor(list(permutations(range(len(self.laid)), 2))).T
        return minus(picked(rows, left), picked(rows, right))


def matching(rows: Side, given: Side | None, wanted: Side, constant: float = 1.0) -> list[int]:
    """Rows that are `wanted` when multiplied by `given` and a constant.

    rows: shape (rows, sample); given (None: 1) and wanted: shape (sample,).
    """
    probe = _best_known(wanted)
    few = _products(_column(rows, probe), None if given is None else picked(given, probe), constant)
    places = agree(few, picked(wanted, probe)).all(1).nonzero().reshape(-1)
    products = _products(picked(rows, places), given, constant)
    chosen: list[int] = places[agree(products, wanted).all(1)].tolist()
    return chosen


def proportional(rows: Side, given: Side | None, wanted: Side) -> list[int]:
    """Rows that are `wanted` when multiplied by `given` and any constant; arguments as above."""
    probes = _best_known(wanted, 2)
    few = _one_ratio(
        _products(_column(rows, probes), None if given is None else picked(given, probes)),
        picked(wanted, probes),
    )
    places = few.nonzero().reshape(-1)
    products = _products(picked(rows, places), given)
    fits = _one_ratio(products, wanted) & products.value[:, probes[0]].ne(0)
    chosen: list[int] = places[fits].tolist()
    return chosen


def _one_ratio(products: Side, wanted: Side) -> Tensor:
    """In which rows, shape (rows, sample), one constant can make all of them wanted."""
    ratio = over(wanted, products)
    nothing = (wanted.value == 0) & (products.value == 0)
    low = torch.where(nothing, -torch.inf, ratio.value - ratio.bound)
    high = torch.where(nothing, torch.inf, ratio.value + ratio.bound)
    return low.amax(1) <= high.amin(1)


def _products(rows: Side, given: Side | None, constant: float = 1.0) -> Side:
    products = rows if given is None else times(rows, given)
    return products if constant == 1 else scaled(constant, products)


def _column(rows: Side, place: Tensor) -> Side:
    return Side(rows.value[:, place], rows.bound[:, place])


def _best_known(wanted: Side, count: int = 1) -> Tensor:
    """The places of the numbers with the most digits."""
    digits = wanted.value.abs() / (wanted.bound + torch.finfo(torch.float64).tiny)
    ordered = digits.nan_to_num(nan=-1.0, posinf=-1.0).argsort(descending=True)
    return ordered[:count]
