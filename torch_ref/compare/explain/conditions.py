"""Where: conditions on named quantities that select exactly the wrong elements and no right one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_ref.compare.explain.columns import Column, columns, numeric
from torch_ref.compare.explain.numbers import shortest_between, written
from torch_ref.compare.explain.question import ELEMENTS_NEEDED, Question, along

BITS_NEEDED = 30.0  # log2 of the number of ways to choose as many elements as are wrong
SAMPLE = 256
VAGUE = 0.02  # a limit known less well, relatively, is said with its range


@dataclass(frozen=True)
class Condition:
    """A condition in words, and where it holds: bool, flat.

    by_size: whether it compares numbers that vary without a step, such as z < -3. number: the one
    that a quantity is equal to, or different from, where it is such a condition.
    """

    text: str
    mask: Tensor
    by_size: bool = False
    number: float | None = None

    def tells_elements_apart(self, question: Question) -> bool:
        """Whether it does so within a draw: all elements of one may be the same number, as where a
        tensor repeats it without a copy. Halves and whole numbers may be meant all the same."""
        if self.number is None or question.batched or (2 * self.number).is_integer():
            return True
        return any(bool(holds.any() and not holds.all()) for holds in question.split(self.mask))


@dataclass(frozen=True, eq=False)
class Quantity:
    """Numbers beside the question's elements, float64, flat.

    sources: codes that are equal where two elements stand beside one and the same number; None
        where each has its own.
    is_mask, is_whole: whether it holds truth values, or whole numbers. zero: how "is 0" is said of
        it, if not by its label.
    """

    label: str
    numbers: Tensor
    sources: Tensor | None = None
    is_mask: bool = False
    is_whole: bool = False
    zero: str = ""

    def credible(self, question: Question, right: Tensor, *, by_size: bool) -> bool:
        """Whether chance would not choose just the wrong elements from these and the right ones.

        A condition by size is judged within each draw: draws that are wrong as a whole differ from
        the others in the size of everything.
        """
        sources = torch.arange(len(right)) if self.sources is None else self.sources
        flat = (sources, question.wrong, right)
        parts = [question.split(each) for each in flat] if by_size else [[each] for each in flat]
        bits, chosen, left = 0.0, 0, 0
        for codes, is_wrong, is_right in zip(*parts, strict=True):
            counts = _different(codes[is_wrong]), _different(codes[is_right])
            ways = math.lgamma(sum(counts) + 1) - sum(math.lgamma(count + 1) for count in counts)
            bits += ways / math.log(2)
            chosen, left = chosen + counts[0], left + counts[1]
        return min(chosen, left) >= ELEMENTS_NEEDED and bits >= BITS_NEEDED


def selecting(question: Question, right: Tensor) -> list[Condition]:
    """Conditions that hold in all wrong elements and in none of `right`, the plainest first.

    Right elements in which both sides are 0 must be outside, too, but lend no credit.
    """
    wrong = question.wrong
    telling = right & ((question.manual.value != 0) | (question.expected.value != 0))
    if not bool(wrong.any()) or not bool(telling.any()):
        return []
    quantities = list(_quantities(question))
    found = []
    for quantity in quantities:
        condition = _threshold(quantity, wrong, right)
        if condition is None:
            continue
        credible = quantity.credible(question, telling, by_size=condition.by_size)
        if credible and condition.tells_elements_apart(question):
            found.append(condition)
    return found or _comparisons(question, quantities, right, telling)


def _threshold(quantity: Quantity, wrong: Tensor, right: Tensor) -> Condition | None:
    """A condition on one quantity: a mask, a value that it has, a threshold."""
    numbers, label = quantity.numbers, quantity.label
    inside, outside = numbers[wrong], numbers[right]
    if not bool(inside.isfinite().all() and outside.isfinite().all()):
        return None
    if quantity.is_mask:
        for holds, text in ((1.0, f"{label} is True"), (0.0, f"{label} is False")):
            if bool((inside == holds).all()) and not bool((outside == holds).any()):
                return Condition(text, numbers == holds)
        return None
    first = float(inside[0])
    if bool((inside == first).all()) and not bool((outside == first).any()):
        text = quantity.zero if first == 0 and quantity.zero else f"{label} == {written(first)}"
        return Condition(text, numbers == first, number=first)
    other = float(outside[0])
    if bool((outside == other).all()) and not bool((inside == other).any()):
        return Condition(f"{label} != {written(other)}", numbers != other, number=other)
    both_signs = bool((numbers < 0).any()) and bool((numbers > 0).any())
    at_zero = _by_sign(quantity, inside, outside) if both_signs else None
    if at_zero is not None:
        return at_zero
    for text, size in ((label, numbers), (f"|{label}|", numbers.abs()))[: 1 + both_signs]:
        low, high = size[wrong], size[right]
        if low.max() < high.min():
            ends = float(low.max()), float(high.min())
            limit = shortest_between(_after(ends[0]), ends[1])
            said = f"{text} < {written(limit)}{_nearest(*ends, quantity)}"
            return Condition(said, size < limit, not quantity.is_whole)
        if low.min() > high.max():
            ends = float(high.max()), float(low.min())
            limit = shortest_between(ends[0], _before(ends[1]))
            said = f"{text} > {written(limit)}{_nearest(*ends, quantity)}"
            return Condition(said, size > limit, not quantity.is_whole)
    return None


def _by_sign(quantity: Quantity, inside: Tensor, outside: Tensor) -> Condition | None:
    """The sign of a quantity that has both: the plainest threshold, where it is one."""
    for text, compare in (("<", torch.lt), ("<=", torch.le), (">", torch.gt), (">=", torch.ge)):
        if bool(compare(inside, 0).all()) and not bool(compare(outside, 0).any()):
            mask = compare(quantity.numbers, 0)
            return Condition(f"{quantity.label} {text} 0", mask, not quantity.is_whole)
    return None


def _nearest(low: float, high: float, quantity: Quantity) -> str:
    """What is known of a limit that lies anywhere between two numbers that are far apart."""
    if quantity.is_whole or high - low <= VAGUE * max(abs(low), abs(high)):
        return ""
    return f" (or any limit from {low + 0.0:.3g} to {high + 0.0:.3g})"


def _comparisons(
    question: Question, quantities: list[Quantity], right: Tensor, telling: Tensor
) -> list[Condition]:
    """Conditions on two quantities: equal, or one larger than the other."""
    wrong = question.wrong
    usable = [quantity for quantity in quantities if not quantity.is_mask]
    if len(usable) < 2:
        return []
    inside, outside = _some(wrong), _some(right)
    inner = torch.stack([quantity.numbers[inside] for quantity in usable])
    outer = torch.stack([quantity.numbers[outside] for quantity in usable])
    for text, compare in (("==", torch.eq), (">", torch.gt), (">=", torch.ge)):
        always = compare(inner[:, None], inner[None]).all(2)
        never = ~compare(outer[:, None], outer[None]).any(2)
        for one, two in (always & never).nonzero().tolist():
            first, second = usable[one], usable[two]
            mask = compare(first.numbers, second.numbers)
            if not bool(mask[wrong].all()) or bool(mask[right].any()):
                continue
            by_size = text != "==" and not (first.is_whole and second.is_whole)
            if all(each.credible(question, telling, by_size=by_size) for each in (first, second)):
                return [Condition(f"{first.label} {text} {second.label}", mask, by_size)]
    return []


def _quantities(question: Question) -> Iterator[Quantity]:
    """Values, those nearest first, then gradients from upstream, places, and how often an index
    occurs."""
    near = numeric(question)
    others = tuple(name for name in question.draws[0].values if name not in near)
    for column in columns(question, (*near, *others), is_gradient=False):
        yield _beside(question, column)
    for column in columns(question, question.upstream, is_gradient=True):
        yield _beside(question, column)
    yield from _extremes(question, near)
    yield from _places(question)
    for name in near:
        yield from _occurrences(question, name)


def _beside(question: Question, column: Column) -> Quantity:
    numbers = column.at(question).value
    axes = question.draws[0].manual.value.ndim
    whole = len([axis for axis in column.lies_along if axis is not None]) == axes
    sources = None if whole else column.sources(question)
    dtype = column.of(question.draws[0]).value.dtype
    is_whole = not dtype.is_floating_point
    return Quantity(column.label, numbers.double(), sources, dtype == torch.bool, is_whole)


def _extremes(question: Question, names: tuple[str, ...]) -> Iterator[Quantity]:
    """The largest and the smallest number along each axis, of values of the gradient's shape."""
    axes = question.draws[0].manual.value.ndim
    if axes < 2:
        return
    for column in columns(question, names, is_gradient=False):
        if column.lies_along != tuple(range(axes)):
            continue
        parts = [column.of(draw).value.double() for draw in question.draws]
        for axis in range(axes):
            codes = _lines([part.shape for part in parts], axis)
            for called, extreme in (("largest", torch.amax), ("smallest", torch.amin)):
                ends = [extreme(part, axis, keepdim=True).expand(part.shape) for part in parts]
                numbers = torch.cat([end.reshape(-1) for end in ends])
                yield Quantity(f"the {called} {column.label} along axis {axis}", numbers, codes)


def _lines(shapes: list[torch.Size], axis: int) -> Tensor:
    """A code for each line along an axis, for each element of it; flat over all draws."""
    codes, first = [], 0
    for shape in shapes:
        one = [1 if other == axis else size for other, size in enumerate(shape)]
        numbered = torch.arange(first, first + math.prod(one)).reshape(one)
        codes.append(numbered.expand(shape).reshape(-1))
        first += math.prod(one)
    return torch.cat(codes)


def _places(question: Question) -> Iterator[Quantity]:
    """The index along each axis, from both ends."""
    shapes = [draw.manual.value.shape for draw in question.draws]
    for axis in range(min(len(shape) for shape in shapes)):
        index = [
            along(torch.arange(shape[axis], dtype=torch.float64), axis, shape) for shape in shapes
        ]
        back = [shape[axis] - 1 - places for shape, places in zip(shapes, index, strict=True)]
        for numbers, text, end in (
            (index, f"the index along axis {axis}", "first"),
            (back, f"the index from the end of axis {axis}", "last"),
        ):
            flat = torch.cat([number.reshape(-1) for number in numbers])
            yield Quantity(text, flat, is_whole=True, zero=f"it is the {end} along axis {axis}")


def _occurrences(question: Question, name: str) -> Iterator[Quantity]:
    """How often an integer tensor holds the index along an axis, as for rows of an embedding."""
    if not all(name in draw.values for draw in question.draws):
        return
    tensors = [draw.values[name].value for draw in question.draws]
    if tensors[0].dtype == torch.bool or tensors[0].is_floating_point():
        return
    shapes = [draw.manual.value.shape for draw in question.draws]
    for axis in range(min(len(shape) for shape in shapes)):
        counts, first, codes = [], 0, []
        for tensor, shape in zip(tensors, shapes, strict=True):
            if tensor.numel() == 0 or not 0 <= int(tensor.min()) <= int(tensor.max()) < shape[axis]:
                return
            count = tensor.reshape(-1).long().bincount(minlength=shape[axis]).double()
            counts.append(along(count, axis, shape).reshape(-1))
            codes.append(along(torch.arange(shape[axis]) + first, axis, shape).reshape(-1))
            first += shape[axis]
        label = f"the number of times that {name} holds the index along axis {axis}"
        yield Quantity(label, torch.cat(counts), torch.cat(codes), is_whole=True)


def _different(codes: Tensor) -> int:
    ordered = codes.sort().values
    return int((ordered.diff() != 0).sum()) + min(len(codes), 1)


def _some(mask: Tensor) -> Tensor:
    places = mask.nonzero().reshape(-1)
    return places[torch.linspace(0, len(places) - 1, min(len(places), SAMPLE)).long()]


def _after(number: float) -> float:
    return math.nextafter(number, math.inf)


def _before(number: float) -> float:
    return math.nextafter(number, -math.inf)
