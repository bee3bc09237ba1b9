"""The judge: both sides run, bounded and compared, batch after batch, in constant memory."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch

from torch_ref.compare.cases import Batch, Cases, widened
from torch_ref.compare.comparison import compared
from torch_ref.compare.compiled import COMPILED_FROM, Compiled, Judged
from torch_ref.compare.conventions import conventions
from torch_ref.compare.diagnosis import diagnose
from torch_ref.compare.forward_graph import forward_graph
from torch_ref.compare.kept import Kept
from torch_ref.compare.report import AGREE, DIFFER, UNDECIDED, Diagnosis, Graph, Report, Row
from torch_ref.compare.rounding import Arithmetic
from torch_ref.compare.sides import Recorder
from torch_ref.compare.sides.hand import RANDOM
from torch_ref.compare.strangers import SINGULAR
from torch_ref.compare.twin import Twin, TwinError, Values
from torch_ref.compare.verdict import Tally, tally

BATCHED_CASES, SINGLE_CASES = 100_000, 100
FEW = 32  # cases
LARGE = 2**18  # numbers in the inputs of a case
EXAMINED = 12  # batches with a mistake in them that a diagnosis looks at
MOSTLY = 0.9  # what is undecided of a quantity that agrees, to be told
BESIDE = 6  # batches without a mistake that it looks at, too


class Judge:
    """Tallies what the batches it is given show, and makes the report.

    like: a judge of the same twin in another dtype, whose recorded graphs are shared.
    """

    def __init__(
        self,
        twin: Twin,
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
        *,
        like: "Judge | None" = None,
    ) -> None:
        self.twin, self.dtype, self.device, self.seed = twin, dtype, device, seed
        self.cases = Cases(twin, dtype, device, seed)
        self.recorder: Recorder = like.recorder.for_dtype(dtype) if like else Recorder(twin, dtype)
        self.arithmetic = Arithmetic.of(dtype)
        self.tallies: dict[str, Tally] = {}
        self.suspects, self.unsuspected = Kept(), Kept()
        self.at_kinks = 0
        self.example: Values = {}
        self.compiled: Compiled | None = None

    def expect(self, cases: int) -> None:
        """So many cases will come: of very many the judge is compiled, which takes seconds."""
        if self.is_worth_compiling(cases):
            self.compile()

    def is_worth_compiling(self, cases: int) -> bool:
        """Whether a compiled judge is done with so many cases sooner, where there is a compiler."""
        return cases >= COMPILED_FROM and self.can_be_compiled

    @property
    def can_be_compiled(self) -> bool:
        """Whether a compiled judge is for such cases: batched ones on the CPU."""
        return self.cases.batched and self.device.type == "cpu"

    def compile(self) -> None:
        """Judge whole shards by compiled code from now on, as far as it can be."""
        self.compiled = Compiled(self.recorder)

    @property
    def default_cases(self) -> int:
        return BATCHED_CASES if self.cases.batched else SINGLE_CASES

    @property
    def small(self) -> bool:
        """Whether a batch is too small for threads to gain anything."""
        if self.cases.batched:
            return True
        sizes = (value.numel() for value in self.cases.case(0).inputs.values())
        return sum(sizes) < LARGE

    def run(
        self,
        cases: int | None = None,
        *,
        explain: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> Report:
        """The report on so many cases; the arguments are those of `verify`."""
        with torch.inference_mode(False):  # autograd is needed, wherever this is called
            wanted = self.default_cases if cases is None else cases
            self.expect(wanted)
            with one_thread(self.small):
                for batch in self.cases.batches(wanted):
                    self.judge(batch)
                    if progress:
                        progress(batch.first + batch.count)
                return self.report(wanted, explain=explain)

    def judge(self, batch: Batch) -> None:
        """Judge all quantities on a batch, without the stresses that make matrices singular."""
        try:
            self._judge(batch)
        except TwinError as error:
            if not isinstance(error.__cause__, SINGULAR):
                raise
            self._judge(self._without_singular(batch, error))

    def _judge(self, batch: Batch) -> None:
        """Judge a batch: compiled, or chunk by chunk."""
        first_case = f"{self.seed}:{batch.first}"
        in_chunks = partial(self._in_chunks, batch)
        found = self.compiled(batch, first_case, in_chunks) if self.compiled else None
        if not found:
            found = in_chunks()
            if self.compiled and self.compiled.at_odds and not _wrong(found):
                whole = self._in_memory(batch)  # a hand may be wrong of many cases at once alone
                found = whole if _wrong(whole) else found
        self.add(*found)
        self.recorder.said.say(notes=self.cases.notes)
        self.example = self.example or _first_case(batch)

    def _in_chunks(self, batch: Batch) -> Judged:
        """What the chunks of a batch give, added up."""
        return _together([self._in_memory(chunk) for chunk in batch.chunks()])

    def _in_memory(self, batch: Batch) -> Judged:
        """What a chunk gives; in halves where it does not fit into memory."""
        try:
            return self._plainly(batch)
        except torch.OutOfMemoryError as error:
            if batch.count < 2:
                raise TwinError(
                    f"{self.twin.name}: a single case does not fit into the memory of "
                    f"{self.device}: make its tensors smaller, or use another device."
                ) from error
        torch.cuda.empty_cache()
        half = batch.count // 2
        parts = batch.part(0, half), batch.part(half, batch.count - half)
        return _together([self._in_memory(part) for part in parts])

    def _without_singular(self, batch: Batch, error: TwinError) -> Batch:
        """A batch as it was drawn where a stress makes matrices singular, which rounding can hide
        from the reference. Raises the error where no stress does."""
        parts = self.cases.under_stress(batch)
        singular = [stress for stress, part in parts.items() if self._is_singular(part)]
        if not singular or error.__cause__ is None:
            raise error
        for stress in singular:
            self.cases.note_raised(stress, "one of the two sides", error.__cause__)
        return self.cases.as_drawn(batch, singular)

    def _is_singular(self, batch: Batch) -> bool:
        """Whether one of the two sides finds a matrix singular."""
        try:
            self.recorder.answers(batch)
        except TwinError as error:
            return isinstance(error.__cause__, SINGULAR)
        return False

    def _plainly(self, batch: Batch) -> Judged:
        """A tally of each quantity, and how many cases are at kinks."""
        quantities, kinks = compared(self.recorder, batch)
        first_case = f"{self.seed}:{batch.first}"
        tallies = [
            tally(name, one, first_case=first_case, batched=batch.batched, kinks=kinks)
            for name, one in quantities.items()
        ]
        wrong = any(one.wrong for one in tallies)
        kept = self.suspects if wrong else self.unsuspected
        kept.add(batch, "" if batch.batched else self.cases.stratum(batch.first))
        return tallies, 0 if kinks is None else int(kinks.sum())

    def add(self, tallies: Iterable[Tally], kinks: int) -> None:
        """Add what some cases showed, so many of them at kinks."""
        self.at_kinks += kinks
        for one in tallies:
            before = self.tallies.get(one.name)
            self.tallies[one.name] = before + one if before else one

    def forget(self) -> None:
        """Begin anew, with nothing left over but what was recorded."""
        self.tallies.clear()
        self.suspects, self.unsuspected = Kept(), Kept()
        self.at_kinks = 0
        self.recorder.forget()
        self.cases.notes.clear()

    def report(self, cases: int, *, explain: bool = True) -> Report:
        """Everything found so far, as a report over that many cases."""
        said = self.recorder.said
        rows = tuple(
            self._row(self.tallies.get(name, Tally(name)), refused=name in said.refused)
            for name in said.order
            if name in self.tallies or name in said.refused
        )
        wrong = tuple(row.name for row in rows if row.verdict == DIFFER)
        diagnosis = Diagnosis()
        if explain and wrong and self.suspects and RANDOM not in said.failures:
            diagnosis = diagnose(self.recorder, self._examined(), wrong)
        told = conventions(self.twin.reference, self._shown) if explain and wrong else ()
        return Report(
            twin=self.twin.name,
            cases=cases,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            seed=self.seed,
            rows=rows,
            failures=tuple(said.failures),
            notes=(*said.notes, *_hardly_judged(rows), *told),
            missing=tuple(said.missing),
            kinks=self.at_kinks / cases,
            batched=self.cases.batched,
            diagnosis=diagnosis,
            graph=forward_graph(self.twin.reference, self._shown) if explain else Graph(),
        )

    @property
    def _shown(self) -> Values:
        """The inputs of a case, in float64, to run the reference on for what is not numbers."""
        return widened(self.example or _first_case(self.cases.case(0)))

    def _examined(self) -> list[Batch]:
        """Batches with something wrong in them, and of a one-case twin some without."""
        beside = 0 if self.cases.batched else BESIDE
        return [*self.suspects.some(EXAMINED), *self.unsuspected.some(beside)]

    def _row(self, tally: Tally, *, refused: bool) -> Row:
        unit_roundoff = self.arithmetic.unit_roundoff
        biased = not tally.wrong and tally.pool.biased(unit_roundoff)
        by_constants = self._pulled_by_constants.get(tally.name, math.inf) if biased else 0.0
        row = tally.row(unit_roundoff, by_constants)
        if refused:
            row = replace(row, verdict=DIFFER)
        elif row.verdict == AGREE and tally.name in self.recorder.said.unbounded:
            row = replace(row, verdict=UNDECIDED)
        if row.worst_case is None:
            return row
        return replace(row, stratum=self.cases.stratum(int(row.worst_case.split(":")[1])))

    @cached_property
    def _pulled_by_constants(self) -> dict[str, float]:
        """The common relative errors that constants in the code may cause, the mean of some cases;
        seldom needed, so they are worked out only where there is an error to account for."""
        pulls = [self.recorder.pulls_of_constants(batch) for batch in self.cases.batches(FEW)]
        names = set().union(*pulls)
        return {n: sum(pull.get(n, math.inf) for pull in pulls) / len(pulls) for n in names}


@contextlib.contextmanager
def one_thread(small: bool) -> Iterator[None]:
    """Shards and small cases fit the cache: splitting their operations over threads costs more than
    it gives (measured: 10 times the time where the cores are shared)."""
    before = torch.get_num_threads()
    try:
        if small:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def _hardly_judged(rows: Iterable[Row]) -> list[str]:
    """A word on what agrees where little can be said."""
    names = [f"dL/d{row.name}" for row in rows if row.verdict == AGREE and row.undecided > MOSTLY]
    if not names:
        return []
    return [
        f"More than {MOSTLY:.0%} of {', '.join(names)} is undecided: a mistake there is not seen."
    ]


def _wrong(found: Judged) -> bool:
    return any(one.wrong for one in found[0])


def _together(found: Sequence[Judged]) -> Judged:
    """What parts of a batch give, added up."""
    tallies: dict[str, Tally] = {}
    for one in (one for of_part, _ in found for one in of_part):
        tallies[one.name] = tallies[one.name] + one if one.name in tallies else one
    return list(tallies.values()), sum(kinks for _, kinks in found)


def _first_case(batch: Batch) -> Values:
    return {n: v[:1] for n, v in batch.inputs.items()} if batch.batched else batch.inputs
