"""Both walks and the comparison of a twin, as formulas of the numbers of one case.

They are taken down from the very code that judges a batch (`rounding`, `verdict`, `pooled`), which
is run on two cases without looking at their numbers. What comes out for the second case must be
what comes out for the first, with the second's numbers: else cases do not stand by themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.comparison import held_together
from torch_ref.compare.compiled.algebra import Algebra, CannotCompileError
from torch_ref.compare.compiled.tracing import CASES, Tracing
from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.graphs.side import record
from torch_ref.compare.pooled import summands
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.rounding.looks import Assuming, Blind
from torch_ref.compare.rounding.operation import floating
from torch_ref.compare.sides import Recorder, Sides
from torch_ref.compare.sides.answers import Answers
from torch_ref.compare.sides.faithful import is_off
from torch_ref.compare.sides.hand import gradients_by_hand
from torch_ref.compare.sides.reference import FLOAT64, fits, with_room
from torch_ref.compare.twin import Values
from torch_ref.compare.verdict import Compared, Side
from torch_ref.native.symbols import Symbol, in_order

OTHER = "other_"
SUMS = 5  # of a quantity: those of `pooled.summands`
# What is looked at of each number: fields of `Compared`.
LOOKED_AT = ("judged", "reference", "tolerance", "lost_manual", "lost_reference")


@dataclass(frozen=True)
class Element:
    """One number a case: where it is, and the formulas that are looked at for each case.

    manual: the place among the arguments of what the hand gave.
    """

    quantity: int
    place: int
    manual: int
    judged: Any
    reference: Any
    tolerance: Any
    lost_manual: Any
    lost_reference: Any

    @property
    def looked_at(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in LOOKED_AT)


@dataclass(frozen=True)
class Formulas:
    """names, shapes: of the quantities, in a case. arguments: as `columns` lays them out, by name.
    sums: SUMS of each quantity, then that of cases at kinks. plainly: conditions, of which each is
    one for the plain way to judge the case.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    arguments: tuple[str, ...]
    elements: tuple[Element, ...]
    sums: tuple[Any, ...]
    plainly: tuple[Any, ...]


def columns(answers: Answers, names: Sequence[str]) -> list[Tensor]:
    """The numbers of all cases that the formulas are of: each argument in a row of its own.

    In the order of the arguments: the inputs, and of each quantity what the hand gave, what
    autograd gave and what the hand gives in float64.
    """
    return [row for value in _given(answers, names) for row in _rows(value.double())]


def _rows(value: Tensor) -> Iterable[Tensor]:
    """Of each number of a case those of all cases, one after the other in memory."""
    if value.ndim == 1:
        return (value.contiguous(),)
    return value.reshape(len(value), -1).t().contiguous()


def _given(answers: Answers, names: Sequence[str]) -> list[Tensor]:
    sides = [answers.answer, answers.known]
    if answers.expected is not None and answers.expected is not answers.answer:
        sides.append(answers.expected)
    return [*answers.wide.values(), *(side[name] for side in sides for name in names)]


def formulas(recorder: Recorder, answers: Answers, *, usual: bool) -> Formulas:
    """The formulas for the quantities that the hand gave.

    usual: only for cases in which nothing overflows, in half as many operations.
    Raises CannotCompileError where the twin is more than formulas of single numbers, and whatever
    comes out of recording it.
    """
    names = tuple(answers.answer)
    if answers.expected is None or not all(map(floating, answers.wide.values())):
        raise CannotCompileError("it has inputs that are no floats, or fails in float64")
    answer, expected = (_first_two(of, names) for of in (answers.answer, answers.expected))
    two = replace(
        answers,
        wide=_first_two(answers.wide, answers.wide),
        answer=answer,
        known=_first_two(answers.known, names),
        expected=answer if answers.expected is answers.answer else expected,
    )
    reference = record(
        partial(gradients_by_autograd, recorder.twin.reference, names=names), two.wide, stays=True
    )
    manual = record(partial(gradients_by_hand, recorder.twin, names=names), two.wide, stays=True)
    tracing = Tracing()
    arguments = _take_arguments(tracing, two, names)
    with torch.no_grad(), tracing:
        looks = _Usual(tracing) if usual else Blind()
        found, sums, plainly = _judged(recorder, two, reference, manual, looks)
    return _taken_down(tracing, arguments, found, sums, plainly)


def _first_two(values: Values, names: Iterable[str]) -> Values:
    """Those of the first cases, apart from each other in memory, in float64."""
    return {name: values[name][:CASES].double().clone() for name in names}


def _take_arguments(tracing: Tracing, two: Answers, names: tuple[str, ...]) -> tuple[str, ...]:
    """Take the two cases' numbers as arguments: their names for the first case; the second's begin
    with OTHER."""
    taken: list[str] = []
    for value in _given(two, names):
        own = [f"a{len(taken) + i}" for i in range(value[0].numel())]
        tracing.argument(value, [own, [OTHER + name for name in own]])
        taken += own
    return tuple(taken)


class _Usual(Assuming):
    """For cases in which nothing overflows; what is assumed makes the formulas shorter."""

    def __init__(self, tracing: Tracing) -> None:
        super().__init__()
        self.tracing = tracing

    def are_small(self, sizes: Tensor, largest: float) -> bool:
        super().are_small(sizes, largest)
        self.tracing.assume_finite(sizes)
        return True

    def are_finite(self, value: Tensor) -> bool:
        super().are_finite(value)
        self.tracing.assume_finite(value)
        return True


def _judged(
    recorder: Recorder,
    two: Answers,
    reference: Recorded,
    manual: Recorded,
    looks: "_Usual | Blind",
) -> tuple[dict[str, Compared], list[Tensor], list[Tensor]]:
    """What the plain way computes for two cases, what is summed over cases, and what must not
    hold in any."""
    arithmetic = Arithmetic.of(recorder.dtype)
    if isinstance(looks, _Usual):
        for value in two.answer.values():
            looks.are_finite(value)
    walked = partial(walk, inputs=two.wide, cases=CASES, looks=looks)
    exact = walked(reference, arithmetic=FLOAT64)
    narrow = exact if arithmetic == FLOAT64 else walked(reference, arithmetic=arithmetic)
    by_hand = walked(manual, arithmetic=arithmetic)
    for one in (exact, narrow, by_hand):
        if one.unbounded or one.narrow:
            raise CannotCompileError("it has operations without a rule, or computes in two dtypes")
    in_float64, in_dtype = _sides(exact), _sides(narrow)
    well = {name: fits(side, arithmetic) for name, side in in_dtype.items()}
    if not isinstance(looks, _Usual):
        well = with_room(reference, two.wide, exact.values, arithmetic, looks=looks)
    well = {name: well[name] & fits(side, arithmetic) for name, side in in_float64.items()}
    sides = Sides(two.answer, _sides(by_hand), in_float64, in_dtype, well, narrow.kinks)
    found = held_together(sides, recorder.dtype)
    pooled = (summands(one.scaled, one.moved, batched=True) for one in found.values())
    sums = [_by_case(term) for terms in pooled for term in terms]
    kinks = torch.zeros(CASES, dtype=torch.bool) if narrow.kinks is None else narrow.kinks
    plainly = list(looks.against) if isinstance(looks, _Usual) else []
    plainly += [exact.values[n].isfinite() != value.isfinite() for n, value in two.known.items()]
    plainly += [_off(exact, name, value) for name, value in two.known.items()]
    plainly += [_off(by_hand, name, value) for name, value in (two.expected or {}).items()]
    return found, [*sums, kinks.double()], [_anywhere(one) for one in plainly]


def _sides(walked: Walked) -> dict[str, Side]:
    return {name: Side(value, walked.bounds[name]) for name, value in walked.values.items()}


def _off(walked: Walked, name: str, expected: Tensor) -> Tensor:
    return is_off(walked.values[name], expected, walked.bounds[name])


def _anywhere(condition: Tensor) -> Tensor:
    """By case; what has no case is of all."""
    if condition.shape[:1] == (CASES,):
        return condition.reshape(CASES, -1).any(1)
    return condition.any().expand(CASES)


def _by_case(term: Tensor) -> Tensor:
    return term.double().reshape(CASES, -1).sum(1)


def _taken_down(
    tracing: Tracing,
    arguments: tuple[str, ...],
    found: dict[str, Compared],
    sums: list[Tensor],
    plainly: list[Tensor],
) -> Formulas:
    """The formulas for the first case, once it is sure that they hold for the second."""

    def of_cases(value: Tensor) -> list[list[Any]]:
        return cast(list[list[Any]], tracing.symbols(value).reshape(CASES, -1).tolist())

    elements: list[Element] = []
    for quantity, one in enumerate(found.values()):
        hand = (arguments.index(each.operands[0]) for each in of_cases(one.manual)[0])
        looked_at = (of_cases(getattr(one, name))[0] for name in LOOKED_AT)
        for place, of_one in enumerate(zip(hand, *looked_at, strict=True)):
            elements.append(Element(quantity, place, *of_one))
    compared = (getattr(one, name) for one in found.values() for name in LOOKED_AT)
    _check_alike(tracing.algebra, [of_cases(v) for v in (*compared, *sums, *plainly)])
    shapes = tuple(tuple(one.manual.shape[1:]) for one in found.values())
    summed, against = (
        tuple(of_cases(value)[0][0] for value in values) for values in (sums, plainly)
    )
    return Formulas(tuple(found), shapes, arguments, tuple(elements), summed, against)


def _check_alike(algebra: Algebra, values: list[list[list[Any]]]) -> None:
    """Raise CannotCompileError unless the second case's formulas are the first's, with the second's
    arguments in place of the first's."""
    first, second = ([one for value in values for one in value[case]] for case in range(CASES))
    renamed: dict[Any, Any] = {}
    for symbol in in_order(second):
        if symbol.operation == "argument":
            name = symbol.operands[0].removeprefix(OTHER)
            renamed[symbol] = algebra.symbol("argument", name if name != symbol.operands[0] else "")
        else:
            operands = (renamed.get(operand, operand) for operand in symbol.operands)
            renamed[symbol] = algebra.symbol(symbol.operation, *operands)
    for one, other in zip(first, second, strict=True):
        alike = renamed.get(other, other)
        if alike is not one and (isinstance(one, Symbol) or repr(alike) != repr(one)):
            raise CannotCompileError("a case depends on others, or on its place among them")
