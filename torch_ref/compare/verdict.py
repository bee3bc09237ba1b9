"""How a verdict is reached: two sides, a bound for each, one row a quantity.

An element is *decided* where each side's bound leaves a digit to judge by: the reference's is at
most half of its value, the manual side's at most half of the larger of both values. A decided
element *differs* where

    |manual - reference| > manual bound + reference bound

written so that NaN differs. Overflow is not rounding: where the manual side gives no finite number,
or one that an overflow on the way spoilt, the element is decided if the reference's formulas would
have done well in the same dtype; where these overflow themselves, it is undecided.

A quantity differs if a decided element does, agrees if none does, and
is undecided if it has no decided element. No tolerance is chosen anywhere.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

AGREE, DIFFER, UNDECIDED = "agree", "differ", "undecided"


@dataclass(frozen=True)
class Row:
    """One quantity's result over all cases.

    worst_ratio: the largest |manual - reference| / tolerance over decided elements (inf where the
        manual side is not a number), None where nothing was decided; above 1 is wrong.
    worst_case: "SEED:INDEX" of that element (the first one where nothing was decided), for
        `gradtwin replay`; manual, reference and tolerance are its numbers.
    digits_manual, digits_reference: decimal digits that each side's rounding bound leaves in the
        dtype under test, averaged over all elements.
    undecided, wrong: shares of all elements, 0 to 1.
    """

    name: str
    verdict: str
    worst_ratio: float | None
    worst_case: str | None
    manual: float | None
    reference: float | None
    tolerance: float | None
    digits_manual: float
    digits_reference: float
    undecided: float
    wrong: float


@dataclass(frozen=True)
class Report:
    """The verdict on a twin, one row a quantity, in backward order.

    failures: reasons that have nothing to do with rounding (a wrong shape, a changed input ...).
    notes: what a reader should know about how the bounds were made.
    """

    twin: str
    cases: int
    dtype: str
    device: str
    seed: int
    rows: tuple[Row, ...]
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """ "agree", "differ" or "undecided"."""
        verdicts = {row.verdict for row in self.rows}
        if self.failures or DIFFER in verdicts:
            return DIFFER
        return UNDECIDED if UNDECIDED in verdicts or not self.rows else AGREE

    @property
    def first_wrong(self) -> str | None:
        """The first quantity in backward order that differs: where the mistake enters."""
        return next((row.name for row in self.rows if row.verdict == DIFFER), None)

    def assert_agreement(self) -> None:
        """Raise AssertionError unless the verdict is "agree", saying what is wrong and where."""
        if self.verdict != AGREE:
            raise AssertionError(self._message())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, strings and numbers."""
        return {"verdict": self.verdict, "first_wrong": self.first_wrong, **asdict(self)}

    def _message(self) -> str:
        where = f"{self.twin}: {self.cases} cases, {self.dtype}, {self.device}, seed {self.seed}"
        lines = [f"The backward pass {_SAYS[self.verdict]} ({where}).", *self.failures]
        for row in self.rows:
            if row.verdict == DIFFER:
                lines.append(
                    f"dL/d{row.name} is wrong in {row.wrong:.2%} of the cases; worst in case "
                    f"{row.worst_case}: manual {row.manual:.10g}, reference {row.reference:.10g}, "
                    f"{row.worst_ratio:.3g} times what rounding allows."
                )
            elif row.verdict == UNDECIDED:
                lines.append(f"dL/d{row.name} is undecided: rounding leaves no digit in any case.")
        if self.first_wrong:
            lines.append(
                f"The mistake enters at dL/d{self.first_wrong}: what comes before it in backward "
                "order agrees."
            )
        return "\n".join(lines)


_SAYS = {DIFFER: "is wrong", UNDECIDED: "could not be judged", AGREE: "agrees"}


@dataclass(frozen=True)
class Tally:
    """What judging some elements of one quantity found; tallies of other elements add up."""

    name: str
    elements: int = 0
    decided: int = 0
    wrong: int = 0
    worst_ratio: float = -2.0  # of no element; -1 stands for an undecided one
    worst: dict[str, Any] = field(default_factory=dict)
    digits_manual: float = 0.0
    digits_reference: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        worse = other if other.worst_ratio > self.worst_ratio else self
        return replace(
            self,
            elements=self.elements + other.elements,
            decided=self.decided + other.decided,
            wrong=self.wrong + other.wrong,
            worst_ratio=worse.worst_ratio,
            worst=worse.worst,
            digits_manual=self.digits_manual + other.digits_manual,
            digits_reference=self.digits_reference + other.digits_reference,
        )

    def row(self) -> Row:
        verdict = DIFFER if self.wrong else AGREE if self.decided else UNDECIDED
        elements = max(self.elements, 1)
        return Row(
            name=self.name,
            verdict=verdict,
            worst_ratio=self.worst_ratio if self.decided else None,
            worst_case=self.worst.get("case"),
            manual=self.worst.get("manual"),
            reference=self.worst.get("reference"),
            tolerance=self.worst.get("tolerance"),
            digits_manual=self.digits_manual / elements,
            digits_reference=self.digits_reference / elements,
            undecided=1 - self.decided / elements,
            wrong=self.wrong / elements,
        )


@dataclass(frozen=True)
class Side:
    """One side of a quantity: its float64 value and the bound on it, same shape."""

    value: Tensor
    bound: Tensor

    @property
    def decided(self) -> Tensor:
        return self.value.isfinite() & (self.bound <= self.value.abs() / 2)

    def digits(self, most: float) -> float:
        """Decimal digits that the bound leaves, each element's between 0 and `most`, summed."""
        relative = torch.where(self.bound == 0, 0.0, self.bound / self.value.abs())
        return float((-relative.log10()).nan_to_num(nan=0.0).clamp(0.0, most).sum())


def judge(
    name: str,
    manual: Tensor,
    manual_side: Side,
    reference_side: Side,
    reference_in_dtype: Side,
    *,
    first_case: str = "0:0",
    most_digits: float = 16.0,
) -> Tally:
    """Judge one quantity, cases in the first dimension, all tensors float64 of one shape.

    manual: what the manual side gave in the dtype under test, as float64.
    manual_side: the same formulas in float64, with the overflow of the dtype under test, and their
        bound in that dtype.
    reference_side: the reference in float64 and its bound there.
    reference_in_dtype: the reference with the dtype's overflow, and its bound in that dtype.
    first_case: "SEED:INDEX" of the first case; most_digits: what the dtype under test can hold.
    """
    tolerance = manual_side.bound + reference_side.bound
    reference = reference_side.value
    larger = torch.maximum(manual_side.value.abs(), reference.abs())
    bounded = manual_side.value.isfinite() & (manual_side.bound <= larger / 2)
    lost = ~manual.isfinite() & reference_in_dtype.decided
    overflows = reference_in_dtype.value != reference
    decided = (bounded | lost) & reference_side.decided & ~overflows
    ratio = _ratio((manual - reference).abs(), tolerance)
    return Tally(
        name=name,
        elements=manual.numel(),
        decided=int(decided.sum()),
        wrong=int((decided & (ratio > 1)).sum()),
        **_worst(torch.where(decided, ratio, -1.0), manual, reference, tolerance, first_case),
        digits_manual=manual_side.digits(most_digits),
        digits_reference=reference_in_dtype.digits(most_digits),
    )  # fmt: skip


def _ratio(difference: Tensor, tolerance: Tensor) -> Tensor:
    """difference / tolerance; 0 where they are equal to the last bit, infinite for NaN."""
    ratio = torch.where(difference == 0, 0.0, difference / tolerance)
    return torch.where(difference.isfinite(), ratio, torch.inf)


def _worst(
    ratio: Tensor, manual: Tensor, reference: Tensor, tolerance: Tensor, first_case: str
) -> dict[str, Any]:
    """The element with the largest ratio, as fields of a Tally."""
    largest, place = ratio.reshape(-1).max(0)
    at = int(place)
    seed, first = first_case.split(":")
    case = int(first) + at // max(manual[0].numel(), 1)
    numbers = {"manual": manual, "reference": reference, "tolerance": tolerance}
    worst = {key: float(tensor.reshape(-1)[at]) for key, tensor in numbers.items()}
    return {"worst_ratio": float(largest), "worst": {"case": f"{seed}:{case}", **worst}}
