"""Wrong in places only: exactly where a named quantity crosses a threshold, and what is there."""

from dataclasses import replace

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import agree
from torch_ref.compare.explain.conditions import Condition, selecting
from torch_ref.compare.explain.constants import constant_ratio, no_number, same_number, zero
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.paths import wrong_coefficients
from torch_ref.compare.explain.products import some_product, wrong_product
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

CLEARLY = 1000.0  # times what rounding allows
FAR_BELOW = 1e-5
CONTENTS = (
    no_number,
    zero,
    same_number,
    constant_ratio,
    wrong_coefficients,
    wrong_product,
    some_product,
)


def known_in_places(question: Question) -> Answer | None:
    """A known mistake exactly where a condition holds, no mistake elsewhere.

    Where no condition selects the wrong elements alone, right ones may be among them if both sides
    are 0 there, or if what is there happens to be right.
    """
    content = _content(question)
    if content is None:
        return None
    right = question.right
    happens_to_be_right = right & agree(question.manual, content.predicted)
    for outside, strict in (
        (right, True),
        (right & ~_both_zero(question), True),
        (right & ~happens_to_be_right, False),
    ):
        for condition in _conditions(question, outside):
            if strict and condition.by_size and not _tells(question, happens_to_be_right):
                continue
            mask = condition.mask
            predicted = Side(
                torch.where(mask, content.predicted.value, question.expected.value),
                torch.where(mask, content.predicted.bound, question.expected.bound),
            )
            if _fits(question, predicted):
                return Answer(f"{content.predicate}{_pause(content)} {condition.text}", predicted)
    return None


def _tells(question: Question, happens_to_be_right: Tensor) -> bool:
    """Whether a condition by size may select among elements that all have the same formula."""
    return not bool(happens_to_be_right.any()) or _clearly_wrong(question)


def wrong_in_places(question: Question) -> Answer | None:
    """Wrong exactly where a condition holds, whatever the mistake.

    Elements in which both sides are 0 may be left aside: a factor 0 makes that of every mistake.
    Where some mistakes are hardly visible, a condition by size may only tell which ones rounding
    hides.
    """
    right = question.right
    for outside, aside in ((right, ""), (right & ~_both_zero(question), ", zeros aside")):
        for condition in _conditions(question, outside):
            if not condition.by_size or _clearly_wrong(question):
                return Answer(f"is wrong {condition.text}{aside}", question.manual)
    return None


def _both_zero(question: Question) -> Tensor:
    return (question.manual.value == 0) & (question.expected.value == 0)


def _clearly_wrong(question: Question) -> bool:
    """Whether even the least of the mistakes is far beyond rounding, and not far below the rest."""
    tolerance = question.manual.bound + question.expected.bound
    size = (question.gap / tolerance)[question.wrong]
    size = size[size.isfinite()]
    return not len(size) or float(size.min()) >= max(CLEARLY, float(size.median()) * FAR_BELOW)


def known_in_part(question: Question) -> Answer | None:
    """A known mistake in some elements; nothing that has a name tells which."""
    content = _content(question)
    if content is None or not bool(question.right.any()):
        return None
    share = int(question.wrong.sum()) / int(question.decided.sum())
    says = f"{content.predicate}{_pause(content)} in {_percent(share)} of the elements looked at"
    return Answer(f"{says}, and right in the others", content.predicted)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "less than 1%"


def _content(question: Question) -> Answer | None:
    """What all wrong elements have in common."""
    inside = question.within(question.wrong)
    return next((answer for find in CONTENTS if (answer := find(inside))), None)


def _conditions(question: Question, right: Tensor) -> list[Condition]:
    """What selects the wrong elements, said as "exactly where ..."; another way to say it added."""
    found = selecting(question, right)
    said = []
    for place, condition in enumerate(found):
        others = found[:place] + found[place + 1 :]
        text = f"exactly where {condition.text}"
        if others and not _about(condition, question.name):
            text += f" (equally: {others[0].text})"
        said.append(replace(condition, text=text))
    return said


def _fits(question: Question, predicted: Side) -> bool:
    """Whether it is the hand's number, NaN and infinities included, in every decided element."""
    hand, value = question.manual.value, predicted.value
    fits = agree(question.manual, predicted) | (hand == value) | (hand.isnan() & value.isnan())
    return bool(fits[question.decided].all())


def _about(condition: Condition, name: str) -> bool:
    return condition.text.lstrip("|").startswith((f"{name} ", f"{name}| "))


def _pause(content: Answer) -> str:
    return "," if " where " in content.predicate or ":" in content.predicate else ""
