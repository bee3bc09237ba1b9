"""How many cases a second `verify` judges, beside gradcheck in the same run, and in what memory:

    python bench/verify_rate.py [CASES]

The assignment's twin on one thread, by processor time: in each dtype the plain judge and, on CASES
cases (10 million where none are given), the compiled one, once it is compiled; and gradcheck in its
default and fast mode on cases of the same strata, as a user would have it: a Function whose forward
and backward are the hand's, one case a call. Writes bench/results/verify_rate.md.
"""

import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import manual_bp
from torch_ref import assignment_twin
from torch_ref.compare import DTYPES
from torch_ref.compare.cases import SHARD
from torch_ref.compare.compiled import COMPILED_FROM
from torch_ref.compare.judge import Judge, one_thread
from torch_ref.report.files import write_whole

RESULT = Path(__file__).parent / "results" / "verify_rate.md"
CPU = torch.device("cpu")
MANY, SOME = 10_000_000, 4 * SHARD
CHECKED = 400  # cases for gradcheck


class ByHand(torch.autograd.Function):
    """The loss of one case, with the hand-written backward pass."""

    @staticmethod
    def forward(ctx: Any, *numbers: Tensor) -> Tensor:
        ctx.save_for_backward(*numbers)
        parameters, inputs = _named(numbers)
        return manual_bp.forward(parameters, inputs, check_values=False)["loss"]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        parameters, inputs = _named(ctx.saved_tensors)
        values = manual_bp.forward(parameters, inputs, check_values=False)
        gradients = manual_bp.backward(parameters, values, check_values=False)
        return tuple(
            None if name == "t" else upstream[0] * gradients[name]
            for name in (*parameters, *inputs)
        )


def _named(numbers: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    named = dict(zip((*manual_bp.PARAMETERS, *manual_bp.INPUTS), numbers, strict=True))
    return {n: named[n] for n in manual_bp.PARAMETERS}, {n: named[n] for n in manual_bp.INPUTS}


def gradcheck_rate(fast: bool) -> tuple[float, float]:
    """Cases a second, and the share that it passes."""
    inputs = Judge(assignment_twin(), torch.float64, CPU, 0).cases.batch(0, CHECKED).inputs
    points = [
        tuple(
            inputs[name][case].clone().requires_grad_(name != "t")
            for name in (*manual_bp.PARAMETERS, *manual_bp.INPUTS)
        )
        for case in range(CHECKED)
    ]
    start = time.process_time()
    passed = sum(
        torch.autograd.gradcheck(ByHand.apply, point, fast_mode=fast, raise_exception=False)
        for point in points
    )
    return CHECKED / (time.process_time() - start), passed / CHECKED


def verify_rate(dtype: torch.dtype, expected: int, cases: int) -> float:
    """Cases a second once everything is recorded and, if so many are expected, compiled."""
    judge = Judge(assignment_twin(), dtype, CPU, 0)
    judge.expect(expected)
    shards = iter(range(-(-cases // SHARD) + 2))
    with one_thread(True):
        for shard in (next(shards), next(shards)):
            judge.judge(judge.cases.batch(shard, (shard + 1) * SHARD))
        start = time.process_time()
        for shard in shards:
            judge.judge(judge.cases.batch(shard, (shard + 1) * SHARD))
        return -(-cases // SHARD) * SHARD / (time.process_time() - start)


def measured(cases: int) -> Iterator[tuple[str, float, str]]:
    """What ran, cases a second, and a remark."""
    for name, fast in (("gradcheck", False), ("gradcheck, fast mode", True)):
        rate, passed = gradcheck_rate(fast)
        yield name, rate, f"passes {passed:.0%} of these right cases"
    for dtype in ("float64", "float32"):
        yield f"verify, {dtype}, plain", verify_rate(DTYPES[dtype], 0, SOME), ""
        rate = verify_rate(DTYPES[dtype], COMPILED_FROM, cases)
        yield f"verify, {dtype}, compiled", rate, f"{cases:,} cases"


def table(rows: list[tuple[str, float, str]], memory: float) -> str:
    slowest = min(rate for _, rate, _ in rows)
    lines = [
        "# Cases a second",
        "",
        f"`python bench/verify_rate.py`, {datetime.now(UTC):%Y-%m-%d}, torch "
        f"{version('torch').partition('+')[0]}, one thread, processor's time. Peak memory of the "
        f"process, torch included: {memory:,.0f} MiB.",
        "",
        "| what | cases a second | ratio | |",
        "|---|---:|---:|---|",
        *(
            f"| {name} | {rate:,.0f} | {rate / slowest:,.0f} | {said} |"
            for name, rate, said in rows
        ),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    torch.set_num_threads(1)
    cases = int(float(sys.argv[1])) if len(sys.argv) > 1 else MANY
    rows = []
    for row in measured(cases):
        print(*row, file=sys.stderr, flush=True)
        rows.append(row)
    write_whole(RESULT, table(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    main()
