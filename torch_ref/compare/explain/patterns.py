"""Every einsum of one or two tensors, with a sum in it, that makes a tensor of given axes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torch_ref.compare.explain.columns import Sizes

MOST_PATTERNS = 48
Axes = list[Sizes]


@dataclass(frozen=True)
class Pattern:
    """Labels of the axes of both operands and of the result; right is None for one operand.

    Axes of size 1 have no label.
    """

    left: str
    right: str | None
    result: str

    @property
    def equation(self) -> str:
        operands = self.left if self.right is None else f"{self.left},{self.right}"
        return f"{operands}->{self.result}"

    @property
    def summed(self) -> str:
        """Labels that are summed over."""
        every = dict.fromkeys(self.left + (self.right or ""))
        return "".join(label for label in every if label not in self.result)


def patterns(left: Axes, right: Axes | None, result: Axes) -> list[Pattern]:
    """At most 48 patterns by which operands with these axes make the result, a sum in each.

    An axis is summed on its own only if no other tensor has one like it.
    """
    left, result = _without_ones(left), _without_ones(result)
    right = None if right is None else _without_ones(right)
    return list(islice(_patterns(left, right, result), MOST_PATTERNS))


def _patterns(left: Axes, right: Axes | None, result: Axes) -> Iterator[Pattern]:
    names = "abcdefghijklmnopqrstuvwxyz"
    for taken_left, taken_right in _sources(left, right or [], result):
        labels_left = {axis: names[place] for axis, place in taken_left.items()}
        labels_right = {axis: names[place] for axis, place in taken_right.items()}
        rest_left = [axis for axis in range(len(left)) if axis not in labels_left]
        rest_right = [axis for axis in range(len(right or [])) if axis not in labels_right]
        for pairs in _pairings(rest_left, rest_right, left, right or []):
            free = iter(names[len(result) :])
            all_left, all_right = dict(labels_left), dict(labels_right)
            for one, two in pairs:
                label = next(free)
                if one is not None:
                    all_left[one] = label
                if two is not None:
                    all_right[two] = label
            alone = [left[one] for one, two in pairs if one is not None and two is None]
            if right is not None and any(size in result or size in right for size in alone):
                continue
            alone = [right[two] for one, two in pairs if one is None and two is not None and right]
            if any(size in result or size in left for size in alone) or not pairs:
                continue
            yield Pattern(
                "".join(all_left[axis] for axis in range(len(left))),
                None if right is None else "".join(all_right[a] for a in range(len(right))),
                names[: len(result)],
            )


def _sources(
    left: Axes, right: Axes, result: Axes
) -> Iterator[tuple[dict[int, int], dict[int, int]]]:
    """For each axis of the result the operands' axes it comes from, as axis: place."""
    if not result:
        yield {}, {}
        return
    *before, size = result
    place = len(before)
    for taken_left, taken_right in _sources(left, right, before):
        on_left = [a for a, s in enumerate(left) if s == size and a not in taken_left]
        on_right = [a for a, s in enumerate(right) if s == size and a not in taken_right]
        for axis in on_left:
            yield {**taken_left, axis: place}, taken_right
        for axis in on_right:
            yield taken_left, {**taken_right, axis: place}
        for one in on_left:
            for two in on_right:
                yield {**taken_left, one: place}, {**taken_right, two: place}


def _pairings(
    rest_left: list[int], rest_right: list[int], left: Axes, right: Axes
) -> Iterator[list[tuple[int | None, int | None]]]:
    """Leftover axes in pairs of equal size, summed together; alone where none is like it."""
    if not rest_left:
        yield [(None, axis) for axis in rest_right]
        return
    first, *others = rest_left
    like = [axis for axis in rest_right if right[axis] == left[first]]
    choices: list[int | None] = [*like] if like else [None]
    for axis in choices:
        remaining = [other for other in rest_right if other != axis]
        for pairs in _pairings(others, remaining, left, right):
            yield [(first, axis), *pairs]


def _without_ones(axes: Axes) -> Axes:
    return [size for size in axes if set(size) != {1}]
