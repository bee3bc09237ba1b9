"""What can be said where no pattern fits."""

import torch

from torch_ref.compare.explain.numbers import ratio_as_text
from torch_ref.compare.explain.question import Question


def nearest_facts(question: Question) -> str:
    """In which share of the elements looked at it is wrong, and the range of hand / expected."""
    wrong, decided = int(question.wrong.sum()), int(question.decided.sum())
    facts = [f"it is wrong in {wrong / decided:.2%} of the elements looked at"]
    hand, expected = question.manual.value[question.wrong], question.expected.value[question.wrong]
    ratio = (hand / expected)[expected != 0]
    ratio = ratio[ratio.isfinite()] + 0.0  # no -0
    if len(ratio):
        low, high = float(ratio.min()), float(ratio.max())
        middle = float(ratio.median())
        facts.append(
            f"there hand / expected is between {ratio_as_text(low)} and {ratio_as_text(high)}, "
            f"{ratio_as_text(middle)} in the middle"
        )
    missing = int((~torch.isfinite(hand)).sum())
    if missing:
        facts.append(f"{missing} of its numbers are infinite or not a number")
    return "; ".join(facts)
