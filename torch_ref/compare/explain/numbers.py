"""Numbers as people write them: the shortest in an interval, and the constant that fits best."""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch

from torch_ref.compare.explain.arithmetic import over, picked
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

LARGEST_DENOMINATOR = 12
LARGEST_PART = 10**7  # 1/N with N up to here may be a mean
SHORT = 4  # significant digits that somebody may have typed


@dataclass(frozen=True)
class Constant:
    """A number known to lie within `radius` of `value`, and how it is written."""

    value: float
    radius: float
    text: str

    @property
    def short(self) -> bool:
        return self.radius == 0.0

    def times(self, side: Side) -> Side:
        number = torch.tensor(self.value, dtype=torch.float64)
        value = number * side.value
        bound = (abs(self.value) + self.radius) * side.bound + self.radius * side.value.abs()
        return Side(value, bound + 2.0**-52 * value.abs())


def shortest_between(low: float, high: float) -> float:
    """The number with the fewest significant digits in [low, high]; low <= high, both finite."""
    if low <= 0 <= high:
        return 0.0
    if low < 0:
        return -shortest_between(-high, -low)
    exponent = math.floor(math.log10(high))
    while exponent > -330:
        step = Fraction(10) ** exponent
        count = math.ceil(Fraction(low) / step)
        if count * step <= Fraction(high):
            middle = round((Fraction(low) + Fraction(high)) / 2 / step)
            best = middle if low <= middle * step <= high else count
            return float(best * step)
        exponent -= 1
    return low


def written(number: float, digits: int = 17) -> str:
    """A number without needless digits, and without an exponent where that is short, too."""
    number += 0.0  # no -0
    texts = (f"{number:.{count}g}" for count in range(1, digits + 1))
    text = next((text for text in texts if float(text) == number), f"{number:.{digits}g}")
    plain = f"{number:.{digits}f}".rstrip("0").rstrip(".")
    return plain if len(plain) <= len(text) and float(plain) == number else text


def constant_between(low: float, high: float) -> Constant:
    """A small fraction or a decimal of at most 4 digits in [low, high], else its middle."""
    middle = low + (high - low) / 2
    short = shortest_between(low, high)
    if _digits(short) <= 2:
        return Constant(short, 0.0, written(short))
    for fraction in (Fraction(middle).limit_denominator(LARGEST_DENOMINATOR), _part(middle)):
        if fraction and low <= fraction <= high:
            return Constant(float(fraction), 0.0, str(fraction))
    if _digits(short) <= SHORT:
        return Constant(short, 0.0, written(short))
    return Constant(middle, (high - low) / 2, ratio_as_text(middle, 4))


def ratio_as_text(number: float, digits: int = 3) -> str:
    """A number to some digits; of one near 1, how far it is from 1."""
    if 0 < abs(number - 1) < 10.0 ** (1 - digits):
        return f"1 {'+' if number > 1 else '-'} {abs(number - 1):.2g}"
    return f"{number:.{digits}g}"


def _digits(number: float) -> int:
    """How many significant digits it takes to write a number."""
    return next((n for n in range(1, 17) if float(f"{number:.{n - 1}e}") == number), 17)


def _part(number: float) -> Fraction:
    """The fraction 1/N nearest to a number below 1, 0 if N would be too large to have a meaning."""
    if not 1 / LARGEST_PART < abs(number) < 1:
        return Fraction(0)
    return Fraction(1, round(1 / number))


def fitted_constant(question: Question, target: Side, term: Side) -> Constant | None:
    """The constant c that makes target == c * term within bounds in every decided element."""
    few = question.sample
    if _interval(picked(target, few), picked(term, few)) is None:
        return None
    interval = _interval(picked(target, question.decided), picked(term, question.decided))
    return interval and constant_between(*interval)


def _interval(target: Side, term: Side) -> tuple[float, float] | None:
    """All constants that fit, lowest and highest; None if none does."""
    # where the term is 0, and the target is as far as its bound says, any constant fits
    considered = (target.value.abs() > target.bound) | (term.value != 0)
    if not bool(considered.any()):
        return None
    ratio = over(picked(target, considered), picked(term, considered))
    low = float((ratio.value - ratio.bound).max())
    high = float((ratio.value + ratio.bound).min())
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low <= high else None
