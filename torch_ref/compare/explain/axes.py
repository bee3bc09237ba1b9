"""The right numbers in the wrong places: transposed, flipped, or shifted along an axis."""

from collections.abc import Callable, Iterator, Sequence
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
from torch_ref.compare.explain.question import Question, along
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
            truth = "the truth " if move.text.startswith("with") else ""
            return Answer(f"is {truth}{move.text}", predicted)
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


def shifted(question: Question) -> Answer | None:
    """The expected gradient shifted along an axis, as by padding on the wrong side; what comes in
    at its end may be anything."""
    shapes = [draw.manual.value.shape for draw in question.draws]
    parts = question.split_side(question.expected)
    for axis in range(int(question.batched), min(len(shape) for shape in shapes)):
        for step in (1, -1, 2, -2):
            inside = question.within(_kept(shapes, axis, step))
            if 2 * int(inside.wrong.sum()) < int(question.wrong.sum()):
                continue
            rolled = [
                Side(part.value.roll(step, axis), part.bound.roll(step, axis)) for part in parts
            ]
            predicted = joined(rolled)
            if inside.answered_by(predicted):
                end = "start" if step > 0 else "end"
                says = f"is shifted by {step} along axis {axis}, whatever comes in at its {end}"
                return Answer(says, predicted)
    return None


def _kept(shapes: Sequence[torch.Size], axis: int, step: int) -> Tensor:
    """Where a shifted tensor has numbers of its own, flat over all draws."""
    masks = []
    for shape in shapes:
        at = torch.arange(shape[axis]) - step
        kept = (at >= 0) & (at < shape[axis])
        masks.append(along(kept, axis, shape).reshape(-1))
    return torch.cat(masks)


def _moved(question: Question, side: Side) -> Iterator[tuple[Move, Side]]:
    """Every rearrangement that keeps the shape in every draw, with its numbers, flat."""
    shapes = [tuple(draw.manual.value.shape) for draw in question.draws]
    if len({len(shape) for shape in shapes}) != 1 or not 0 < len(shapes[0]) <= MOST_AXES:
        return
    parts = question.split_side(side)
    for move in _moves(len(shapes[0]), question.batched):
        moved = [Side(move.of(part.value), move.of(part.bound)) for part in parts]
        if all(tuple(m.value.shape) == shape for m, shape in zip(moved, shapes, strict=True)):
            yield move, joined(moved)


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
        if not case:
            yield from _chunks(axis)


def _chunks(axis: int) -> Iterator[Move]:
    """Equal parts of an axis in another order, as gates stacked wrongly; halves interleaved."""
    for count, called in ((2, "halves"), (3, "thirds"), (4, "quarters")):
        for order in permutations(range(count)):
            if order != tuple(range(count)):
                text = f"with its {called} along axis {axis} in the order {order}"
                yield Move(partial(_reordered, axis=axis, order=order), text)
    for rows, text in (
        (2, "halves along axis {} interleaved"),
        (-2, "even places along axis {} before the odd"),
    ):
        yield Move(partial(_regrouped, axis=axis, rows=rows), "with its " + text.format(axis))


def _reordered(tensor: Tensor, axis: int, order: tuple[int, ...]) -> Tensor:
    if tensor.shape[axis] % len(order):
        return tensor[None]  # of another shape: it does not apply
    chunks = tensor.chunk(len(order), axis)
    return torch.cat([chunks[place] for place in order], axis)


def _regrouped(tensor: Tensor, axis: int, rows: int) -> Tensor:
    """0 1 2 3 4 5 becomes 0 3 1 4 2 5 with 2 rows, 0 2 4 1 3 5 with -2, which stands for half."""
    shape = tensor.shape
    if shape[axis] % 2:
        return tensor[None]
    rows = rows if rows > 0 else shape[axis] // 2
    grouped = tensor.reshape(*shape[:axis], rows, -1, *shape[axis + 1 :])
    return grouped.transpose(axis, axis + 1).reshape(shape)
