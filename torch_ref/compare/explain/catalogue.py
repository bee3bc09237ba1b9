"""explain: the hypotheses in order, simplest first; the first that holds is the explanation."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from torch_ref.compare.explain.additions import extra_term
from torch_ref.compare.explain.axes import rearranged, rearranged_term, shifted
from torch_ref.compare.explain.clipping import clipped
from torch_ref.compare.explain.constants import constant_ratio, no_number, same_number, zero
from torch_ref.compare.explain.differences import difference_instead
from torch_ref.compare.explain.evidence import Answer, Evidence, Explanation
from torch_ref.compare.explain.facts import nearest_facts
from torch_ref.compare.explain.paths import exchanged_factors, wrong_coefficients, wrong_path
from torch_ref.compare.explain.places import known_in_part, known_in_places, wrong_in_places
from torch_ref.compare.explain.products import some_product, wrong_product
from torch_ref.compare.explain.question import Question
from torch_ref.compare.explain.ratios import two_factors
from torch_ref.compare.explain.reductions import (
    averaged,
    cut_short,
    factor_along_axes,
    missing_reduction,
    not_centred,
)
from torch_ref.compare.explain.scatter import overwritten
from torch_ref.compare.explain.search import Catalogue
from torch_ref.compare.explain.wrong_axis import wrong_axis
from torch_ref.compare.verdict import Side

MOST = 0.5  # of the elements are decided
EVERYWHERE, WHERE_JUDGED = " everywhere", " wherever it can be judged"
Hypothesis = Callable[[Question], Answer | None]


def _two_factors(question: Question) -> Answer | None:
    return two_factors(question, Catalogue.of(question))


def _everywhere(hypothesis: Hypothesis) -> Hypothesis:
    def found(question: Question) -> Answer | None:
        answer = hypothesis(question)
        if answer is None:
            return None
        where = EVERYWHERE if float(question.decided.double().mean()) > MOST else WHERE_JUDGED
        return replace(answer, predicate=answer.predicate + where)

    return found


HYPOTHESES: tuple[Hypothesis, ...] = (
    _everywhere(no_number),
    _everywhere(zero),
    constant_ratio,
    averaged,
    _everywhere(same_number),
    wrong_coefficients,
    rearranged,
    wrong_product,
    rearranged_term,
    shifted,
    wrong_path,
    exchanged_factors,
    difference_instead,
    extra_term,
    not_centred,
    overwritten,
    cut_short,
    clipped,
    wrong_axis,
    missing_reduction,
    known_in_places,
    _two_factors,
    wrong_in_places,
    factor_along_axes,
    some_product,
    known_in_part,
)


def explain(draws: Sequence[Evidence]) -> Explanation:
    """One sentence that says what is wrong with a gradient, in the author's names.

    A hypothesis is accepted only if it predicts the hand's number within the bounds in every
    decided element of every draw, and if chance would not (see Question.answered_by). Where none
    is, the sentence says so, with the nearest facts, and `known` is False.
    Raises ValueError if there are no draws, or if they are not of one quantity.
    """
    names = {draw.name for draw in draws}
    if len(names) != 1:
        raise ValueError(
            "explain needs one or more draws of one quantity; got "
            f"{', '.join(sorted(names)) or 'none'}."
        )
    subject = f"dL/d{draws[0].name}"
    with torch.no_grad():
        question = Question.of([_on_cpu(draw) for draw in draws])
        if not bool(question.wrong.any()):
            return Explanation(f"{subject} is right in every decided element", False)
        answer = _first_that_holds(question)
        if answer is not None:
            return Explanation(f"{subject} {answer.predicate}", True)
        finite = question.within(question.manual.value.isfinite())
        answer = _first_that_holds(finite) if _tells_more(finite, question) else None
        if answer is not None:
            says = answer.predicate.removesuffix(EVERYWHERE).removesuffix(WHERE_JUDGED)
            beside = "some of its numbers are infinite, or none at all"
            return Explanation(f"{subject} {says}; {beside}", True)
        return Explanation(f"{subject}: no known pattern; {nearest_facts(question)}", False)


def _first_that_holds(question: Question) -> Answer | None:
    return next((answer for find in HYPOTHESES if (answer := find(question))), None)


def _tells_more(finite: Question, question: Question) -> bool:
    """Whether some of the hand's numbers are infinite or none, but most of the wrong ones are not:
    one mistake may make both, such as a division by what can be 0."""
    wrong = int(finite.wrong.sum())
    return int(question.wrong.sum()) / 2 <= wrong < int(question.wrong.sum())


def _on_cpu(draw: Evidence) -> Evidence:
    def moved(sides: dict[str, Side]) -> dict[str, Side]:
        return {name: _side_on_cpu(side) for name, side in sides.items()}

    return Evidence(
        name=draw.name,
        manual=_side_on_cpu(draw.manual),
        expected=_side_on_cpu(draw.expected),
        decided=draw.decided.detach().cpu(),
        values=moved(draw.values),
        gradients=moved(draw.gradients),
        paths=moved(draw.paths),
    )


def _side_on_cpu(side: Side) -> Side:
    return Side(side.value.detach().cpu(), side.bound.detach().cpu())
