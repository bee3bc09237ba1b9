"""The right numbers in the wrong places: transposed, flipped, or shifted along an axis."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import joined, scaled, times
from torch_ref.compare.explain.columns import Column
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import CONSTANTS, Factor, Form
from torch_ref.compare.explain.products import belonging
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

MOST_AXES = 4


@dataclass(frozen=True)
class Move:
    """A rearrangement of a tensor's elements and what it is called, "is {}" or "x1 {}"."""

    of: Callable[[Tensor], Tensor]
    text: str


def moved_elements(question: Question) -> Answer | None:
    """The expected gradient rearranged, or its factor or upstream gradient, if it is a product."""
    for move, predicted in _moved(question, question.expected):
        if question.answered_by(predicted):
            return Answer(f"is {move.text}", predicted)
    belongs = belonging(question)
    if belongs is None or belongs.factor is None or belongs.gradient is None:
        return None
    return _moved_term(question, belongs)


def _moved_term(question: Question, belongs: Form) -> Answer | None:
    """Both terms of F(v) * dL/dg in turn, the other one in its place."""
    if belongs.factor is None or belongs.gradient is None:
        return None
    constant = _constant(belongs)
    terms: dict[str, Factor | Column] = {
        belongs.factor.text: belongs.factor,
        belongs.gradient.label: belongs.gradient,
    }
    for text, term in terms.items():
        other_text, other = next(each for each in terms.items() if each[0] != text)
        beside = scaled(constant, other.at(question))
        for move, side in _moved(question, term.at(question)):
            predicted = times(side, beside)
            if question.answered_by(predicted):
                has = f"is {other_text} * {text} {move.text}"
                return Answer(f"{has} where {belongs.product} belongs", predicted)
    return None


def _constant(form: Form) -> float:
    """The number in front of a product, read off the way it is written."""
    if form.factor is None or form.multiplier is None:
        return 1.0
    text = form.multiplier.removesuffix(form.factor.text).removesuffix("1/")
    return next((number for number, written in CONSTANTS.items() if written == text), 1.0)


def _moved(question: Question, side: Side) -> Iterator[tuple[Move, Side]]:
    """Every rearrangement that keeps the shape in every draw, with its numbers, flat."""
    shapes = [tuple(draw.manual.value.shape) for draw in question.draws]
    if len({len(shape) for shape in shapes}) != 1 or not 0 < len(shapes[0]) <= MOST_AXES:
        return
    parts = question.split_side(side)
    for move in _moves(len(shapes[0]), question.batched):
        probes = [move.of(torch.empty(shape, device="meta")).shape for shape in set(shapes)]
        if [tuple(shape) for shape in probes] == list(set(shapes)):
            yield move, joined([Side(move.of(p.value), move.of(p.bound)) for p in parts])


def _moves(axes: int, batched: bool) -> Iterator[Move]:
    for order in permutations(range(axes)):
        if order != tuple(range(axes)):
            text = "transposed" if axes == 2 else f"permuted: axes {order} of the truth"
            yield Move(partial(torch.permute, dims=order), text)
    for axis in range(axes):
        case = batched and axis == 0
        along = "the batch" if case else f"axis {axis}"
        yield Move(partial(torch.flip, dims=(axis,)), f"flipped along {along}")
        for step, neighbour in ((1, "the case before"), (-1, "the next case")):
            text = f"of {neighbour}" if case else f"shifted by {step} along {along}"
            yield Move(partial(torch.roll, shifts=step, dims=axis), text)
