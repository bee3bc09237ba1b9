"""The result: one row a quantity, in backward order. Whatever shows or stores it only reads it."""

from dataclasses import asdict, dataclass, field
from typing import Any

AGREE, DIFFER, UNDECIDED = "agree", "differ", "undecided"
# Where a kink is met in so many cases, mistakes lie there whatever their cause.
MANY = 0.5
NO_DIGIT = 0.2  # on average
_SAYS = {DIFFER: "is wrong", UNDECIDED: "could not be judged", AGREE: "agrees"}


@dataclass(frozen=True)
class Row:
    """One quantity's result over all cases.

    worst_ratio: the largest |manual - reference| / tolerance over decided elements (inf where the
        manual side is not a number), None where nothing was decided; above 1 is wrong.
    worst_case: "SEED:INDEX" of that element (the first one where nothing was decided), for
        `gradtwin replay`; worst_element its place in that case's tensor; manual, reference and
        tolerance its numbers; stratum the kind of place the case was drawn for.
    digits_manual, digits_reference: decimal digits that each side's rounding bound leaves in the
        dtype under test, averaged over all elements.
    undecided, wrong: shares of all elements, 0 to 1.
    only_at_kinks: every wrong element lies in a case that meets a kink or a tie exactly, where a
        gradient is a convention; torch's is the one judged by.
    bias: a relative error common to all elements, where only all of them together show it.
    histogram: decided elements counted by |manual - reference| / tolerance: those that are equal,
        those up to 2^-16, then by powers of 4 up to 2^16, and those above; see
        `torch_ref.compare.histogram`.
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
    worst_element: tuple[int, ...] = ()
    stratum: str = ""
    only_at_kinks: bool = False
    bias: float | None = None
    histogram: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Diagnosis:
    """Where a mistake enters, what it looks like, and whose it is.

    mistakes: quantities that are wrong even given the hand's own gradients of what comes before
        them, in backward order: each is a mistake of its own, the other wrong ones inherit theirs.
    explanations: a sentence for each of the mistakes, in the author's names.
    explained: whether each sentence is a pattern that fits every decided element.
    lines: where in the author's code each of them is computed, and nothing that is right:
        "mine.py:12 and 14"; "" where that cannot be seen. shared: where all of them are.
    blame: "manual" or "reference", the side that finite differences of the loss are against; "" if
        they cannot tell.
    """

    mistakes: tuple[str, ...] = ()
    explanations: tuple[str, ...] = ()
    explained: tuple[bool, ...] = ()
    lines: tuple[str, ...] = ()
    shared: str = ""
    blame: str = ""


@dataclass(frozen=True)
class Graph:
    """The named quantities of the reference in forward order, and which is computed from which.

    edges: (a, b) where b is computed from a without passing another named quantity.
    Both are empty where nobody asked for the graph, or where it could not be recorded.
    """

    quantities: tuple[str, ...] = ()
    edges: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Report:
    """The verdict on a twin, one row a quantity, in backward order.

    twin: its name; cases: how many were judged; dtype, device, seed: as `verify` was told.
    rows: what was found, a `Row` a quantity; diagnosis: where, what and whose the mistakes are.
    failures: reasons that have nothing to do with rounding (a wrong shape, a changed input ...).
    notes: what a reader should know about how the verdict was reached.
    missing: inputs with a gradient that the manual side did not give.
    kinks: the share of cases at which a gradient is a convention (a kink or a tie, met exactly).
    batched: whether many cases came in one batch.
    graph: how the quantities hang together, for a picture of them.
    """

    twin: str
    cases: int
    dtype: str
    device: str
    seed: int
    rows: tuple[Row, ...]
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    kinks: float = 0.0
    batched: bool = True
    diagnosis: Diagnosis = Diagnosis()
    graph: Graph = field(default=Graph(), repr=False)

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

    @property
    def mistakes(self) -> tuple[str, ...]:
        """Every quantity at which a mistake enters on its own, in backward order."""
        refused = {row.name for row in self.rows if row.verdict == DIFFER and not row.worst_case}
        own = {*self.diagnosis.mistakes, *refused}
        found = tuple(row.name for row in self.rows if row.name in own)
        return found or ((self.first_wrong,) if self.first_wrong else ())

    @property
    def explanation(self) -> str:
        """What the mistakes look like, in the author's names; "" where there is none."""
        return "; ".join(self.diagnosis.explanations)

    def assert_agreement(self) -> None:
        """Raise AssertionError unless the verdict is "agree", saying what is wrong and where."""
        if self.verdict != AGREE:
            raise AssertionError(self._message())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, strings and numbers, in the form that
        torch_ref/report/schema.json describes; infinities and NaN stay what they are."""
        return {
            "verdict": self.verdict,
            "first_wrong": self.first_wrong,
            "mistakes": list(self.mistakes),
            "explanation": self.explanation,
            **asdict(self),
        }

    def _repr_html_(self) -> str | None:
        """The report as notebooks show it; None, for the plain text, without the extra `report`."""
        from torch_ref.report.html import html_fragment, is_missing

        return None if is_missing() else html_fragment(self)

    def _message(self) -> str:
        where = f"{self.twin}: {self.cases} cases, {self.dtype}, {self.device}, seed {self.seed}"
        lines = [f"The backward pass {_SAYS[self.verdict]} ({where}).", *self.failures]
        lines += [self._about(row) for row in self.rows if row.verdict != AGREE]
        lines += self.closing_lines()
        return "\n".join([*lines, *self.notes])

    def _about(self, row: Row) -> str:
        if row.verdict == UNDECIDED:
            which = "no element of any case" if row.undecided == 1 else "too little of it"
            zero = " Rounding leaves no digit of autograd's own: the truth may be 0 throughout."
            none_left = row.digits_reference < NO_DIGIT
            return f"dL/d{row.name} is undecided: {which} can be judged.{zero * none_left}"
        if row.worst_case is None:
            return f"dL/d{row.name} cannot be compared, see above."
        if row.bias is not None and not row.wrong:
            return f"{self.about_bias(row)}."
        share = f"{row.wrong:.2%}" if row.wrong >= 5e-5 else f"{row.wrong:.1e}"
        of = "the cases" if self.batched and not row.worst_element else "the elements"
        place = f", element {list(row.worst_element)}" if row.worst_element else ""
        kind = f" ({row.stratum})" if row.stratum else ""
        return (
            f"dL/d{row.name} is wrong in {share} of {of}; worst in case {row.worst_case}{kind}"
            f"{place}: manual {row.manual:.10g}, reference {row.reference:.10g}, "
            f"{row.worst_ratio:.3g} times what rounding allows."
        )

    def about_bias(self, row: Row) -> str:
        """What only all cases together show of a quantity."""
        return (
            f"dL/d{row.name} is off by a relative {row.bias:.2g} on the whole, more than rounding "
            "can be in so many cases, though no single element shows it"
        )

    def _where(self) -> str:
        names = " and at ".join(f"dL/d{name}" for name in self.mistakes)
        if len(self.mistakes) == 1:
            return f"The mistake enters at {names}: nothing before it in backward order is wrong."
        if self.diagnosis.shared and self.mistakes == self.diagnosis.mistakes:
            one = f"it may be one, since all are computed at {self.diagnosis.shared}"
            return f"Mistakes enter at {names}; {one}."
        return f"Mistakes enter at {names}; it may be one, if they share a line that has no name."

    def places(self) -> list[str]:
        """Where in the author's code the mistakes are, as far as that can be seen."""
        told = zip(self.diagnosis.mistakes, self.diagnosis.lines, strict=False)
        return [f"dL/d{name} is computed at {lines}." for name, lines in told if lines]

    def closing_lines(self) -> list[str]:
        """Where the mistakes enter, whose they are, and what they look like; one line each."""
        if not self.first_wrong:
            return []
        first = next(row for row in self.rows if row.name == self.first_wrong)
        lines = [self._where()]
        if self.explanation:
            lines.append(f"{self.explanation}.")
        lines += self.places()
        if not all(self.diagnosis.explained) and not first.only_at_kinks:
            lines.append(
                "Where no pattern is known, let reference and manual give more intermediates, by "
                "name: what enters between two of them is then seen there."
            )
        if first.only_at_kinks and self.kinks < MANY:  # else it says nothing
            lines.append(
                f"dL/d{first.name} differs only in cases where a kink or a tie is met exactly; "
                "there a gradient can be a convention, and torch's is the one judged by."
            )
        return lines
