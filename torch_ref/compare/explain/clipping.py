"""The hand's number is the expected one, clipped; or its local factor is."""

import torch

from torch_ref.compare.explain.arithmetic import over, times
from torch_ref.compare.explain.columns import columns
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.numbers import Constant, constant_between
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side


def clipped(question: Question) -> Answer | None:
    """hand = clamp(expected, -c, c), or clamp(expected / dL/dg, -c, c) dL/dg of the consumer g."""
    whole = _limits(question, question.manual, question.expected, None)
    if whole is not None:
        return whole
    for gradient in columns(question, question.consumers[:1], is_gradient=True):
        beside = gradient.at(question)
        hand, truth = over(question.manual, beside), over(question.expected, beside)
        answer = _limits(question, hand, truth, beside)
        if answer is not None:
            says = f"has its factor beside {gradient.label} {answer.predicate.removeprefix('is ')}"
            return Answer(says, answer.predicted)
    return None


def _limits(question: Question, hand: Side, truth: Side, beside: Side | None) -> Answer | None:
    """Clipped on both sides, from above, or from below; the limit read off the wrong elements."""
    limits = Side(hand.value.abs(), hand.bound)
    for says, stuck, lowest, highest in (
        ("is clipped at {}", limits, -1.0, 1.0),
        ("is clipped from above at {}", hand, None, 1.0),
        ("is clipped from below at {}", hand, 1.0, None),
    ):
        constant = _same(question, stuck)
        if constant is None or (beside is not None and not constant.short):
            continue
        bottom, top = (
            None if sign is None else sign * constant.value for sign in (lowest, highest)
        )
        value = truth.value.clamp(bottom, top)
        if value.numel() and bool((value == value[:1]).all()):
            continue  # a number, and nothing that was clipped
        predicted = Side(value, torch.maximum(truth.bound, torch.tensor(constant.radius)))
        predicted = predicted if beside is None else times(predicted, beside)
        if question.answered_by(predicted):
            return Answer(says.format(constant.text), predicted)
    return None


def _same(question: Question, side: Side) -> Constant | None:
    """The constant that the side is in every wrong element, if there is one."""
    value, bound = side.value[question.wrong], side.bound[question.wrong]
    low, high = float((value - bound).max()), float((value + bound).min())
    return constant_between(low, high) if -torch.inf < low <= high < torch.inf else None
