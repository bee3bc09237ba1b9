"""The derivative of the loss itself, with the wrong numbers in it: "(z6 - t) / z6^2"."""

from collections.abc import Callable
from dataclasses import dataclass

from torch_ref.compare.explain.arithmetic import agree, minus, over, picked, scaled, stacked, times
from torch_ref.compare.explain.columns import Column, columns, numeric
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import CONSTANTS
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side

MOST_VALUES = 40
MOST_TRIES = 20


@dataclass(frozen=True)
class Difference:
    """constant * (first - second) * divisor^-power; no divisor where power is 0."""

    constant: float
    first: Column
    second: Column
    divisor: Column | None
    power: int

    def at(self, question: Question) -> Side:
        side = minus(self.first.at(question), self.second.at(question))
        if self.divisor is not None:
            divisor = self.divisor.at(question)
            for _ in range(self.power):
                side = over(side, divisor)
        return side if self.constant == 1 else scaled(self.constant, side)

    def renames(self, other: "Difference") -> bool:
        """Whether this is the other one with other quantities in the places of some of its own."""
        if (self.constant, self.power) != (other.constant, other.power):
            return False
        terms = (self.first, self.second, self.divisor)
        names = dict(zip((other.first, other.second, other.divisor), terms, strict=True))
        return names[other.divisor] == self.divisor and names[other.first] == self.first

    @property
    def text(self) -> str:
        text = f"{CONSTANTS[self.constant]}({self.first.label} - {self.second.label})"
        if self.divisor is None:
            return text
        return f"{text} / {self.divisor.label}{'^2' if self.power == 2 else ''}"


def difference_instead(question: Question) -> Answer | None:
    """c * (u - v), or that over w or w^2, of named values; where the loss is one consumer alone."""
    if question.consumers != ("loss",):
        return None
    given = _holding(_fitting(question, question.manual), question, question.answered_by)
    if not given:
        return None
    wanted = _fitting(question, question.expected)
    belongs = next(iter(_holding(wanted, question, question.described_by)), None)
    best = min(given, key=lambda each: belongs is None or not each.renames(belongs))
    where = f" where {belongs.text} belongs" if belongs else ""
    return Answer(f"is {best.text}{where}", best.at(question))


def _holding(
    differences: list[Difference], question: Question, holds: Callable[[Side], bool]
) -> list[Difference]:
    return [d for d in differences[:MOST_TRIES] if holds(d.at(question))]


def _fitting(question: Question, target: Side) -> list[Difference]:
    """Differences that give the target in the sample, plain ones first."""
    sample = question.sample
    wanted = picked(target, sample)
    laid = columns(question, numeric(question), is_gradient=False)[:MOST_VALUES]
    values = [column.at(question, sample) for column in laid]
    divisors: list[tuple[Column | None, int, Side]] = [(None, 0, wanted)]
    for column, value in zip(laid, values, strict=True):
        divisors.append((column, 1, times(wanted, value)))
        divisors.append((column, 2, times(divisors[-1][2], value)))
    rows = stacked(values)
    every = minus(
        Side(rows.value[:, None], rows.bound[:, None]), Side(rows.value[None], rows.bound[None])
    )
    found = [
        Difference(constant, laid[first], laid[second], divisor, power)
        for constant in (1.0, 2.0, 0.5)
        for divisor, power, product in divisors
        for first, second in agree(scaled(constant, every), product).all(2).nonzero().tolist()
        if first != second
    ]
    return sorted(found, key=lambda each: (each.power, abs(each.constant) != 1))
