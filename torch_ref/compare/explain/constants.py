"""Simplest of all: no number, the same number everywhere, or a constant times the truth."""

import torch

from torch_ref.compare.explain.arithmetic import exact
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.numbers import Constant, constant_between, fitted_constant
from torch_ref.compare.explain.question import RATIOS_NEEDED, Question, different
from torch_ref.compare.explain.sizes import named_size_ratio, size_behind


def no_number(question: Question) -> Answer | None:
    """The hand has NaN, or an infinity, in every decided element."""
    hand = question.manual.value
    predicted = exact(torch.where(hand.isfinite(), torch.nan, hand))
    if bool(hand[question.decided].isnan().all()):
        return Answer("is not a number", exact(torch.full_like(hand, torch.nan)))
    if not bool(hand[question.decided].isfinite().any()):
        return Answer("is infinite or not a number", predicted)
    return None


def zero(question: Question) -> Answer | None:
    """0 in every decided element."""
    predicted = exact(torch.zeros_like(question.manual.value))
    if question.answered_by(predicted, ratios=1):
        return Answer("is 0", predicted)
    return None


def same_number(question: Question) -> Answer | None:
    """One number that people write, in every decided element whatever is expected."""
    hand, bound = question.manual.value[question.decided], question.manual.bound[question.decided]
    low, high = float((hand - bound).max()), float((hand + bound).min())
    expected = question.expected.value[question.wrong]
    if not low <= high or different(expected) < RATIOS_NEEDED:
        return None
    constant = constant_between(low, high)
    predicted = constant.times(exact(torch.ones_like(question.manual.value)))
    if constant.short and question.answered_by(predicted, ratios=1):
        return Answer(f"is {constant.text}", predicted)
    return None


def constant_ratio(question: Question) -> Answer | None:
    """hand = c * expected with one c for all draws, or with a tensor size that varies with them."""
    constant = fitted_constant(question, question.manual, question.expected)
    if constant is None:
        return named_size_ratio(question)
    predicted = constant.times(question.expected)
    if not question.answered_by(predicted, ratios=1):
        return None
    return Answer(_says(question, constant), predicted)


def _says(question: Question, constant: Constant) -> str:
    if constant.value == -1:
        return "has the wrong sign"
    why = size_behind(question, constant.value)
    whole = round(1 / constant.value) if constant.short else 0
    if whole > 1 and 1 / whole == constant.value:
        return f"is 1/{whole} of the truth{why}"
    return f"is {constant.text} times the truth{why}"
