"""What can be said where no pattern fits."""

import torch

from torch_ref.compare.explain.numbers import ratio_as_text
from torch_ref.compare.explain.question import Question

MANY = 40  # elements


def nearest_facts(question: Question) -> str:
    """In which share of the elements looked at it is wrong, and the range of hand / expected, of
    many elements without the outermost twentieths."""
    wrong, decided = int(question.wrong.sum()), int(question.decided.sum())
    facts = [f"it is wrong in {wrong / decided:.2%} of the elements looked at"]
    hand, expected = question.manual.value[question.wrong], question.expected.value[question.wrong]
    ratio = (hand / expected)[expected != 0]
    ratio = ratio[ratio.isfinite()] + 0.0  # no -0
    if len(ratio):
        ratio, many = ratio.sort().values, len(ratio) >= MANY
        outside = len(ratio) // 20 if many else 0
        low, middle, high = (
            ratio_as_text(float(ratio[at]))
            for at in (outside, (len(ratio) - 1) // 2, len(ratio) - 1 - outside)
        )
        mostly = "mostly " * many
        facts.append(
            f"there hand / expected is {mostly}between {low} and {high}, {middle} in the middle"
        )
    missing = int((~torch.isfinite(hand)).sum())
    if missing:
        facts.append(f"{missing} of its numbers are infinite or not a number")
    return "; ".join(facts)
