"""Recordings replayed: the same bits as torch, or no answer at all."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torch_ref.compare.tape import CannotRecordError, Replay, record
from torch_ref.compare.tape.forms import form
from torch_ref.compare.tape.schedule import Loop, parts

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.1, 3.0, 5e-324, -1e-310, 1.7e308, -1.7e308, 2.0**-1022,
           float("inf"), float("-inf"), float("nan")]  # fmt: skip
PAIRS = torch.tensor(list(itertools.product(SPECIAL, SPECIAL)), dtype=torch.float64)
A, B = (PAIRS[:, column].repeat(3).contiguous() for column in (0, 1))

FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "add a number": lambda a, b: a + 0.1,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "div by a number": lambda a, b: a / 3.0,
    "neg": lambda a, b: -a,
    "abs": lambda a, b: a.abs(),
    "reciprocal": lambda a, b: a.reciprocal(),
    "maximum": lambda a, b: torch.maximum(a, b) + 0.0,  # of 0 and -0 torch takes either, by place
    "copysign": torch.copysign,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= 0.1,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "and": lambda a, b: (a < b) & (b > 0),
    "or": lambda a, b: (a < b) | (b > 0),
    "logical_and": lambda a, b: torch.logical_and(a < b, b > 0),
    "logical_or": lambda a, b: torch.logical_or(a < b, b > 0),
    "not": lambda a, b: ~(a < b),
    "logical_not": lambda a, b: torch.logical_not(a < b),
    "where": lambda a, b: torch.where(a < b, a, 0.5),
    "clamp": lambda a, b: a.clamp(-1.0, 2.5),
    "clamp from below": lambda a, b: a.clamp(min=0.1),
    "nan_to_num": lambda a, b: a.nan_to_num(),
    "nan_to_num with numbers": lambda a, b: a.nan_to_num(nan=torch.inf, posinf=torch.inf),
    "to numbers": lambda a, b: (a < b).double(),
    "isinf": lambda a, b: a.isinf(),
    "isfinite": lambda a, b: a.isfinite(),
}


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Zeros of either sign are told apart; NaN is NaN."""
    signs = left.double().signbit() == right.double().signbit()
    both_nan = left.isnan() & right.isnan()
    return left.dtype == right.dtype and bool((((left == right) & signs) | both_nan).all())


@pytest.mark.parametrize("name", FORMS)
def test_each_form_gives_what_torch_gives(name: str) -> None:
    def function(a: Tensor, b: Tensor) -> list[Tensor]:
        return [FORMS[name](a, b)]

    _, recording = record(function, (A, B))
    assert all(isinstance(part, Loop) for part in parts(recording)), "torch would do it"
    (again,) = Replay(recording)((A.flip(0), B.flip(0))) or [A]
    assert same_bits(again, FORMS[name](A.flip(0), B.flip(0)))


@pytest.mark.parametrize("seed", range(3))
def test_long_functions_of_loops_and_torchs_steps(seed: int) -> None:
    """So many operations that values wait between stages, and rooms are used again."""
    generator = torch.Generator().manual_seed(seed)
    names = [n for n in FORMS if "not" not in n and "to n" not in n]
    picks = torch.randint(len(names), (150,), generator=generator).tolist()

    def function(a: Tensor, b: Tensor) -> list[Tensor]:
        made = [a, b, torch.exp(-a.abs()), torch.stack((a, b), dim=1).sum(1)]
        for place, pick in enumerate(picks):
            one = FORMS[names[pick]](made[-1 - place % 7 % len(made)], made[place % len(made)])
            made.append(torch.sigmoid(one.double()) if place % 40 == 39 else one.double())
        return made[4::5]

    numbers = torch.randn(4, 1000, generator=generator, dtype=torch.float64)
    first, second = numbers[:2], numbers[2:]
    _, recording = record(function, tuple(first))
    replay = Replay(recording)
    for given in (first, second):
        outputs = replay(tuple(given))
        assert outputs is not None
        assert all(map(same_bits, outputs, function(*given)))


def decided(a: Tensor) -> list[Tensor]:
    return [a * 2 if bool((a.abs() <= 10).all()) else a / 2]


@pytest.mark.parametrize(("first", "second"), [(1.0, 11.0), (11.0, 1.0)])
def test_a_question_answered_otherwise_gives_no_answer(first: float, second: float) -> None:
    """Whichever answer was recorded; the odd number out is the last of all."""
    shown, other = (torch.full((1000,), 1.0, dtype=torch.float64) for _ in range(2))
    shown[-1], other[-1] = first, second
    _, recording = record(decided, (shown,))
    replay = Replay(recording)
    assert replay((other,)) is None
    (again,) = replay((shown,)) or [other]
    assert same_bits(again, decided(shown)[0])


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda a: [a.clone().add_(1)], "in place"),
        (lambda a: [a * float(a.sum())], "no answer of yes or no"),
        (lambda a: [a + torch.rand(3, dtype=torch.float64)], "other numbers each time"),
    ],
)
def test_what_a_list_cannot_hold_is_refused(function: object, why: str) -> None:
    with pytest.raises(CannotRecordError, match=why):
        record(function, (torch.ones(3, dtype=torch.float64),))  # type: ignore[arg-type]


def test_shapes_that_depend_on_numbers_give_no_answer() -> None:
    def positive(a: Tensor) -> list[Tensor]:
        return [torch.masked_select(a, a > 0) * 2]

    shown = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    _, recording = record(positive, (shown,))
    assert Replay(recording)((-shown,)) is None


def test_other_numbers_than_float64_are_left_to_torch() -> None:
    _, recording = record(lambda a: [a.float() * 0.1, a.long() + 1], (A[:5].abs(),))
    values = [value for value in recording.outputs if value.source is not None]
    assert [form(v.source, v) for v in values if v.source is not None] == [None, None]
