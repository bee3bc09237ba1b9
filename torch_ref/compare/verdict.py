"""How a verdict is reached: two sides, a bound for each, one row a quantity.

An element *differs* where

    |manual - reference| > manual bound + reference bound

written so that NaN differs. It is *decided* where it differs, or where each side's bound leaves a
digit to judge by: the reference's is at most half of its value, the manual side's at most half of
the larger of both values. Overflow is not rounding: where the manual side gives no finite number,
or one that an overflow on the way spoilt, it differs if no rounding can do that to the reference's
formulas in the same dtype, with room to spare; where these overflow themselves, it is undecided.

A quantity differs if a decided element does, agrees if none does, and is undecided if hardly any of
its elements is decided. No tolerance is chosen anywhere. What one element cannot show, many may:
see `torch_ref.compare.pooled`.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.histogram import EMPTY, WITHIN, added, histogram
from torch_ref.compare.pooled import Pool, terms
from torch_ref.compare.report import AGREE, DIFFER, UNDECIDED, Row


@dataclass(frozen=True)
class Side:
    """One side of a quantity: its float64 value and the bound on it, same shape."""

    value: Tensor
    bound: Tensor

    @property
    def decided(self) -> Tensor:
        size = self.value.abs()
        return (size < math.inf) & (self.bound <= size / 2)

    @property
    def safe(self) -> Tensor:
        """Where it is a finite number, whatever rounding does."""
        return (self.value.abs() < math.inf) & (self.bound < math.inf)

    def lost(self, most: float) -> Tensor:
        """The part of the value that the bound takes, 1 for all of it; it leaves -log10 of that in
        decimal digits, of which there are at most `most`."""
        size, least = self.value.abs(), 10**-most
        part = torch.where(self.bound == 0, 0.0, self.bound / size)
        return torch.where((size < math.inf) & (part < 1), part.clamp(min=least), 1.0)


@dataclass(frozen=True)
class Compared:
    """Two sides held against each other, element by element: float64 tensors of one shape.

    judged: difference / tolerance, -1 where undecided; lost_manual, lost_reference: see `Side`;
    scaled, moved: see `pooled.terms`.
    """

    manual: Tensor
    reference: Tensor
    tolerance: Tensor
    judged: Tensor
    lost_manual: Tensor
    lost_reference: Tensor
    scaled: Tensor
    moved: Tensor


# The share of a quantity's elements that must be decided: the few that are left may be zeros.
SEEN = 0.01


@dataclass(frozen=True)
class Tally:
    """What judging some elements of one quantity found; tallies of other elements add up."""

    name: str
    elements: int = 0
    decided: int = 0
    wrong: int = 0
    wrong_at_kinks: int = 0
    worst_ratio: float = -2.0  # of no element; -1 stands for an undecided one
    worst: dict[str, Any] = field(default_factory=dict)
    digits_manual: float = 0.0
    digits_reference: float = 0.0
    pool: Pool = field(default_factory=Pool)
    histogram: tuple[int, ...] = EMPTY

    def __add__(self, other: "Tally") -> "Tally":
        worse = other if other.worst_ratio > self.worst_ratio else self
        return replace(
            self,
            elements=self.elements + other.elements,
            decided=self.decided + other.decided,
            wrong=self.wrong + other.wrong,
            wrong_at_kinks=self.wrong_at_kinks + other.wrong_at_kinks,
            worst_ratio=worse.worst_ratio,
            worst=worse.worst,
            digits_manual=self.digits_manual + other.digits_manual,
            digits_reference=self.digits_reference + other.digits_reference,
            pool=self.pool + other.pool,
            histogram=added(self.histogram, other.histogram),
        )

    def row(self, unit_roundoff: float = 0.0, by_constants: float = 0.0) -> Row:
        """The row; with a unit roundoff, what the elements show together counts as well, as far as
        the constants in the code do not account for it."""
        biased = self.pool.biased(unit_roundoff, by_constants) if unit_roundoff else False
        seen = not self.elements or self.decided > SEEN * self.elements
        verdict = DIFFER if self.wrong or biased else AGREE if seen else UNDECIDED
        elements = max(self.elements, 1)
        return Row(
            name=self.name,
            verdict=verdict,
            worst_ratio=self.worst_ratio if self.decided else None,
            worst_case=self.worst.get("case"),
            worst_element=self.worst.get("element", ()),
            manual=self.worst.get("manual"),
            reference=self.worst.get("reference"),
            tolerance=self.worst.get("tolerance"),
            digits_manual=self.digits_manual / elements,
            digits_reference=self.digits_reference / elements,
            undecided=1 - self.decided / elements,
            wrong=self.wrong / elements,
            only_at_kinks=0 < self.wrong == self.wrong_at_kinks,
            bias=self.pool.bias if biased else None,
            histogram=self.histogram,
        )


def judge(
    name: str,
    manual: Tensor,
    manual_side: Side,
    reference_side: Side,
    reference_in_dtype: Side,
    *,
    fits: Tensor | None = None,
    first_case: str = "0:0",
    batched: bool = True,
    most_digits: float = 16.0,
    unit_roundoff: float = 0.0,
    kinks: Tensor | None = None,
) -> Tally:
    """Judge one quantity; all tensors float64, of one shape.

    manual: what the manual side gave in the dtype under test, as float64.
    manual_side: the same formulas in float64, with the overflow of the dtype under test, and their
        bound in that dtype.
    reference_side: the reference in float64 and its bound there.
    reference_in_dtype: the reference with the dtype's overflow, and its bound in that dtype.
    fits: where the reference's formulas are safe in the dtype with room to spare; by default where
        reference_in_dtype is.
    first_case: "SEED:INDEX" of the first case; batched: whether the first dimension is the cases
        (otherwise it is all one case); most_digits: what the dtype under test can hold;
        unit_roundoff: that of the dtype; kinks: the cases at which a gradient is a convention.
    """
    found = compare(
        manual, manual_side, reference_side, reference_in_dtype,
        fits=fits, most_digits=most_digits, unit_roundoff=unit_roundoff,
    )  # fmt: skip
    return tally(name, found, first_case=first_case, batched=batched, kinks=kinks)


def compare(
    manual: Tensor,
    manual_side: Side,
    reference_side: Side,
    reference_in_dtype: Side,
    *,
    fits: Tensor | None = None,
    most_digits: float = 16.0,
    unit_roundoff: float = 0.0,
) -> Compared:
    """What `judge` does element by element."""
    tolerance = manual_side.bound + reference_side.bound
    reference = reference_side.value
    side, size = manual_side.value.abs(), reference.abs()
    is_number = manual.abs() < math.inf  # as isfinite, which takes four operations
    overflows = reference_in_dtype.value != reference
    bounded = is_number & (side < math.inf)
    bounded = bounded & (manual_side.bound <= torch.maximum(side, size) / 2)
    lost = ~is_number & reference_side.safe & (reference_in_dtype.safe if fits is None else fits)
    ratio = _ratio((manual - reference).abs(), tolerance)
    beyond = (
        (ratio > 1) & (tolerance < math.inf) & is_number & (torch.maximum(side, size) < math.inf)
    )
    decided = ((bounded & reference_side.decided) | lost | beyond) & ~overflows
    return Compared(
        manual,
        reference,
        tolerance,
        torch.where(decided, ratio, -1.0),
        manual_side.lost(most_digits),
        reference_in_dtype.lost(most_digits),
        *terms(manual - reference, reference, tolerance, decided & ~lost, unit_roundoff),
    )


def tally(
    name: str, found: Compared, *, first_case: str, batched: bool, kinks: Tensor | None
) -> Tally:
    """What `judge` sums up."""
    counts = histogram(found.judged)
    wrong = sum(counts[WITHIN:])
    return Tally(
        name=name,
        elements=found.judged.numel(),
        decided=sum(counts),
        wrong=wrong,
        wrong_at_kinks=_at_kinks(found.judged > 1, kinks) if wrong else 0,
        **_worst(found, first_case, batched),
        digits_manual=_digits(found.lost_manual),
        digits_reference=_digits(found.lost_reference),
        pool=Pool.summed(found.scaled, found.moved, batched),
        histogram=counts,
    )


def _digits(lost: Tensor) -> float:
    """The decimal digits that are left, of all elements together."""
    return 0.0 - float(lost.log10().sum())  # and not -0.0


def _ratio(difference: Tensor, tolerance: Tensor) -> Tensor:
    """|difference| / tolerance; 0 where they are equal to the last bit, infinite for NaN."""
    ratio = torch.where(difference == 0, 0.0, difference / tolerance)
    return torch.where(difference < math.inf, ratio, torch.inf)


def _at_kinks(wrong: Tensor, kinks: Tensor | None) -> int:
    """How many of the wrong elements lie in a case at which a gradient is a convention."""
    if kinks is None:
        return 0
    per_case = wrong.reshape(len(kinks), -1) if wrong.numel() else wrong.reshape(len(kinks), 0)
    return int((per_case & kinks[:, None]).sum())


def _worst(found: Compared, first_case: str, batched: bool) -> dict[str, Any]:
    """The element with the largest ratio, as fields of a Tally."""
    if not found.judged.numel():
        return {}
    largest, place = found.judged.reshape(-1).max(0)
    at = int(place)
    numbers = ("manual", "reference", "tolerance")
    shape = tuple(found.manual.shape[1:]) if batched else tuple(found.manual.shape)
    worst = {key: float(getattr(found, key).reshape(-1)[at]) for key in numbers}
    return {
        "worst_ratio": float(largest),
        "worst": {**place_of(at, shape, first_case, batched), **worst},
    }


def place_of(at: int, shape: tuple[int, ...], first_case: str, batched: bool) -> dict[str, Any]:
    """The case and the element of number `at`, where a case's numbers have this shape."""
    seed, first = first_case.split(":")
    each = math.prod(shape)
    case = int(first) + at // each if batched else int(first)
    element, left = [], at % each
    for size in reversed(shape):
        element.append(left % size)
        left //= size
    return {"case": f"{seed}:{case}", "element": tuple(reversed(element))}
