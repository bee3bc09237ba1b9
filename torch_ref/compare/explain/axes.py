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
from torch_ref.compare.explain.forms import Factor
from torch_ref.compare.explain.products import belonging
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

MOST_AXES = 4


@dataclass(frozen=True)
class Move:
    """A rearrangement of a tensor's elements and what it is called, "is {}" or "x1 {}"."""

    of: Callable[[Tensor], Tensor]
    text: str


def rearranged(question: Question) -> Answer | None:
    """The expected gradient with its elements in other places."""
    for move, predicted in _moved(question, question.expected):
        if question.answered_by(predicted):
            return Answer(f"is {move.text}", predicted)
    return None


def rearranged_term(question: Question) -> Answer | None:
    """F(v) * dL/dg with the elements of one of them in other places."""
    belongs = belonging(question)
    if belongs is None or belongs.factor is None or belongs.gradient is None:
        return None
    terms: dict[str, Factor | Column] = {
        belongs.factor.text: belongs.factor,
        belongs.gradient.label: belongs.gradient,
    }
    for text, term in terms.items():
        other_text, other = next(each for each in terms.items() if each[0] != text)
        beside = scaled(belongs.constant, other.at(question))
        for move, side in _moved(question, term.at(question)):
            predicted = times(side, beside)
            if question.answered_by(predicted):
                has = f"is {other_text} * {text} {move.text}"
                return Answer(f"{has} where {belongs.product} belongs", predicted)
    return None


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
