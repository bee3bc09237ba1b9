"""A sum or mean over the wrong axis, in a term that is added or subtracted."""

from collections.abc import Iterator
from itertools import permutations

import torch

from torch_ref.compare.explain.arithmetic import agree, exact, minus, picked, plus, times
from torch_ref.compare.explain.columns import columns, numeric
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import Factor
from torch_ref.compare.explain.question import Question
from torch_ref.compare.explain.reductions import LINE_FUNCTIONS, axes_of, reduced
from torch_ref.compare.verdict import Side


def wrong_axis(question: Question) -> Answer | None:
    """hand - expected = v * (R over one axis - R over another), R a sum or mean.

    Of dL/dg or v dL/dg; v: 1, a named value or its exp; g: a consumer. Either sign.
    """
    for factor, side in _factors(question):
        for says, over_axes in _reductions(question, factor, side):
            for wrong, right in permutations(over_axes, 2):
                moved = times(side, minus(over_axes[wrong], over_axes[right]))
                for add in (plus, minus):
                    if not _fits_sample(question, add(question.expected, moved)):
                        continue
                    predicted = add(question.expected, moved)
                    if question.answered_by(predicted):
                        there = f"the {says.format(wrong)} where that over axis {right} belongs"
                        return Answer(f"has {there}", predicted)
    return None


def _factors(question: Question) -> Iterator[tuple[Factor | None, Side]]:
    yield None, exact(torch.ones_like(question.manual.value))
    for column in columns(question, numeric(question), is_gradient=False):
        for function in LINE_FUNCTIONS:
            factor = Factor(column, function)
            yield factor, factor.at(question)


def _reductions(
    question: Question, factor: Factor | None, side: Side
) -> Iterator[tuple[str, dict[int, Side]]]:
    """How a reduction is called, {} being its axis, and its numbers by axis."""
    axes = range(1 if question.batched else 0, axes_of(question))
    for column in columns(question, question.consumers, is_gradient=True):
        gradient = column.at(question)
        sources = [(column.label, gradient)]
        if factor is not None:
            sources.append((f"{factor.text} * {column.label}", times(side, gradient)))
        for text, source in sources:
            for kind in ("sum", "mean"):
                numbers = {axis: reduced(question, source, (axis,), kind) for axis in axes}
                yield f"{kind} over axis {{}} of {text}", numbers


def _fits_sample(question: Question, predicted: Side) -> bool:
    few = picked(predicted, question.sample)
    return bool(agree(picked(question.manual, question.sample), few).all())
