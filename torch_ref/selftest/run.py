"""The self-test of power: what becomes of each mutant of `manual_bp`."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from torch_ref.selftest.judge import judge
from torch_ref.selftest.mutate import MUTATED, Mutant, mutants, original
from torch_ref.selftest.prove import prove

CAUGHT, EQUIVALENT, SURVIVED = "caught", "equivalent", "survived"
CASES = 3_000


@dataclass(frozen=True)
class MutantRow:
    """What became of one mutant.

    function, line, operator, before, after: the change, as in `Mutant`.
    verdict: "caught", "equivalent" or "survived".
    reason: what gave it away, or the proof that it is equivalent; "" for a survivor.
    twin, first_wrong: which twin caught it, and the quantity named (None for an error raised).
    expected: the gradient that the changed line computes, where it computes one.
    """

    function: str
    line: int
    operator: str
    before: str
    after: str
    verdict: str
    reason: str = ""
    twin: str | None = None
    first_wrong: str | None = None
    expected: str | None = None


@dataclass(frozen=True)
class SelftestResult:
    """What became of all mutants, in the order of the source.

    false_alarms: functions that were called wrong as they are; there must be none.
    """

    cases: int
    rows: tuple[MutantRow, ...]
    false_alarms: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every mutant that is not equivalent was caught, and nothing else."""
        return not self.false_alarms and not self.with_verdict(SURVIVED)

    def with_verdict(self, verdict: str) -> tuple[MutantRow, ...]:
        """The mutants that were "caught", are "equivalent" or "survived"."""
        return tuple(row for row in self.rows if row.verdict == verdict)

    @property
    def counts(self) -> dict[str, int]:
        """How many mutants have each verdict."""
        return {v: len(self.with_verdict(v)) for v in (CAUGHT, EQUIVALENT, SURVIVED)}

    @property
    def reasons(self) -> dict[str, dict[str, int]]:
        """How many were caught for each reason, and how many are equivalent by each proof."""
        return {
            verdict: dict(Counter(row.reason for row in self.with_verdict(verdict)).most_common())
            for verdict in (CAUGHT, EQUIVALENT)
        }

    @property
    def named(self) -> tuple[int, int]:
        """Of the mutated lines that compute one gradient, how often it was the first one wrong:
        right, all."""
        expected = [row for row in self.with_verdict(CAUGHT) if row.expected and row.first_wrong]
        return sum(row.first_wrong == row.expected for row in expected), len(expected)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, strings and numbers."""
        return {
            "ok": self.ok,
            "counts": self.counts,
            "reasons": self.reasons,
            "named": list(self.named),
            **asdict(self),
        }


def run_selftest(
    *,
    cases: int = CASES,
    every: int = 1,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SelftestResult:
    """Judge every mutant of `manual_bp` in float64 on `cases` cases of each twin that sees it.

    every: only the first of so many mutants, and so on. workers: how many processes share the work;
    a script that asks for more than one needs `if __name__ == "__main__":` around the call.
    progress: called with how many are done, of how many.
    Raises ValueError for bad arguments, ModuleNotFoundError where cosmic-ray is not installed.
    """
    for name, value in (("cases", cases), ("every", every), ("workers", workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number; got {value!r}.")
    start = time.perf_counter()
    chosen = mutants()[::every]
    unchanged = [original(function) for function in MUTATED]
    rows = []
    for done, row in enumerate(_rows([*unchanged, *chosen], cases, workers), start=1):
        rows.append(row)
        if progress:
            progress(done, len(unchanged) + len(chosen))
    control, rows = rows[: len(unchanged)], rows[len(unchanged) :]
    return SelftestResult(
        cases=cases,
        rows=tuple(rows),
        false_alarms=tuple(row.function for row in control if row.verdict == CAUGHT),
        seconds=time.perf_counter() - start,
    )


def _rows(chosen: Sequence[Mutant], cases: int, workers: int) -> Iterator[MutantRow]:
    one = partial(become, cases=cases)
    if workers == 1:
        yield from map(one, chosen)
        return
    # a fresh process each: torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield from pool.map(one, chosen, chunksize=8)


def become(mutant: Mutant, cases: int) -> MutantRow:
    """What becomes of one mutant: judged, and where that shows nothing, a proof looked for."""
    change = {name: getattr(mutant, name) for name in ("line", "operator", "before", "after")}
    row = partial(MutantRow, mutant.function, expected=mutant.quantity, **change)
    catch = judge(mutant, cases)
    if catch:
        return row(
            verdict=CAUGHT, reason=catch.reason, twin=catch.by, first_wrong=catch.first_wrong
        )
    proof = prove(mutant)
    return row(verdict=EQUIVALENT, reason=proof) if proof else row(verdict=SURVIVED)
