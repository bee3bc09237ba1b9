"""Named quantities laid along the elements of the gradient in question.

A quantity of another shape is laid along it by matching axes: axes match that have equal sizes in
every draw, whatever their place; axes of size 1 match nothing and are dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import minus
from torch_ref.compare.explain.evidence import Evidence
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

Sizes = tuple[int, ...]  # of one axis: its size in every draw
ARRANGEMENTS = 4  # ways to lay one quantity along the gradient that are tried


@dataclass(frozen=True)
class Column:
    """A value, or a gradient of the hand, and the axis of the question that each axis lies along.

    lies_along: None stands for an axis of size 1.
    """

    name: str
    is_gradient: bool
    lies_along: tuple[int | None, ...]

    @property
    def label(self) -> str:
        """The author's name for it; marked where its axes had to change their order."""
        name = f"dL/d{self.name}" if self.is_gradient else self.name
        used = [axis for axis in self.lies_along if axis is not None]
        if used == sorted(used):
            return name
        return f"{name}.T" if len(used) == 2 else f"{name} permuted {tuple(used)}"

    def of(self, draw: Evidence) -> Side:
        return (draw.gradients if self.is_gradient else draw.values)[self.name]

    def at(self, question: Question, places: Tensor | None = None) -> Side:
        """The numbers beside the question's elements at flat `places` in order; None: at all."""
        values, bounds = [], []
        for draw, local in _by_draw(question, places):
            side = self.of(draw)
            index = self._beside(draw, local)
            values.append(_number(side.value.reshape(-1)[index]))
            bounds.append(side.bound.reshape(-1)[index])
        return Side(torch.cat(values), torch.cat(bounds))

    def sources(self, question: Question) -> Tensor:
        """For each element of the question the number of the quantity beside it, as int64 codes."""
        codes, first = [], 0
        for draw, local in _by_draw(question, None):
            codes.append(self._beside(draw, local) + first)
            first += self.of(draw).value.numel()
        return torch.cat(codes)

    def _beside(self, draw: Evidence, local: Tensor) -> Tensor:
        """Flat places in the quantity beside flat places in the gradient."""
        shape, own = draw.manual.value.shape, self.of(draw).value.shape
        if own == shape and self.lies_along == tuple(range(len(shape))):
            return local
        places = torch.unravel_index(local, shape) if shape else ()
        beside = torch.zeros_like(local)
        for axis, size in zip(self.lies_along, own, strict=True):
            beside = beside * size + (0 if axis is None else places[axis])
        return beside


@dataclass(frozen=True)
class Pair:
    """The difference of two values."""

    first: Column
    second: Column

    @property
    def label(self) -> str:
        return f"({self.first.label} - {self.second.label})"

    def at(self, question: Question, places: Tensor | None = None) -> Side:
        return minus(self.first.at(question, places), self.second.at(question, places))


def columns(question: Question, names: tuple[str, ...], *, is_gradient: bool) -> list[Column]:
    """Every way to lay these quantities along the question's elements, plain ones first."""
    target = axis_sizes([draw.manual.value for draw in question.draws])
    result = []
    for name in names:
        tensors = _tensors(question, name, is_gradient=is_gradient)
        sizes = axis_sizes(tensors) if tensors else None
        if sizes is None or target is None:
            continue
        ways = sorted(_ways(sizes, target), key=_disorder)[:ARRANGEMENTS]
        result += [Column(name, is_gradient, way) for way in ways]
    return result


def numeric(question: Question) -> tuple[str, ...]:
    """Names of the numbers that all draws have, those of the quantity and what it feeds first."""
    near = (question.name, *question.consumers)
    names = [name for name in _shared(question) if _dtype(question, name) != torch.bool]
    return tuple(sorted(names, key=lambda name: near.index(name) if name in near else len(near)))


def boolean(question: Question) -> tuple[str, ...]:
    """Names of the boolean values that every draw has."""
    return tuple(name for name in _shared(question) if _dtype(question, name) == torch.bool)


def _shared(question: Question) -> list[str]:
    first, *others = (draw.values for draw in question.draws)
    return [name for name in first if all(name in values for values in others)]


def _number(values: Tensor) -> Tensor:
    """Whole numbers as floating ones; masks as they are."""
    return values if values.dtype == torch.bool else values.double()


def _dtype(question: Question, name: str) -> torch.dtype:
    return question.draws[0].values[name].value.dtype


def axis_sizes(tensors: list[Tensor]) -> list[Sizes] | None:
    """The sizes of each axis in every draw; None where the number of axes varies."""
    if len({tensor.ndim for tensor in tensors}) != 1:
        return None
    return [tuple(t.shape[axis] for t in tensors) for axis in range(tensors[0].ndim)]


def _tensors(question: Question, name: str, *, is_gradient: bool) -> list[Tensor]:
    sources = [draw.gradients if is_gradient else draw.values for draw in question.draws]
    if not all(name in source for source in sources):
        return []
    return [source[name].value for source in sources]


def _ways(sizes: list[Sizes], target: list[Sizes]) -> Iterator[tuple[int | None, ...]]:
    """Each axis of `sizes` on an axis of `target` of its own that has the same sizes."""
    if not sizes:
        yield ()
        return
    *rest, last = sizes
    for way in _ways(rest, target):
        if set(last) == {1}:
            yield (*way, None)
            continue
        for axis, size in enumerate(target):
            if size == last and axis not in way:
                yield (*way, axis)


def _disorder(way: tuple[int | None, ...]) -> tuple[int, int]:
    """Order-preserving ways first, among them those that lie along the last axes."""
    used = [axis for axis in way if axis is not None]
    return sum(a > b for a, b in pairwise(used)), -sum(used)


def _by_draw(question: Question, places: Tensor | None) -> Iterator[tuple[Evidence, Tensor]]:
    """The draws that have any of the flat places, with the places within each."""
    first = 0
    for draw in question.draws:
        count = draw.manual.value.numel()
        if places is None:
            yield draw, torch.arange(count)
        else:
            inside = places[(places >= first) & (places < first + count)] - first
            if len(inside):
                yield draw, inside
        first += count
