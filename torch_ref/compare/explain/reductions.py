"""Sums and means over axes: left out, put where none belongs, or cut short."""

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import (
    UNIT_ROUNDOFF,
    exact,
    joined,
    minus,
    over,
    plus,
    scaled,
    times,
)
from torch_ref.compare.explain.columns import columns, numeric
from torch_ref.compare.explain.contractions import contraction_forms
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import Factor
from torch_ref.compare.explain.functions import FUNCTIONS
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

MOST_AXES = 4
LINE_FUNCTIONS = [f for f in FUNCTIONS if f.text in ("{}", "exp({})") and not f.divides]
LINE = 3  # elements that a line needs before a number fitted to it says anything
Axes = tuple[int, ...]
CUTS = (
    (slice(0, 1), "has only the first term of the sum"),
    (slice(-1, None), "has only the last term of the sum"),
    (slice(0, -1), "leaves out the last term of the sum"),
    (slice(1, None), "leaves out the first term of the sum"),
)


def averaged(question: Question) -> Answer | None:
    """The same number all along some axes: the mean, or the sum, of the truth or of a gradient."""
    near = (*question.consumers, *question.upstream)
    sources: list[tuple[str, Side]] = [("its", question.expected)]
    for column in columns(question, tuple(dict.fromkeys(near)), is_gradient=True):
        if None not in column.lies_along and column.lies_along == tuple(range(axes_of(question))):
            sources.append((f"the {{}} of {column.label}", column.at(question)))
    for label, side in sources:
        for axes in _subsets(question, batch=True):
            for kind in ("mean", "sum"):
                predicted = reduced(question, side, axes, kind)
                if question.answered_by(predicted):
                    what = label.format(kind) if "{}" in label else f"{label} {kind}"
                    return Answer(_everywhere(question, axes, what), predicted)
    return None


def not_centred(question: Question) -> Answer | None:
    """expected = hand - mean(hand) over some axes, as where the mean was not subtracted."""
    for axes in _subsets(question):
        mean = reduced(question, question.manual, axes, "mean")
        if question.holds(minus(question.manual, mean), question.expected):
            predicted = plus(question.expected, mean)
            says = f"is the truth plus its own mean over {_named(axes)}, which should be 0"
            return Answer(says, predicted)
    return None


def missing_reduction(question: Question) -> Answer | None:
    """hand - expected is constant along some axes, or a value, or its exp, times such a number."""
    difference = minus(question.manual, question.expected)
    laid = columns(question, numeric(question), is_gradient=False)
    terms: list[Factor | None] = [None]
    terms += [Factor(column, function) for function in LINE_FUNCTIONS for column in laid]
    plain: list[Answer] = []
    for axes in _subsets(question):
        for term in terms:
            side = exact(torch.ones_like(difference.value)) if term is None else term.at(question)
            line = _fitted_lines(question, difference, side, axes)
            if line is None:
                continue
            fitted = plus(question.expected, line[0])
            if not _answers_long_lines(question, (fitted, line[1])):
                continue
            times_value = "" if term is None else f"{term.text} times "
            named = _named_reduction(question, side, axes, times_value)
            if named is not None:
                return named
            says = (
                f"differs from the truth by {times_value}a number that is constant along "
                f"{_named(axes)}, such as a wrong sum or mean over it, or a wrong factor"
            )
            plain.append(Answer(says, fitted))
    return plain[0] if plain else None


def factor_along_axes(question: Question) -> Answer | None:
    """hand = c * expected with one c for each line along some axes, or for each draw."""
    for axes in _subsets(question):
        fitted = _fitted_lines(question, question.manual, question.expected, axes)
        if fitted is not None and _answers_long_lines(question, fitted):
            along = f"constant along {_named(axes)}"
            return Answer(f"is the truth times a factor that has no name and is {along}", fitted[0])
    return None


def cut_short(question: Question) -> Answer | None:
    """The expected number is a sum, and the hand has its first or last term only, or not."""
    forms = contraction_forms(
        question, question.expected, question.consumers, question.described_by
    )
    for form, contraction in forms:
        for cut, says in CUTS:
            predicted = contraction.at(question, cut)
            if question.answered_by(predicted):
                over_axes = f"over {contraction.summed_axes} of {contraction.gradient.label}"
                return Answer(f"{says} {over_axes} where {form.product} belongs", predicted)
    return None


def reduced(question: Question, side: Side, axes: Axes, kind: str) -> Side:
    """The sum or mean of a flat side over axes of each draw, repeated along them; flat."""
    parts = []
    for part in question.split_side(side):
        terms = part.value.numel() // max(part.value.sum(axes, keepdim=True).numel(), 1)
        value = part.value.sum(axes, keepdim=True)
        growth = min(terms, 3 * terms**0.5) * UNIT_ROUNDOFF
        bound = (part.bound + growth * part.value.abs()).sum(axes, keepdim=True)
        whole = Side(value.expand(part.value.shape), bound.expand(part.value.shape))
        parts.append(scaled(1 / max(terms, 1), whole) if kind == "mean" else whole)
    return joined(parts)


def _named_reduction(question: Question, side: Side, axes: Axes, times_value: str) -> Answer | None:
    """The number behind it: a sum or mean of a consumer's gradient, alone or times that value."""
    for column in columns(question, question.consumers, is_gradient=True):
        gradient = column.at(question)
        for text, inner in ((column.label, gradient), (None, times(side, gradient))):
            for kind in ("sum", "mean"):
                number = times(side, reduced(question, inner, axes, kind))
                for says, predicted in (
                    ("lacks the subtraction of", plus(question.expected, number)),
                    ("lacks", minus(question.expected, number)),
                ):
                    if question.answered_by(predicted):
                        value = times_value.removesuffix(" times ")
                        of = text or f"{value} * {column.label}"
                        what = f"{times_value}the {kind} over {_named(axes)} of {of}"
                        return Answer(f"{says} {what}", predicted)
    return None


def _fitted_lines(
    question: Question, target: Side, factor: Side, axes: Axes
) -> tuple[Side, Tensor] | None:
    """The target as factor * c, with one c for each line along the axes, if there are such c.

    Also where a line has at least 3 decided elements: in others any number fits.
    """
    counts = question.decided & (factor.value != 0)
    if bool((question.wrong & (factor.value == 0)).any()):
        return None
    ratio = over(target, factor)
    low = torch.where(counts, ratio.value - ratio.bound, -torch.inf)
    high = torch.where(counts, ratio.value + ratio.bound, torch.inf)
    lows, highs, long = [], [], []
    for part_low, part_high, part in zip(*map(question.split, (low, high, counts)), strict=True):
        lows.append(part_low.amax(axes, keepdim=True).expand(part.shape).reshape(-1))
        highs.append(part_high.amin(axes, keepdim=True).expand(part.shape).reshape(-1))
        many = part.sum(axes, keepdim=True) >= LINE
        long.append(many.expand(part.shape).reshape(-1))
    smallest, largest = torch.cat(lows), torch.cat(highs)
    if not bool((smallest <= largest)[counts].all()):
        return None
    # of a line without any number to tell, c can be anything: 0, give or take infinity
    middle, radius = ((smallest + largest) / 2).nan_to_num(nan=0.0), (largest - smallest) / 2
    return times(Side(middle, radius), factor), torch.cat(long)


def _answers_long_lines(question: Question, fitted: tuple[Side, Tensor]) -> bool:
    """Whether a fitted prediction answers the question where it says anything: in long lines."""
    predicted, long = fitted
    inside = question.within(long)
    most = 2 * int(inside.wrong.sum()) >= int(question.wrong.sum())
    return most and inside.answered_by(predicted)


def axes_of(question: Question) -> int:
    """How many axes the quantity has; 0 where that varies."""
    counts = {draw.manual.value.ndim for draw in question.draws}
    return counts.pop() if len(counts) == 1 else 0


def _subsets(question: Question, *, batch: bool = False) -> Iterator[Axes]:
    """Sets of axes, small ones first; the cases of a batched twin only where `batch`."""
    count = axes_of(question)
    if count > MOST_AXES:
        return
    first = 1 if question.batched and not batch else 0
    for size in range(1, count + 1):
        yield from combinations(range(first, count), size)


def _everywhere(question: Question, axes: Axes, what: str) -> str:
    if question.batched and axes == (0,):
        return f"has in every case {what} over the batch"
    return f"has all along {_named(axes)} {what} over it"


def _named(axes: Axes) -> str:
    if len(axes) == 1:
        return f"axis {axes[0]}"
    return f"axes {', '.join(map(str, axes[:-1]))} and {axes[-1]}"
