"""Wrong in places only: exactly where a named quantity crosses a threshold, and what is there."""

import torch

from torch_ref.compare.explain.arithmetic import agree
from torch_ref.compare.explain.conditions import Condition, selecting
from torch_ref.compare.explain.constants import constant_ratio, no_number, same_number, zero
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.paths import wrong_coefficients
from torch_ref.compare.explain.products import some_product, wrong_product
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

CONTENTS = (
    no_number,
    zero,
    same_number,
    constant_ratio,
    wrong_coefficients,
    wrong_product,
    some_product,
)


def somewhere(question: Question) -> Answer | None:
    """What the wrong elements have in common: their place, what is there, or both.

    A right element in such a place is no exception where what is there happens to be right, or
    where both sides are 0, which a factor 0 makes of every mistake.
    """
    inside = question.within(question.wrong)
    content = next((answer for find in CONTENTS if (answer := find(inside))), None)
    right = question.right & ~((question.manual.value == 0) & (question.expected.value == 0))
    if content is not None:
        right = right & ~agree(question.manual, content.predicted)
    if not bool(right.any()):
        return None
    conditions = selecting(question, right)
    if conditions:
        return _placed(question, content, conditions)
    if content is None:
        return None
    share = int(question.wrong.sum()) / int(question.decided.sum())
    says = f"{content.predicate}{_pause(content)} in {share:.2%} of the decided elements"
    return Answer(f"{says}, and right in the others", content.predicted)


def _placed(question: Question, content: Answer | None, conditions: list[Condition]) -> Answer:
    condition = conditions[0]
    where = f"exactly where {condition.text}"
    if len(conditions) > 1 and not _about(condition, question.name):
        where += f" (equally: {conditions[1].text})"
    if content is None:
        return Answer(f"is wrong {where}", question.manual)
    predicted = Side(
        torch.where(condition.mask, content.predicted.value, question.expected.value),
        torch.where(condition.mask, content.predicted.bound, question.expected.bound),
    )
    return Answer(f"{content.predicate}{_pause(content)} {where}", predicted)


def _about(condition: Condition, name: str) -> bool:
    return condition.text.lstrip("|").startswith((f"{name} ", f"{name}| "))


def _pause(content: Answer) -> str:
    return "," if " where " in content.predicate or ":" in content.predicate else ""
