"""The hand's number is the expected one with a factor too many, or with one missing.

Both are tested without a division, m = c F(v) e and e = c F(v) m, so that a factor 0 is no trouble.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch

from torch_ref.compare.explain.arithmetic import over, picked, scaled, stacked, times
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import CONSTANTS, Factor
from torch_ref.compare.explain.question import Question
from torch_ref.compare.explain.search import MOST_TRIES, Catalogue, matching
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
    for first, second, kind, constant in _pairs(question, powers):
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
    rows, sample = catalogue.sampled, question.sample
    hand, truth = picked(question.manual, sample), picked(question.expected, sample)
    found = []
    for constant in CONSTANTS:
        for missing, given, wanted in ((True, hand, truth), (False, truth, hand)):
            for row in matching(rows, given, wanted, constant):
                factor = catalogue.factor(row)
                if factor is not None and not factor.function.divides:
                    key = (factor.function.weight + (abs(constant) != 1), row)
                    found.append((key, factor, constant, missing))
    return [each[1:] for each in sorted(found, key=lambda each: each[0])]


def _pairs(question: Question, powers: list[Factor]) -> Iterator[tuple[Factor, Factor, str, float]]:
    """Two powers that fit in the sample, and how: exchanged, both extra or both missing."""
    if not powers:
        return
    sample = question.sample
    rows = stacked([power.at(question, sample) for power in powers])
    hand, truth = picked(question.manual, sample), picked(question.expected, sample)
    with_hand, with_truth = times(rows, hand), times(rows, truth)
    left, right = torch.tensor(list(combinations_with_replacement(range(len(powers)), 2))).T
    products = times(picked(rows, left), picked(rows, right))
    for constant in CONSTANTS:
        for first in range(len(powers)):
            one = Side(with_hand.value[first], with_hand.bound[first])
            for second in matching(with_truth, None, one, constant):
                if powers[first].column != powers[second].column:
                    yield powers[first], powers[second], "exchanged", constant
        for kind, given, wanted in (("extra", truth, hand), ("missing", hand, truth)):
            for place in matching(products, given, wanted, constant):
                yield powers[int(left[place])], powers[int(right[place])], kind, constant
