"""The hand's number is the expected one plus a term: weight decay, a weight already updated."""

from collections.abc import Iterator

import torch

from torch_ref.compare.explain.arithmetic import exact, minus, picked, plus, stacked, times
from torch_ref.compare.explain.columns import Column, columns
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import Factor
from torch_ref.compare.explain.numbers import fitted_constant
from torch_ref.compare.explain.products import belonging
from torch_ref.compare.explain.question import RATIOS_NEEDED, Question
from torch_ref.compare.explain.search import Catalogue, proportional
from torch_ref.compare.verdict import Side

MOST_TRIES = 20


def extra_term(question: Question) -> Answer | None:
    """hand - expected = c * (1, v, F(v) dL/dg or dL/dg dL/dh), c a number that people write."""
    catalogue = Catalogue.of(question)
    difference = minus(question.manual, question.expected)
    for terms in _candidates(question, catalogue, difference):
        sides = [term.at(question) for term in terms]
        side = exact(torch.ones_like(difference.value)) if not sides else sides[0]
        side = times(*sides) if len(sides) == 2 else side
        constant = fitted_constant(question, difference, side)
        if constant is None or not constant.short or constant.value == 0:
            continue
        predicted = plus(question.expected, constant.times(side))
        if question.answered_by(predicted, ratios=RATIOS_NEEDED if terms else 1):
            return Answer(_says(question, catalogue, terms, constant.text), predicted)
    return None


Term = Factor | Column


def _candidates(
    question: Question, catalogue: Catalogue, difference: Side
) -> list[tuple[Term, ...]]:
    """Terms that the difference is a constant multiple of in the sample, plain ones first."""
    sample = question.sample
    wanted = picked(difference, sample)
    found: list[tuple[tuple[bool, int, int], tuple[Term, ...]]] = []
    for order, (rows, terms) in enumerate(_tables(question, catalogue)):
        for row in proportional(rows, None, wanted):
            weights = [term.function.weight for term in terms[row] if isinstance(term, Factor)]
            found.append(((bool(terms[row]), max(weights, default=0), order), terms[row]))
    return [terms for _, terms in sorted(found, key=lambda each: each[0])][:MOST_TRIES]


def _tables(
    question: Question, catalogue: Catalogue
) -> Iterator[tuple[Side, list[tuple[Term, ...]]]]:
    """Numbers of many terms in the sample, shape (terms, sample), and which terms they are."""
    factors = catalogue.sampled
    plain: list[tuple[Term, ...]] = [(factor,) for factor in catalogue.factors]
    yield factors, [*plain, ()]
    grads = columns(question, question.upstream, is_gradient=True)
    numbers = [column.at(question, question.sample) for column in grads]
    for column, number in zip(grads, numbers, strict=True):
        yield times(factors, number), [*((*each, column) for each in plain), (column,)]
        products = [times(number, other) for other in numbers]
        rows = stacked(products)
        yield rows, [(column, other) for other in grads]


def _says(question: Question, catalogue: Catalogue, terms: tuple[Term, ...], constant: str) -> str:
    if not terms:
        return f"has {constant} added to it"
    stale = _stale(question, catalogue, terms, constant)
    labels = [term.text if isinstance(term, Factor) else term.label for term in terms]
    term = " * ".join(reversed(labels))
    lacks = {"-1": f"lacks the term {term}", "1": f"has the extra term {term}"}
    return stale or lacks.get(constant, f"has the extra term {constant} * {term}")


def _stale(question: Question, catalogue: Catalogue, terms: tuple[Term, ...], constant: str) -> str:
    """The term c * dL/dg * dL/dv beside dL/dg * v: v was changed by its own gradient before."""
    belongs = belonging(question, catalogue)
    if belongs is None or belongs.factor is None or belongs.factor.function.weight:
        return ""
    gradients = [term for term in terms if isinstance(term, Column)]
    value = belongs.factor.column
    if not isinstance(value, Column):
        return ""
    moved = [g for g in gradients if g.name == value.name]
    if len(gradients) != 2 or not moved or belongs.gradient not in gradients:
        return ""
    step = f"- {constant[1:]}" if constant.startswith("-") else f"+ {constant}"
    return f"has {value.label} {step} * {moved[0].label} in the place of {value.label}"
