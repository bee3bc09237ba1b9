"""The hand's number is the expected one with a factor too many, or with one missing.

Both are tested without a division, m = c F(v) e and e = c F(v) m, so that a factor 0 is no trouble.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import over, picked, scaled, times
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import CONSTANTS, MOST_TRIES, Catalogue, Factor
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side


@dataclass(frozen=True)
class Ratio(Answer):
    """A factor missing or extra."""

    factor: Factor


def one_factor(question: Question, catalogue: Catalogue) -> Ratio | None:
    """A missing or extra factor F(v), times -1, 2 or 1/2 where needed."""
    for factor, constant, missing in _candidates(question, catalogue)[:MOST_TRIES]:
        numbers = scaled(constant, factor.at(question))
        text = CONSTANTS[constant] + factor.text
        if missing:
            left = times(numbers, question.manual)
            if question.holds(left, question.expected, numbers.value):
                predicted = over(question.expected, numbers)
                return Ratio(f"lacks the factor {text}", predicted, factor)
        else:
            predicted = times(numbers, question.expected)
            if question.answered_by(predicted):
                return Ratio(_extra(text, factor), predicted, factor)
    return None


def two_factors(question: Question, catalogue: Catalogue) -> Answer | None:
    """Powers of two named values: a factor exchanged for another, or two at once."""
    powers = [f for f in catalogue.factors if f.function.text in ("{}", "{}^2")]
    powers = [factor for factor in powers if not factor.function.divides]
    for first, second, kind, constant in _pairs(question, catalogue, powers):
        one, two = first.at(question), second.at(question)
        sign = CONSTANTS[constant]
        if kind == "exchanged":
            left = times(one, question.manual)
            right = scaled(constant, times(two, question.expected))
            if question.holds(left, right, one.value):
                predicted = over(right, one)
                return Answer(f"is {sign}{second.text} / {first.text} times the truth", predicted)
        elif kind == "extra":
            predicted = scaled(constant, times(times(one, two), question.expected))
            if question.answered_by(predicted):
                return Answer(f"is {sign}{first.text} * {second.text} times too large", predicted)
        else:
            both = scaled(constant, times(one, two))
            if question.holds(times(both, question.manual), question.expected, both.value):
                predicted = over(question.expected, both)
                return Answer(f"lacks the factor {sign}{first.text} * {second.text}", predicted)
    return None


def _extra(text: str, factor: Factor) -> str:
    """An extra factor: "is z6 times too large" for a power, said outright for a function."""
    if factor.function.weight < 2:
        return f"is {text} times too large"
    return f"has the extra factor {text}"


def _candidates(question: Question, catalogue: Catalogue) -> list[tuple[Factor, float, bool]]:
    """(factor, constant, whether it is missing) that fit in the sample, plain ones first."""
    factors = catalogue.sampled
    hand, truth = (
        picked(question.manual, question.sample),
        picked(question.expected, question.sample),
    )
    found = []
    for constant in CONSTANTS:
        numbers = scaled(constant, factors)
        for missing, given, wanted in ((True, hand, truth), (False, truth, hand)):
            product = times(numbers, given)
            fits = _all_agree(product, wanted)
            for row in fits.nonzero().reshape(-1).tolist():
                factor = catalogue.factor(row)
                if factor is not None and not factor.function.divides:
                    key = (factor.function.weight + (abs(constant) != 1), row)
                    found.append((key, factor, constant, missing))
    return [each[1:] for each in sorted(found, key=lambda each: each[0])]


def _pairs(
    question: Question, catalogue: Catalogue, powers: list[Factor]
) -> Iterator[tuple[Factor, Factor, str, float]]:
    """Two powers that fit in the sample, and how: exchanged, both extra or both missing."""
    if not powers:
        return
    sampled = [power.at(question, question.sample) for power in powers]
    rows = Side(
        torch.stack([side.value for side in sampled]), torch.stack([side.bound for side in sampled])
    )
    hand, truth = (
        picked(question.manual, question.sample),
        picked(question.expected, question.sample),
    )
    with_hand, with_truth = times(rows, hand), times(rows, truth)
    pairs = list(combinations_with_replacement(range(len(powers)), 2))
    for constant in CONSTANTS:
        scaled_truth = scaled(constant, with_truth)
        for first in range(len(powers)):
            one = Side(with_hand.value[first], with_hand.bound[first])
            for second in _all_agree(scaled_truth, one).nonzero().reshape(-1).tolist():
                if powers[first].column != powers[second].column:
                    yield powers[first], powers[second], "exchanged", constant
        left, right = (torch.tensor(side) for side in zip(*pairs, strict=True))
        products = times(picked(rows, left), picked(rows, right))
        products = scaled(constant, products)
        for kind, given, wanted in (("extra", truth, hand), ("missing", hand, truth)):
            fits = _all_agree(times(products, given), wanted)
            for place in fits.nonzero().reshape(-1).tolist():
                first, second = pairs[place]
                yield powers[first], powers[second], kind, constant


def _all_agree(rows: Side, wanted: Side) -> Tensor:
    return ((rows.value - wanted.value).abs() <= rows.bound + wanted.bound).all(1)
