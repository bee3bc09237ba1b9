"""How many cases a second `gradtwin sweep` judges: `python bench/sweep_rate.py [RANKS ...]`.

For each number of ranks (default 1 and 2) the assignment's twin in float64 and float32, in a new
ledger each time. A rate is the cases that the larger of two sweeps has more, by the time it takes
longer, so that the start (importing torch, recording graphs) is told apart. Prints both by the
clock and by the processors' time, which others' load on the machine does not change as much.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SMALL, LARGE = 3_000_000, 15_000_000  # both of so many that the judge is compiled


@dataclass(frozen=True)
class Taken:
    """Seconds by the clock, of processor time, and the ledger's bytes and lines."""

    clock: float
    processor: float
    size: int
    lines: int


def sweep(cases: int, dtype: str, ranks: int) -> Taken:
    """Run a sweep to its report in a folder that is removed. Raises CalledProcessError."""
    alone = [sys.executable, "-m", "torch_ref"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    several = [*torchrun, "--nproc-per-node", str(ranks), "-m", "torch_ref"]
    with tempfile.TemporaryDirectory() as folder:
        options = ["sweep", "--cases", str(cases), "--dtype", dtype, "--ledger", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        start, before = time.perf_counter(), _processor()
        command = [*(alone if ranks == 1 else several), *options]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        clock, processor = time.perf_counter() - start, _processor() - before
        texts = [file.read_bytes() for file in Path(folder).glob("rank-*.jsonl")]
    size, lines = sum(map(len, texts)), sum(text.count(b"\n") - 1 for text in texts)
    return Taken(clock, processor, size, lines)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def told(dtype: str, ranks: int) -> str:
    small, large = sweep(SMALL, dtype, ranks), sweep(LARGE, dtype, ranks)
    more = LARGE - SMALL
    return (
        f"{dtype}, {ranks} rank(s): {more / (large.clock - small.clock):,.0f} cases/s by the "
        f"clock, {more / (large.processor - small.processor):,.0f} in a second of one processor; "
        f"{SMALL:,} cases with the start {small.clock:.1f} s; "
        f"{large.size / large.lines / 1000:.1f} kB a line"
    )


def main() -> None:
    for ranks in map(int, sys.argv[1:] or ("1", "2")):
        for dtype in ("float64", "float32"):
            print(told(dtype, ranks), flush=True)


if __name__ == "__main__":
    main()
