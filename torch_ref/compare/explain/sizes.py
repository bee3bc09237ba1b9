"""Factors that are sizes of tensors: a mean where the sum belongs, a missing 1/sqrt(d)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, permutations

import torch

from torch_ref.compare.explain.arithmetic import agree, exact, joined, picked, scaled, times
from torch_ref.compare.explain.columns import Sizes, axis_sizes
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

# A fixed size below this coincides too easily with a constant that has nothing to do with it.
TELLING_SIZE = 8
LARGEST_DOUBTFUL = 4  # two sizes up to this coincide too easily with another pair of numbers
MOST_AXES = 4
MOST_SAID = 3


@dataclass(frozen=True)
class Size:
    """A number that each draw's tensors have: the size of some axes, or how many are True.

    numbers: its value in every draw. of: the tensor; axes: which of its axes, () for a count.
    like: another axis of the same tensor that has the same size in every draw.
    """

    numbers: Sizes
    of: str
    axes: tuple[int, ...]
    like: int | None = None

    @property
    def text(self) -> str:
        if not self.axes:
            return f"the number of True elements in {self.of}"
        if self.like is not None:
            return f"the size of axis {self.axes[0]}, or axis {self.like}, of {self.of}"
        if len(self.axes) == 1:
            return f"the size of axis {self.axes[0]} of {self.of}"
        return f"the product of the sizes of axes {_listed(self.axes)} of {self.of}"


@dataclass(frozen=True)
class _Ratio:
    """A function of a size as a factor: how it is called, {} being the size."""

    of: Callable[[float], float]
    text: str
    mean_for_sum: bool = False
    sum_for_mean: bool = False


_RATIOS = (
    _Ratio(lambda n: 1 / n, "1/{}", mean_for_sum=True),
    _Ratio(lambda n: n, "{}", sum_for_mean=True),
    _Ratio(lambda n: 1 / math.sqrt(n), "1/sqrt({})"),
    _Ratio(lambda n: math.sqrt(n), "sqrt({})"),
    _Ratio(lambda n: (n - 1) / n, "({0} - 1)/{0}"),
    _Ratio(lambda n: n / (n - 1) if n > 1 else math.inf, "{0}/({0} - 1)"),
    _Ratio(lambda n: -1 / n, "-1/{}"),
    _Ratio(lambda n: 2 / n, "2/{}"),
    _Ratio(lambda n: n / 2, "{}/2"),
    _Ratio(lambda n: 1 / n**2, "1/{}^2"),
)


@dataclass(frozen=True)
class _Match:
    """A factor that fits every draw, what its letters stand for, and what it means, if clear.

    sure: whether its numbers are such that they hardly come about by themselves.
    """

    factor: str
    where: str
    meaning: str
    predicted: Side
    sure: bool


def named_size_ratio(question: Question) -> Answer | None:
    """hand = f(N) * expected, N being a size that varies with the draws, or (K/N) * expected.

    Small sizes coincide: where they take few values, or several sizes fit, all are said as what
    they are, possibilities.
    """
    matches = list(_matches(question))
    if not matches:
        return None
    first = matches[0]
    if len(matches) == 1 and first.sure:
        truth = "of the truth" if first.factor.startswith(("1/", "K/")) else "times the truth"
        says = f"is {first.factor} {truth}, {first.where}{first.meaning}"
        return Answer(says, first.predicted)
    ways = ", or ".join(f"{match.factor} with {match.where}" for match in matches[:MOST_SAID])
    says = f"is the truth times a number that changes with the sizes of the draw, such as {ways}"
    return Answer(says, first.predicted)


def _matches(question: Question) -> Iterator[_Match]:
    sizes = _sizes(question)
    probe = _Probe(question)
    for ratio in _RATIOS:
        for size in sizes:
            plain = ratio.mean_for_sum or ratio.sum_for_mean
            if len(set(size.numbers)) == 1 or (len(size.axes) > 1 and not plain):
                continue
            numbers = [ratio.of(number) if number else math.nan for number in size.numbers]
            predicted = probe.prediction(numbers)
            if predicted is not None:
                where, meaning = f"N being {size.text}", _meaning(question, ratio, size)
                sure = _sure(size.numbers, numbers) and size.like is None
                yield _Match(ratio.text.format("N"), where, meaning, predicted, sure)
    for count, size in _quotients(sizes):
        numbers = [
            k / n if n else math.nan for k, n in zip(count.numbers, size.numbers, strict=True)
        ]
        predicted = probe.prediction(numbers) if len(set(numbers)) > 1 else None
        if predicted is not None:
            where = f"K being {count.text} and N {size.text}"
            meaning = "" if count.axes else ": a mean over too many"
            yield _Match("K/N", where, meaning, predicted, len(set(numbers)) > 2)


def _quotients(sizes: list[Size]) -> Iterator[tuple[Size, Size]]:
    """A count and a size, or the same axis of two tensors, as heads and groups of heads are."""
    for one, two in permutations(sizes, 2):
        counted = not one.axes and two.axes
        if counted or (one.axes == two.axes and len(one.axes) == 1 and one.of != two.of):
            yield one, two


def _sure(sizes: Sizes, factors: list[float]) -> bool:
    """Whether these sizes tell: three of them, a large one, or a factor that is no simple one."""
    simple = all(Fraction(f).limit_denominator(12) == Fraction(f) for f in factors if f == f)
    return len(set(sizes)) > 2 or max(sizes) > LARGEST_DOUBTFUL or not simple


class _Probe:
    """One telling element of each draw: sorts out most numbers before all are looked at."""

    def __init__(self, question: Question) -> None:
        self.question = question
        badness = torch.where(question.wrong, question.gap.nan_to_num(nan=0.0), 0.0)
        first, places, draws = 0, [], []
        for number, part in enumerate(question.split(badness)):
            if part.numel() and float(part.max()) > 0:
                places.append(first + int(part.argmax()))
                draws.append(number)
            first += part.numel()
        self.draws = draws
        self.manual = picked(question.manual, torch.tensor(places, dtype=torch.int64))
        self.expected = picked(question.expected, torch.tensor(places, dtype=torch.int64))

    def prediction(self, numbers: list[float]) -> Side | None:
        """The expected gradient, each draw's times its number, if that is what the hand has."""
        wanted = torch.tensor([numbers[draw] for draw in self.draws], dtype=torch.float64)
        if not bool(agree(self.manual, times(exact(wanted), self.expected)).all()):
            return None
        parts = self.question.split_side(self.question.expected)
        predicted = joined([scaled(n, part) for n, part in zip(numbers, parts, strict=True)])
        return predicted if self.question.answered_by(predicted, ratios=2) else None


def size_behind(question: Question, constant: float) -> str:
    """What to say after "is 1/32 of the truth" if a size is the reason for it, else ""."""
    for ratio in _RATIOS[:4]:
        plain = ratio.mean_for_sum or ratio.sum_for_mean
        for size in _sizes(question):
            number = size.numbers[0]
            if len(set(size.numbers)) > 1 or number < 2 or ratio.of(number) != constant:
                continue
            if not plain:
                if len(size.axes) == 1 and (number >= TELLING_SIZE**2 or number**0.5 % 1):
                    return f" ({number} is {size.text}: its square root)"
            elif number >= TELLING_SIZE and len(size.axes) == 1 and size.like is None:
                return _meaning(question, ratio, size)
            elif number >= LARGEST_DOUBTFUL:
                return f" ({number} is {size.text})"
    return ""


def _meaning(question: Question, ratio: _Ratio, size: Size) -> str:
    over = _called(question, size)
    if size.like is not None:
        return ""
    if ratio.mean_for_sum:
        return f": mean over {over} where the sum belongs"
    if ratio.sum_for_mean:
        return f": sum over {over} where the mean belongs"
    return ""


def _called(question: Question, size: Size) -> str:
    """ "the batch" where that is what an axis must be, else the axis of its tensor."""
    if not size.axes:
        return f"what {size.of} selects"
    shared = [
        name
        for name, side in question.draws[0].values.items()
        if side.value.ndim > 0 and side.value.shape[0] == size.numbers[0]
    ]
    if size.axes == (0,) and (
        question.batched or (len(shared) > 1 and not _is_of_a_later_axis(question, size.numbers))
    ):
        return "the batch"
    plural = "axis" if len(size.axes) == 1 else "axes"
    return f"{plural} {_listed(size.axes)} of {size.of}"


def _is_of_a_later_axis(question: Question, numbers: Sizes) -> bool:
    """Whether another axis than the first has this size in all draws, as in a square matrix."""
    return any(
        all(
            len(draw.values[name].value.shape) > axis
            and draw.values[name].value.shape[axis] == number
            for draw, number in zip(question.draws, numbers, strict=True)
        )
        for name, side in question.draws[0].values.items()
        if all(name in draw.values for draw in question.draws)
        for axis in range(1, side.value.ndim)
    )


def _sizes(question: Question) -> list[Size]:
    """Sizes by which a factor can be named, one for each run of numbers, single axes first."""
    found: dict[Sizes, Size] = {}
    for size in sorted(_every_size(question), key=lambda s: len(s.axes) != 1):
        first = found.setdefault(size.numbers, size)
        if first.of == size.of and first.axes < size.axes and len(size.axes) == 1:
            found[size.numbers] = replace(first, like=size.axes[0])
    return list(found.values())


def _every_size(question: Question) -> Iterator[Size]:
    first = question.draws[0]
    for name in {**first.values, **first.gradients}:
        named = [{**draw.gradients, **draw.values} for draw in question.draws]
        if not all(name in sides for sides in named):
            continue
        tensors = [sides[name].value for sides in named]
        if tensors[0].dtype == torch.bool:
            yield Size(tuple(int(tensor.sum()) for tensor in tensors), name, ())
        elif not tensors[0].is_floating_point() and any(bool((t < 0).any()) for t in tensors):
            yield Size(tuple(int((t >= 0).sum()) for t in tensors), f"{name} >= 0", ())
        sizes = axis_sizes(tensors)
        if sizes is None or len(sizes) > MOST_AXES:
            continue
        for count in range(1, len(sizes) + 1):
            for axes in combinations(range(len(sizes)), count):
                numbers = tuple(math.prod(each) for each in zip(*(sizes[a] for a in axes)))
                if set(numbers) != {1}:
                    yield Size(numbers, name, axes)


def _listed(axes: tuple[int, ...]) -> str:
    *rest, last = (str(axis) for axis in axes)
    return f"{', '.join(rest)} and {last}" if rest else last
