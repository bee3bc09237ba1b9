"""What the bounds cost: `python bench/overhead.py` writes bench/results/overhead.md.

For each twin of the gallery, and the assignment's, the processor's time for a case's verdict (both
sides run and walked, the hand's contract checked, all quantities judged) against the floor, one
float64 forward and backward of the reference on the same case; medians over the same cases, taken
by turns. Recording graphs, once for each layout, is excluded: each case is judged before it is
timed, and each part runs once just before. The assignment's is a batched twin, so both are of a
shard there.
"""

import importlib
import pkgutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

import torch_ref.gallery
from torch_ref.assignment import assignment_twin
from torch_ref.compare import Twin
from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.cases import CHUNK, Batch, widened
from torch_ref.compare.graphs.side import record
from torch_ref.compare.judge import Judge
from torch_ref.compare.rounding import walk
from torch_ref.compare.sides.reference import FLOAT64
from torch_ref.report.machine import processor

RESULT = Path(__file__).parent / "results" / "overhead.md"
CASES, ROUNDS = 8, 3


def twins() -> Iterator[Twin]:
    yield assignment_twin()
    for module in pkgutil.iter_modules(torch_ref.gallery.__path__):
        loaded = importlib.import_module(f"torch_ref.gallery.{module.name}")
        yield from (value for value in vars(loaded).values() if isinstance(value, Twin))


@dataclass(frozen=True)
class Cost:
    """Medians, seconds of processor time: of the floor, of walking the reference, of a verdict."""

    floor: float
    bounds: float
    verdict: float


def cost(twin: Twin) -> Cost:
    judge = Judge(twin, torch.float64, torch.device("cpu"), 0)
    cases = [judge.cases.case(index) for index in range(CASES)]
    if judge.cases.batched:
        cases = list(judge.cases.batch(0, 3 * CHUNK).chunks())
    for case in cases:
        judge.judge(case)
    taken: tuple[list[float], ...] = ([], [], [])
    for _ in range(ROUNDS):
        for case in cases:
            for times, run in zip(taken, _runs(judge, case), strict=True):
                run()  # each with its own code and numbers in the caches
                start = time.process_time_ns()
                run()
                times.append((time.process_time_ns() - start) / 1e9)
    return Cost(*map(statistics.median, taken))


def _runs(judge: Judge, case: Batch) -> tuple[Callable[[], object], ...]:
    names = tuple(judge.recorder.sides(case).manual)
    cases = case.count if case.batched else None
    wide = widened(case.inputs)
    graph = record(lambda values: gradients_by_autograd(judge.twin.reference, values, names), wide)
    return (
        lambda: gradients_by_autograd(judge.twin.reference, wide),
        lambda: walk(graph, wide, FLOAT64, cases=cases),
        lambda: judge.judge(case),
    )


def table(rows: dict[str, Cost]) -> str:
    lines = [
        "# What the bounds cost",
        "",
        f"`python bench/overhead.py`, {datetime.now(UTC):%Y-%m-%d}, torch "
        f"{version('torch').partition('+')[0]}, one thread of {processor()}, processor's time, "
        "medians. Floor: one float64 forward and backward of the reference. Bounds: the walk that "
        "gives its gradients with their bounds. Verdict: all that judging a case takes in "
        "float64, the hand's two runs and its own walk included. Recording graphs, once a layout, "
        "is excluded.",
        "",
        "| twin | floor, ms | bounds | verdict |",
        "|---|---:|---:|---:|",
    ]
    for name, one in rows.items():
        ratios = (f"{taken / one.floor:.1f} x" for taken in (one.bounds, one.verdict))
        lines.append(f"| {name} | {one.floor * 1e3:.2f} | {' | '.join(ratios)} |")
    middle = [
        statistics.median(getattr(one, part) / one.floor for one in rows.values())
        for part in ("bounds", "verdict")
    ]
    return "\n".join([*lines, f"| median | | {middle[0]:.1f} x | {middle[1]:.1f} x |", ""])


def main() -> None:
    torch.set_num_threads(1)
    rows = {}
    for twin in twins():
        rows[twin.name] = cost(twin)
        print(twin.name, rows[twin.name], file=sys.stderr, flush=True)
    RESULT.write_text(table(rows))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
